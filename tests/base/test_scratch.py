"""What is kept on disk meanwhile, and what is said where the disk is full."""

from pathlib import Path

import numpy as np
import pytest

from ortsep.audio.sources import Kept
from ortsep.base.errors import OutputError
from ortsep.base.scratch import Scratch
from ortsep.engine.store import SMALL, Store


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, small_disk: Path) -> Path:
    """A disk with 100 bytes of room, but for what its pages round up to: less than any buffer of a file."""
    (small_disk / "fills it").write_bytes(bytes((2 << 20) - 100))
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    return small_disk


def test_what_is_written_is_read_in_any_order(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    with Scratch("it") as kept:
        for at in (40, 10, 0, 30, 20):
            kept.write(28 * at, values[at : at + 10])
        found = np.empty((25, 7), np.float32)
        kept.read(28 * 15, found)
        np.testing.assert_array_equal(found, values[15:40])
        kept.write(0, values.T)  # in C order, whatever lies in memory
        turned = np.empty((7, 50), np.float32)
        kept.read(0, turned)
        np.testing.assert_array_equal(turned, values.T)
        assert list(tmp_path.iterdir()) == []


def test_what_was_never_written_is_no_endless_wait() -> None:
    with pytest.raises(OutputError, match="it ends before what is read"), Scratch("it") as kept:
        kept.write(0, np.ones(3))
        kept.read(0, np.empty(4))


@pytest.mark.parametrize("count", [10, 1000, 100_000])
def test_a_full_disk_is_said_once(full: Path, count: int) -> None:
    """Also of what a buffer would have taken: it would be written at the close, and fail there once more."""
    said = r"^it can't be kept in .*small disk \(No space left on device\); make room there or set TMPDIR$"
    with pytest.raises(OutputError, match=said), Scratch("it") as kept:
        for at in range(0, 5_000_000, 8 * count):
            kept.write(at, np.ones(count))


def test_a_folder_that_is_named_is_said(tmp_path: Path) -> None:
    said = r"^it can't be kept in .*nowhere \(No such file or directory\); make room there$"
    with pytest.raises(OutputError, match=said):
        Scratch("it", tmp_path / "nowhere")


def test_what_a_network_remembers(full: Path) -> None:
    frames, said = SMALL // 4 + 1, "what the network remembers of the song can't be kept"
    with pytest.raises(OutputError, match=said), Store(frames) as store:
        for at in range(0, frames, 100):
            store.write("large", at, np.ones((100, 1), np.float32))


def test_blocks_of_a_generator(full: Path) -> None:
    with pytest.raises(OutputError, match="the mixture can't be kept in"):
        Kept((np.zeros((2, 100)) for _ in range(20_000)), 8000)
