"""External data of ONNX files is found as protobuf finds it, in bytes of any make; the onnx package is the oracle."""

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mutations import TIMES

from ortsep.base.errors import ModelError
from ortsep.models.onnx_file import external_files, read_metadata

onnx = pytest.importorskip("onnx")
from google.protobuf.message import DecodeError  # noqa: E402


def varint(value: int, length: int = 0) -> bytes:
    """A number in at least ``length`` bytes: longer than it needs to be, where that is more."""
    parts = [value & 127]
    while value := value >> 7:
        parts.append(value & 127)
    parts += [0] * (length - len(parts))
    return bytes([part | 128 for part in parts[:-1]] + [parts[-1]])


def field(number: int, data: bytes, tag: int = 0, length: int = 0) -> bytes:
    return varint(number << 3 | 2, tag) + varint(len(data), length) + data


def locations(data: bytes) -> set[str]:
    """What the onnx package finds, wherever it is."""
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return {named(e.value) for t in tensors(model) for e in t.external_data if e.key == "location"}


def named(value: str | bytes) -> str:
    """protobuf gives bytes where a string is no UTF-8."""
    return value if isinstance(value, str) else os.fsdecode(value)


def tensors(message: Any) -> Iterator[Any]:
    if isinstance(message, onnx.TensorProto):
        yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for inner in value if isinstance(value, list) or hasattr(value, "append") else [value]:
                yield from tensors(inner)


def found(path: Path, data: bytes) -> set[str]:
    path.write_bytes(data)
    return {p.name for p in external_files(path)}


KEY, VALUE = field(1, b"location"), field(2, b"weights")
ENTRIES = {
    "plain": KEY + VALUE,
    "value first": VALUE + KEY,
    "overlong tags": field(1, b"location", 5) + field(2, b"weights", 3),
    "overlong lengths": field(1, b"location", 1, 5) + field(2, b"weights", 2, 4),
    "a number between": KEY + varint(9 << 3) + varint(1 << 60) + VALUE,
    "fixed between": varint(3 << 3 | 1) + bytes(8) + KEY + varint(3 << 3 | 5) + bytes(4) + VALUE,
    "high unknown field": varint((1 << 29) - 1 << 3) + b"\x01" + KEY + VALUE,
    "70 kB in front": field(15, bytes(70_000)) + KEY + VALUE,
    "70 kB between": KEY + field(15, bytes(70_000)) + VALUE,
    "a number where a string is": varint(1 << 3) + b"\x05" + KEY + VALUE,
    "given twice": field(1, b"offset") + field(2, b"harmless") + KEY + VALUE,
    "in a group and out": varint(9 << 3 | 3) + field(1, b"offset") + varint(9 << 3 | 4) + KEY + VALUE,
}
PLACES = {
    "initializer": (7, 5),
    "attribute": (7, 1, 5, 5),
    "attributes": (7, 1, 5, 10),
    "graph in a node": (7, 1, 5, 6, 5),
    "graphs in a node": (7, 1, 5, 11, 5),
    "sparse initializer": (7, 15, 1),
    "sparse attribute": (7, 1, 5, 22, 2),
    "sparse attributes": (7, 1, 5, 23, 1),
    "function": (25, 7, 5, 5),
    "function attribute": (25, 11, 5),
    "training": (20, 1, 5),
    "training algorithm": (20, 2, 15, 2),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("place", PLACES)
def test_every_way_to_write_it_in_every_place(tmp_path: Path, entry: str, place: str) -> None:
    data = field(13, ENTRIES[entry])
    for number in PLACES[place][::-1]:
        data = field(number, data, 2)
    assert locations(data) == {"weights"} == found(tmp_path / "m.onnx", data)


def test_a_message_in_two_pieces_is_one(tmp_path: Path) -> None:
    """protobuf merges a message that is given twice; so a tensor of either piece counts."""
    data = field(7, field(5, b"\x08\x04")) + field(7, field(5, field(13, KEY + VALUE)))
    assert locations(data) == {"weights"} == found(tmp_path / "m.onnx", data)


@pytest.mark.parametrize("location", ["*/_ORT_MEM_ADDR_/*", "../w", "/etc/passwd", "a/../../w", "", "."])
def test_what_is_no_file_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (tmp_path / "*" / "_ORT_MEM_ADDR_" / "*").touch()
    (tmp_path / "m.onnx").write_bytes(field(7, field(5, field(13, KEY + field(2, location.encode())))))
    with pytest.raises(ModelError, match="outside its folder"):
        external_files(tmp_path / "m.onnx")


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are not UTF-8 need Linux")
def test_a_link_whose_name_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / os.fsdecode(b"\xff")).symlink_to("/etc/passwd")
    (tmp_path / "model" / "m.onnx").write_bytes(field(7, field(5, field(13, KEY + field(2, b"\xff")))))
    with pytest.raises(ModelError, match="outside its folder"):
        external_files(tmp_path / "model" / "m.onnx")


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path) -> None:
    """A file that is both: ONNX Runtime would take it for the one that isn't checked."""
    data = b"\x0a\x06\0\0ORTM" + field(7, b"")
    assert onnx.ModelProto().ParseFromString(data) == len(data)
    (tmp_path / "m.onnx").write_bytes(data)
    for reader in (external_files, read_metadata):
        with pytest.raises(ModelError, match="own format"):
            reader(tmp_path / "m.onnx")


