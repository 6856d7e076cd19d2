"""The spec goes to JSON and back, and nothing that is not a spec gets past it."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortsep.base.errors import ModelError
from ortsep.models.spec import (
    FORMAT,
    STFT,
    Blocks,
    Chunks,
    Figure,
    Filter,
    Member,
    ModelSpec,
    Normalization,
    Weights,
    from_json,
)

HYBRID = ModelSpec(
    name="htdemucs_ft",
    family="demucs",
    stems=("drums", "bäss"),
    sample_rate=44100,
    channels=2,
    domain="hybrid",
    output="hybrid",
    stft=STFT(4096, 1024, 2048, 1536, 1536, "reflect", True, True, "constant"),
    chunks=Chunks(343980, max_shift=22050),
    normalization=Normalization("track", 1e-8),
    bag=(Member("a.onnx", (1.0, 0.0), (0,)), Member("b.onnx", (0.5, 1.0), (1, 0))),
    weights=Weights("https://example.org/x.th", "0" * 64, "CC0", None, False),
    validation=(Figure("graph", 120.5, 100.0, "torch"), Figure("same", math.inf, 100.0)),
    notes=("one", "two"),
)
MAGNITUDE = ModelSpec(
    name="umx",
    family="openunmix",
    stems=("vocals",),
    sample_rate=44100,
    channels=2,
    domain="magnitude",
    output="stem_magnitudes",
    stft=STFT(4096, 1024, 1487, 2048, 2048),
    blocks=Blocks(512, batch=2, overlap=128),
    filter=Filter("wiener", iterations=1, softmask=True),
    bandwidth=16000.0,
)
PLAIN = ModelSpec(
    name="x",
    family="y",
    stems=("a",),
    sample_rate=8000,
    channels=1,
    domain="waveform",
    output="stems",
    chunks=Chunks(1),
)


@pytest.mark.parametrize("spec", [HYBRID, MAGNITUDE, PLAIN])
def test_round_trip(spec: ModelSpec) -> None:
    assert from_json(spec.to_json()) == spec
    assert from_json(spec.to_json()).to_json() == spec.to_json()


def test_format() -> None:
    text = PLAIN.to_json()
    assert text.startswith(f'{{"format":{FORMAT},')
    newer = text.replace(f'"format":{FORMAT}', f'"format":{FORMAT + 1}')
    with pytest.raises(ModelError, match=rf"song\.onnx.*format {FORMAT + 1}.*upgrade"):
        from_json(newer, "song.onnx")
    for wrong in ("0", "-1", "true", '"1"', "1.0", "null", "[]"):
        with pytest.raises(ModelError):
            from_json(text.replace(f'"format":{FORMAT}', f'"format":{wrong}'))


def test_keys_of_a_later_version_are_ignored_and_missing_ones_have_defaults() -> None:
    data = json.loads(PLAIN.to_json())
    data["new"], data["chunks"]["new"] = {"x": [1]}, 3
    for key in ("notes", "bag", "weights", "precision", "stft"):
        del data[key]
    assert from_json(json.dumps(data)) == PLAIN
    del data["stems"]
    with pytest.raises(ModelError, match="incomplete"):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "3", "[]", "null", '"x"', "{}", '{"format":1}', "\ud800", "\0"),
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"format":' + "9" * 5000,
        '{"format":1,"name":' + "[" * 900 + "]" * 900 + "}",
    ],
)
def test_not_a_spec(text: str) -> None:
    with pytest.raises(ModelError):
        from_json(text)


BIG = 10**12


@pytest.mark.parametrize(
    ("spec", "path", "value"),
    [
        (HYBRID, "stft.n_fft", 0),
        (HYBRID, "stft.n_fft", 4095),
        (HYBRID, "stft.n_fft", BIG),
        (HYBRID, "stft.n_fft", True),
        (HYBRID, "stft.hop", 0),
        (HYBRID, "stft.hop", 1),
        (HYBRID, "stft.hop", 4097),
        (HYBRID, "stft.bins", 2050),
        (HYBRID, "stft.pad_left", BIG),
        (HYBRID, "stft.pad_right", -1),
        (HYBRID, "stft.pad_mode", "wrap"),
        (HYBRID, "stft.frame_multiple", BIG),
        (HYBRID, "stft", None),
        (HYBRID, "stft", []),
        (HYBRID, "chunks.length", BIG),
        (HYBRID, "chunks.length", 0),
        (HYBRID, "chunks.length", 1.5),
        (HYBRID, "chunks.overlap", 1),
        (HYBRID, "chunks.overlap", math.nan),
        (HYBRID, "chunks.overlap", 10**400),
        (HYBRID, "chunks.max_shift", BIG),
        (HYBRID, "chunks", None),
        (HYBRID, "normalization.eps", math.nan),
        (HYBRID, "normalization.eps", math.inf),
        (HYBRID, "normalization.eps", -1),
        (HYBRID, "normalization.kind", {}),
        (HYBRID, "bag.0.file", "../a.onnx"),
        (HYBRID, "bag.0.file", "C:a.onnx"),
        (HYBRID, "bag.0.file", ""),
        (HYBRID, "bag.0.file", "a\n.onnx"),
        (HYBRID, "bag.0.weights", [1.0]),
        (HYBRID, "bag.0.weights", [math.inf, 0.0]),
        (HYBRID, "bag.0.weights", [-1.0, 0.0]),
        (HYBRID, "bag.0.weights", [1.0, 1.0]),
        (HYBRID, "bag.0.rows", [2]),
        (HYBRID, "bag.0.rows", [0, 0]),
        (HYBRID, "bag.1.weights", [1.0, 0.0]),
        (HYBRID, "bag", [3]),
        (HYBRID, "stems", []),
        (HYBRID, "stems", ["a", "a"]),
        (HYBRID, "stems", ["s"] * 5000),
        (HYBRID, "stems", "ab"),
        (HYBRID, "sample_rate", 0),
        (HYBRID, "channels", BIG),
        (HYBRID, "domain", "waveform"),
        (HYBRID, "domain", "quantum"),
        (HYBRID, "output", "stems"),
        (HYBRID, "parameters", -1),
        (HYBRID, "weights.redistributable", "no"),
        (HYBRID, "validation.0.db", math.nan),
        (HYBRID, "notes", [None]),
        (MAGNITUDE, "blocks.frames", BIG),
        (MAGNITUDE, "blocks.batch", 0),
        (MAGNITUDE, "blocks.batch", 257),
        (MAGNITUDE, "blocks.overlap", 257),
        (MAGNITUDE, "blocks", None),
        (MAGNITUDE, "filter", None),
        (MAGNITUDE, "filter.exponent", 0),
        (MAGNITUDE, "filter.exponent", math.inf),
        (MAGNITUDE, "filter.eps", math.nan),
        (MAGNITUDE, "filter.iterations", BIG),
        (MAGNITUDE, "filter.window", 0),
        (MAGNITUDE, "filter.alpha", -1),
        (MAGNITUDE, "bandwidth", 0),
        (MAGNITUDE, "bandwidth", math.inf),
    ],
)
def test_absurd_values(spec: ModelSpec, path: str, value: Any) -> None:
    data = json.loads(spec.to_json())
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ModelError):
        from_json(json.dumps(data))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in _paths(item, (*path, key)))]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), spec=st.sampled_from([HYBRID, MAGNITUDE, PLAIN]))
def test_hostile_json_gives_a_spec_or_a_model_error(data: st.DataObject, spec: ModelSpec) -> None:
    tree = json.loads(spec.to_json())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([p for p in _paths(tree) if p]))
        place = tree
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = data.draw(JSON)
    try:
        read = from_json(json.dumps(tree))
    except ModelError:
        return
    assert from_json(read.to_json()) == read


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_any_text_gives_a_model_error(text: str) -> None:
    with pytest.raises(ModelError):
        from_json(text)


def test_a_spec_checks_itself_when_built() -> None:
    with pytest.raises(ModelError):
        replace(PLAIN, output="masks")
    with pytest.raises(ModelError):
        replace(MAGNITUDE, blocks=None)
