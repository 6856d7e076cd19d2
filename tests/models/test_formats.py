"""Specs of format 1 say the same in format 2, and what was wrong in them stays wrong."""

import json
from dataclasses import replace
from typing import Any

import pytest
from places import GRAPHS, ROOT

from ortsep.base.errors import ModelError
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Border, Chunks, Derived, Fixed, Free, Join, Stepped, from_json

OLD = {
    **{"format": 1, "name": "x", "family": "y", "stems": ["a"], "sample_rate": 8000, "channels": 1},
    **{"domain": "waveform", "output": "stems"},
}


def read(**changes: Any) -> Any:
    return from_json(json.dumps({**OLD, **changes}))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"length": 9}, Chunks(9)),
        ({"length": 9, "overlap": 0.5, "fixed": True, "least": 0, "step": 1, "whole": 4}, Chunks(9, overlap=0.5)),
        ({"length": 9, "fixed": False}, Chunks(9, takes=Free())),
        ({"length": 9, "fixed": False, "least": 0, "step": 7, "whole": 40}, Chunks(9, takes=Free(40))),
        ({"length": 9, "fixed": False, "least": 1}, Chunks(9, takes=Stepped(1))),
        ({"length": 9, "fixed": False, "least": 5, "step": 3, "whole": 2}, Chunks(9, takes=Stepped(5, 3, 2))),
        ({"length": 9, "align": 4, "max_shift": 3, "of a later version": 1}, Chunks(9, align=4, max_shift=3)),
    ],
)
def test_what_a_graph_takes_is_one_word_now(old: dict[str, Any], new: Chunks) -> None:
    assert read(chunks=old).chunks == new


@pytest.mark.parametrize(
    "chunks",
    [
        *({"length": 9, "fixed": wrong} for wrong in ("free", 1, None, [], {})),
        *({"length": 9, "fixed": False, "least": wrong} for wrong in (-1, True, 1.0, "1", None, 1 << 60)),
        {"length": 9, "fixed": True, "least": 2},
        {"length": 9, "fixed": False, "whole": -1},
        *(3, [], "x", None),
    ],
)
def test_what_was_wrong_stays_wrong(chunks: Any) -> None:
    with pytest.raises(ModelError):
        read(chunks=chunks)


def test_masks_of_complex_graphs_multiplied_the_parts() -> None:
    spec = from_json(read_metadata(GRAPHS / "complex" / "complex.onnx")[METADATA_KEY])
    assert (spec.domain, spec.output) == ("complex", "part_masks")
    assert spec.chunks == Chunks(4000, takes=Free(6000))
    assert from_json(spec.to_json()) == spec
    bundled = from_json(read_metadata(ROOT / "models" / "bundled" / "drums_mini" / "drums_mini.onnx")[METADATA_KEY])
    assert (bundled.domain, bundled.output) == ("magnitude", "masks")
    again = json.loads(replace(spec, output="masks").to_json())
    assert from_json(json.dumps(again)).output == "masks", "format 2 has both"


NEW = json.loads(
    replace(
        read(chunks={"length": 100}),
        stems=("a", "b"),
        gains=(1.5, 2.0),
        derived=(Derived("c", ("a",), 1.25),),
        chunks=Chunks(
            100, parts=4, takes=Stepped(3), join=Join("fade", 10), border=Border(fill="reflect", overlapping=True)
        ),
    ).to_json()
)


def test_all_of_format_2_goes_there_and_back() -> None:
    spec = from_json(json.dumps(NEW))
    assert json.loads(spec.to_json()) == NEW
    assert spec.names == ("a", "b", "c")
    other = spec.renamed(("x", "a", "y"))
    assert (other.stems, other.derived) == (("x", "a"), (Derived("y", ("x",), 1.25),))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(
            ("chunks.takes", wrong)
            for wrong in (None, {}, {"kind": "some"}, {"kind": []}, "fixed", {"kind": "stepped"})
        ),
        ("chunks.takes", {"kind": "stepped", "least": 0}),
        ("chunks.takes", {"kind": "free", "whole": 1 << 40}),
        ("chunks.join", {"kind": "fade"}),
        ("chunks.join", {"kind": "hann", "fade": 3}),
        ("chunks.join", {"kind": "fade", "fade": 51}),
        ("chunks.join", {"kind": "blackman"}),
        ("chunks.border.before", -1),
        ("chunks.border.after", 1 << 40),
        ("chunks.border.multiple", 0.5),
        ("chunks.border.fill", "wrap"),
        ("chunks.parts", 101),
        ("chunks.parts", -1),
        ("chunks.tail", "front"),
        ("gains", [1.0]),
        ("gains", [0.0, 1.0]),
        ("gains", [1.0, 17.0]),
        ("derived.0.minus", []),
        ("derived.0.minus", ["c"]),
        ("derived.0.minus", ["a", "a"]),
        ("derived.0.gain", 0),
        ("derived.0.name", "b"),
        ("tensors.names", [{"ours": "mix"}]),
        ("tensors.names", [{"ours": "mix", "theirs": "x"}, {"ours": "spectrum", "theirs": "x"}]),
        ("tensors.names", [{"ours": "song", "theirs": "x"}]),
        ("tensors.names", [{"ours": "mix", "theirs": "x", "axes": "b c c"}]),
        ("normalization.ddof", 2),
    ],
)
def test_absurd_values(path: str, value: Any) -> None:
    data = json.loads(json.dumps(NEW))
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ModelError):
        from_json(json.dumps(data))


def test_takes_are_told_apart_by_their_kind() -> None:
    for takes in (Fixed(), Free(7), Stepped(1, 2, 3)):
        spec = replace(from_json(json.dumps(NEW)), chunks=Chunks(9, takes=takes))
        assert from_json(spec.to_json()) == spec
