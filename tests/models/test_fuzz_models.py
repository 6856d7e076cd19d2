"""Hostile specs, cards and ONNX files: a ModelError, soon and in little memory, or something sound."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import budget, damaged
from places import GRAPHS

from ortsep.base.errors import ModelError
from ortsep.models.catalogue import CARDS, read_cards
from ortsep.models.onnx_file import external_files, read_metadata
from ortsep.models.spec import METADATA_KEY, from_json

GRAPHS = sorted(GRAPHS.rglob("*.onnx"))
SPECS = [json.loads(read_metadata(g)[METADATA_KEY]) for g in GRAPHS if METADATA_KEY in read_metadata(g)]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([0, -1, 1e308, 10**12, "", "x" * 10_000, [], {}, "waveform", "masks"]),
    lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=5), v, max_size=4),
    max_leaves=6,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] * bool(at) + [p for key, item in items for p in paths(item, (*at, key))]


@budget(400)
@given(st.data())
def test_fuzz_spec_values(data: Any) -> None:
    spec = json.loads(json.dumps(data.draw(st.sampled_from(SPECS))))
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(spec)))
        target = spec
        for key in way:
            target = target[key] if isinstance(target, dict | list) else None
        if isinstance(target, dict | list) and (isinstance(target, dict) or last < len(target)):
            target[last] = data.draw(VALUES)
    try:
        read = from_json(json.dumps(spec))
    except ModelError:
        return
    assert from_json(read.to_json()) == read


@budget(150)
@given(damaged(*[json.dumps(s).encode() for s in SPECS], front=3000) | st.binary(max_size=50))
def test_fuzz_spec_text(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        from_json(data.decode("utf-8", "replace"))


@budget(60)
@given(damaged(*[p.read_bytes() for p in sorted(CARDS.glob("*.toml"))], front=4000))
def test_fuzz_cards(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cards.toml"
        path.write_bytes(data)
        with contextlib.suppress(ModelError):
            list(read_cards(path))


@budget(200)
@given(damaged(*[g.read_bytes() for g in GRAPHS]) | st.binary(max_size=50))
def test_fuzz_onnx_bytes(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        path.write_bytes(data)
        for reader in (read_metadata, external_files):
            with contextlib.suppress(ModelError):
                reader(path)


def number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def field(which: int, data: bytes) -> bytes:
    return number(which << 3 | 2) + number(len(data)) + data


def stored(location: str) -> bytes:
    """A TensorProto that keeps its data in ``location``."""
    return field(13, field(1, b"location") + field(2, location.encode()))


IN_INITIALIZER = (7, 5)
PLACES = [IN_INITIALIZER, (7, 1, 5, 5), (7, 1, 5, 10), (7, 1, 5, 6, 5), (7, 15, 1), (7, 1, 5, 22, 2), (25, 7, 5, 5)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hidden", [b"", b"\x7b\x7c", b"\x58\x01"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, place: tuple[int, ...], hidden: bytes) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(b"0123")
    (tmp_path / "model" / "link").symlink_to(tmp_path / "secret")
    graph = tmp_path / "model" / "graph.onnx"
    for location in ("../secret", str(tmp_path / "secret"), "link", "a/../../secret", "", "."):
        data = stored(location)
        for which in place[::-1]:
            data = hidden + field(which, data)
        graph.write_bytes(data)
        with pytest.raises(ModelError, match="outside its folder"):
            external_files(graph)
    data = stored("weights.bin")
    for which in place[::-1]:
        data = field(which, data)
    graph.write_bytes(data)
    assert external_files(graph) == ((tmp_path / "model" / "weights.bin").resolve(),)


def test_a_model_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    data = b""
    for _ in range(1000):
        data = field(1, field(5, field(6, data)))
    (tmp_path / "deep.onnx").write_bytes(field(7, data))
    with pytest.raises(ModelError, match="nested"):
        external_files(tmp_path / "deep.onnx")