CHILDREN = {"model": [(7, "graph"), (20, "training"), (25, "function")], "graph": [(1, "node"), (5, "tensor")]}
CHILDREN |= {"node": [(5, "attribute")], "attribute": [(5, "tensor"), (10, "tensor"), (6, "graph"), (22, "sparse")]}
CHILDREN |= {
    "function": [(7, "node")],
    "training": [(1, "graph")],
    "sparse": [(1, "tensor")],
    "tensor": [(13, "entry")],
}


def message(rng: random.Random, kind: str, depth: int = 0) -> bytes:
    """A message of random fields, written in random ways."""
    parts = []
    for _ in range(rng.randint(1, 3)):
        if kind == "entry":
            value = rng.choice([b"location", b"location", b"offset", b"w%d" % rng.randrange(50), b"\xff"])
            parts.append(field(rng.choice([1, 1, 2, 2, 3]), value, rng.randrange(6), rng.randrange(6)))
        elif depth < 9:
            number, child = rng.choice(CHILDREN[kind])
            parts.append(field(number, message(rng, child, depth + 1), rng.randrange(6), rng.randrange(6)))
        match rng.randrange(9):
            case 0:
                parts.append(
                    varint(rng.randrange(30, 1 << 29) << 3, rng.randrange(6)) + varint(rng.getrandbits(64), 10)
                )
            case 1:
                parts.append(field(rng.randrange(200, 300), rng.randbytes(rng.randrange(300)), rng.randrange(6)))
            case 2:
                parts.append(varint(200 << 3 | 1) + rng.randbytes(8) + varint(201 << 3 | 5) + rng.randbytes(4))
    rng.shuffle(parts)
    return b"".join(parts)


def damaged(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out) or 1)
        match rng.randrange(4):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at : at + rng.randint(1, 4)]
            case 2:
                out[at:at] = rng.choice([b"\x80", b"\x0b", b"\x0c", b"\x00", b"\xff\xff", rng.randbytes(3)])
            case _:
                out[at:at] = field(1, b"location") + field(2, b"x")
    return bytes(out)


def test_fuzz_against_protobuf(tmp_path: Path) -> None:
    """What protobuf finds in bytes that it can read is found here, or the file is refused."""
    path, told, seen = tmp_path / "m.onnx", 0, 0
    for seed in range(2000 * TIMES):
        rng = random.Random(seed)
        data = message(rng, "model")
        sound = rng.random() < 0.4
        if sound and "" not in locations(data):  # a location of nothing is refused
            assert found(path, data) == locations(data), seed
        elif not sound:
            data = damaged(rng, data)
        try:
            wanted = locations(data)
        except DecodeError:
            assert not sound
            continue
        seen += 1
        told += bool(wanted)
        path.write_bytes(data or b"\0")
        with contextlib.suppress(ModelError):
            got = {str(p.relative_to(tmp_path)) for p in external_files(path)}
            assert {w for w in wanted if w} <= got, seed
    assert seen > 800 * TIMES and told > 200 * TIMES
