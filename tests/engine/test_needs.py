"""What a run would allocate is known before it begins, and refused where there is not as much."""

import tracemalloc
from typing import Any

import pytest
from fakes import WAVES, changed, faked, scaled, song
from places import GRAPHS

from ortsep.base import memory
from ortsep.base.errors import ModelError
from ortsep.engine.needs import needed
from ortsep.models.spec import STFT, Blocks, Border, Chunks, Filter, Stepped
from ortsep.separator import Separator

BIG = 1 << 26
WIDE = STFT(1 << 16, 1 << 10, (1 << 15) + 1, 1 << 15, 1 << 15)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": Chunks(BIG), "stems": tuple(map(str, range(512))), "channels": 2},
        {"chunks": Chunks(1000, takes=Stepped(BIG, BIG)), "stems": tuple(map(str, range(512)))},
        {"chunks": Chunks(1000, border=Border(BIG, BIG, "reflect")), "stems": tuple(map(str, range(4000)))},
        {"domain": "hybrid", "output": "hybrid", "stft": WIDE, "chunks": Chunks(BIG)},
        {
            "domain": "magnitude",
            "output": "masks",
            "stft": WIDE,
            "chunks": None,
            "blocks": Blocks(131072),
            "filter": Filter(),
        },
    ],
)
def test_a_spec_that_asks_for_more_than_there_is(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.engine.needs.available", lambda: 1_000_000_000)
    separator, session = faked(changed(**changes), scaled(1.0))
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"would need at least [\d.]+ GB for this song and there are 1\.0 GB"):
        separator.stream(_Long(300_000_000))
    assert tracemalloc.get_traced_memory()[1] < 50_000_000 and not session.heard
    tracemalloc.stop()


class _Long:
    sample_rate, channels = 8000, 2

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def blocks(self) -> Any:
        raise AssertionError("nothing is read")


def test_nobody_says_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.engine.needs.available", lambda: None)
    separator, _ = faked(WAVES, scaled(0.5, 0.25))
    assert separator.separate(song(1000))["a"].shape == (2, 1000)


@pytest.mark.parametrize("name", ["waves", "hybrid", "complex", "masks", "ratio", "wiener"])
def test_the_least_is_no_more_than_what_is_taken(name: str) -> None:
    """numpy's own peak, which the arrays of the graph's run come on top of."""
    separator, x = Separator(GRAPHS / name), song(100_000)
    separator.separate(x[:, :5000], 8000)
    tracemalloc.start()
    blocks = separator.stream(x)
    total = sum(block.shape[-1] for block in blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 100_000
    assert needed(separator.spec, separator.plan(100_000, 8000)) < 2 * peak


def test_what_there_is() -> None:
    there = memory.available()
    assert there is None or 1 << 20 < there < 1 << 50


def test_a_container_has_its_own_limit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory._of_container() is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert memory._of_container() is None
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    assert memory._of_container() == 2_000_000
    assert memory.available() == 2_000_000
    (tmp_path / "memory.current").write_text("4000000\n")
    assert memory._of_container() == 0
