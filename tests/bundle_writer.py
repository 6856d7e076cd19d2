"""Writing checkpoints in TensorFlow's bundle format, sound ones and others, for the tests of those who read them."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ortsep.export.weights.crc32c import crc32c, mask
from ortsep.export.weights.tf_bundle import MAGIC


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def entry(shape=(2,), offset=0, size=8, dtype=1, crc=0, shard=0, more=b"") -> bytes:
    dims = b"".join(field(2, field(1, d)) for d in shape)
    return (
        field(1, dtype)
        + field(2, dims)
        + field(3, shard)
        + field(4, offset)
        + field(5, size)
        + varint(6 << 3 | 5)
        + struct.pack("<I", mask(crc))
        + more
    )


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    body = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in entries)
    body += struct.pack("<II", 0, 1) + bytes([kind])
    return body + struct.pack("<I", mask(crc32c(body)))


HEADER = (b"", field(1, 1) + field(3, field(1, 1)))


def table(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    data = block(entries, kind)
    index = block([(b"\xff", varint(0) + varint(len(data) - 5))])
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def put(folder: Path, index: bytes, shard: bytes = b"") -> Path:
    folder.joinpath("model.index").write_bytes(index)
    folder.joinpath("model.data-00000-of-00001").write_bytes(shard)
    return folder / "model"


def write_bundle(folder: Path, variables: Mapping[str, np.ndarray]) -> Path:
    """A sound checkpoint of float32 and int64 variables in ``folder``, called ``model``; its prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    entries, shard = [HEADER], bytearray()
    for name, value in sorted(variables.items()):
        raw = value.tobytes()
        number = {"float32": 1, "int64": 9}[str(value.dtype)]
        entries.append((name.encode(), entry(value.shape, len(shard), len(raw), number, crc32c(raw))))
        shard += raw
    folder.joinpath("checkpoint").write_text('model_checkpoint_path: "model"\nall_model_checkpoint_paths: "model"\n')
    return put(folder, table(entries), bytes(shard))
