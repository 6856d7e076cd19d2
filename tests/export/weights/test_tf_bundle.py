"""The reader of TensorFlow checkpoints: a bundle that TensorFlow wrote, bundles of our own, and damaged ones.

data/tf_bundle was written by TensorFlow 2.12 (tests/parity/make_spleeter_reference.py).
"""

import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import HEADER, block, entry, field, put, table, varint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import DATA

from ortsep.base.errors import FileMissing, OrtsepError, WeightsError
from ortsep.export.weights.crc32c import POLYNOMIAL, crc32c, mask, unmask
from ortsep.export.weights.tf_bundle import DTYPES, MAGIC, graph_nodes, read_bundle, read_index

SMALL = DATA / "tf_bundle" / "model"
INDEX = SMALL.with_name("model.index").read_bytes()
SHARD = SMALL.with_name("model.data-00000-of-00001").read_bytes()


def plain_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc32c_of_the_rfc() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize("size", [*range(20), 1021, 4096, 70_001])
def test_crc32c_bit_by_bit(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == plain_crc(data)
    assert unmask(mask(crc32c(data))) == crc32c(data)


def test_crc32c_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.export.weights.crc32c.CHUNK", 64)
    data = np.random.default_rng(0).bytes(400)
    for size in (63, 64, 65, 67, 68, 69, 128, 132, 133, 400):
        assert crc32c(data[:size]) == plain_crc(data[:size])


def test_reads_what_tensorflow_wrote() -> None:
    variables = read_bundle(SMALL)
    assert len(variables) == 41
    assert variables["global_step"] == 1234567890123
    assert variables["global_step"].dtype == np.int64
    for k in range(40):
        kernel = variables[f"layer_{k}/kernel"]
        assert kernel.shape == (1, k)
        assert kernel.dtype == np.float32
        assert np.array_equal(kernel[0], np.arange(k))


def test_reads_every_type_and_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    entries, shard, expected = [HEADER], b"", {}
    for number, dtype in DTYPES.items():
        value = rng.integers(0, 2, (2, 3, number % 3)).astype(dtype)
        raw = value.tobytes()
        name = f"v{number:02d}"
        entries.append((name.encode(), entry(value.shape, len(shard), len(raw), number, crc32c(raw))))
        shard, expected[name] = shard + raw, value
    variables = read_bundle(put(tmp_path, table(entries), shard))
    assert {n: v.tolist() for n, v in variables.items()} == {n: v.tolist() for n, v in expected.items()}


@pytest.mark.parametrize("at", range(0, len(SHARD), 97))
def test_a_corrupted_shard_is_named(tmp_path: Path, at: int) -> None:
    shard = bytearray(SHARD)
    shard[at] ^= 4
    with pytest.raises(WeightsError, match=r"data-00000-of-00001 is damaged: the checksum of \S+ is wrong"):
        read_bundle(put(tmp_path, INDEX, bytes(shard)))


def test_a_corrupted_index_never_gives_other_values(tmp_path: Path) -> None:
    right = read_bundle(SMALL)
    for at in range(len(INDEX)):
        index = bytearray(INDEX)
        index[at] ^= 1 << at % 8
        try:
            got = read_bundle(put(tmp_path, bytes(index), SHARD))
        except OrtsepError:
            continue
        assert got.keys() == right.keys()  # the handle of the unused meta index, and the footer's padding
        assert all(np.array_equal(got[name], right[name]) for name in right)


def test_cut_off_files(tmp_path: Path) -> None:
    for size in range(0, len(INDEX), 41):
        with pytest.raises(WeightsError, match=r"model\.index is not a sound checkpoint index"):
            read_bundle(put(tmp_path, INDEX[:size], SHARD))
    for size in range(0, len(SHARD), 251):
        with pytest.raises(WeightsError, match="is damaged"):
            read_bundle(put(tmp_path, INDEX, SHARD[:size]))


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"model\.index"):
        read_bundle(tmp_path / "model")
    put(tmp_path, INDEX)
    tmp_path.joinpath("model.data-00000-of-00001").unlink()
    with pytest.raises(FileMissing, match=r"lacks its file model\.data-00000-of-00001"):
        read_bundle(tmp_path / "model")


ZEROS = crc32c(bytes(8))
HOSTILE = {
    "compressed": (table([HEADER, (b"a", entry(crc=ZEROS))], kind=1), "compressed"),
    "no header": (table([(b"a", entry(crc=ZEROS))]), "no header"),
    "no shards": (table([(b"", field(1, 0))]), "0 shards"),
    "many shards": (table([(b"", field(1, 1 << 40))]), "shards"),
    "big-endian": (table([(b"", field(1, 1) + field(2, 1))]), "big-endian"),
    "string": (table([HEADER, (b"a", entry(dtype=7))]), "not a plain number"),
    "slices": (table([HEADER, (b"a", entry(more=field(7, b"")))]), "slices"),
    "wrong size": (table([HEADER, (b"a", entry(shape=(3,)))]), "not what the shape"),
    "huge shape": (table([HEADER, (b"a", entry(shape=(0, 1 << 62), size=0))]), "can't have the shape"),
    "negative": (table([HEADER, (b"a", entry(shape=((1 << 64) - 2,)))]), "can't have the shape"),
    "deep": (table([HEADER, (b"a", entry(shape=(1,) * 100 + (2,)))]), "can't have the shape"),
    "negative offset": (table([HEADER, (b"a", entry(offset=(1 << 64) - 8))]), "overlaps|no shard"),
    "other shard": (table([HEADER, (b"a", entry(shard=3))]), "overlaps|no shard"),
    "overlap": (table([HEADER, (b"a", entry()), (b"b", entry(offset=4))]), "overlaps"),
    "repeated": (table([HEADER, (b"a", entry()), (b"a", entry(offset=8))]), "not in order"),
    "unordered": (table([HEADER, (b"b", entry()), (b"a", entry(offset=8))]), "not in order"),
    "long key": (table([HEADER, (b"a" * 5000, entry())]), "does not fit"),
    "many": (table([HEADER, *((b"%07d" % k, b"") for k in range(30_000))]), "more than 20000"),
    "number": (table([HEADER, (b"a", b"\xff" * 12)]), "64 bits"),
    "group": (table([HEADER, (b"a", b"\x0b")]), "wire type 3"),
    "not a message": (table([HEADER, (b"a", field(1, 1) + field(2, 5))]), "not a message"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_sound_tables_with_hostile_content(tmp_path: Path, case: str) -> None:
    index, message = HOSTILE[case]
    with pytest.raises(WeightsError, match=message):
        read_bundle(put(tmp_path, index, bytes(64)))


def test_a_variable_beyond_the_shard(tmp_path: Path) -> None:
    index = table([HEADER, (b"a", entry(shape=(1 << 36,), size=1 << 38))])
    tracemalloc.start()
    with pytest.raises(WeightsError, match="ends before the values of a"):
        read_bundle(put(tmp_path, index, bytes(64)))
    assert tracemalloc.get_traced_memory()[1] < 1 << 23
    tracemalloc.stop()


FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(WeightsError):
        read_index(put(tmp_path, data))


@FUZZ
@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=40)), max_size=6), st.binary(max_size=64))
def test_arbitrary_entries_in_a_sound_table(tmp_path: Path, pairs: list[tuple[bytes, bytes]], shard: bytes) -> None:
    prefix = put(tmp_path, table([HEADER, *sorted(dict(pairs).items())]), shard)
    try:
        assert isinstance(read_bundle(prefix), dict)
    except WeightsError as error:
        assert "model." in str(error)


@FUZZ
@given(st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 2**63), st.binary(max_size=60))
def test_arbitrary_blocks_and_handles(tmp_path: Path, offset: int, size: int, restarts: int, body: bytes) -> None:
    raw = body + struct.pack("<I", restarts & 0xFFFFFFFF) + b"\0"
    raw += struct.pack("<I", mask(crc32c(raw)))
    index = block([(b"k", varint(offset % 200) + varint(size % 200)), (b"l", varint(0) + varint(len(raw) - 5))])
    footer = varint(0) + varint(0) + varint(len(raw)) + varint(len(index) - 5)
    with pytest.raises(WeightsError):
        read_index(put(tmp_path, raw + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)))


def test_nodes_of_a_meta_graph(tmp_path: Path) -> None:
    path = tmp_path / "model.meta"
    assert graph_nodes(path) == ()
    nodes = [field(1, field(1, b"n%d" % k) + field(2, kind)) for k, kind in enumerate((b"Elu", b"Conv2D", b"Elu"))]
    path.write_bytes(field(1, b"") + field(2, b"".join(nodes)))
    assert graph_nodes(path) == (("n0", "Elu"), ("n1", "Conv2D"), ("n2", "Elu"))
    path.write_bytes(b"\xff" * 100)
    assert graph_nodes(path) == ()


def test_an_index_that_is_too_large(tmp_path: Path) -> None:
    index = bytes(5 << 20) + INDEX
    with pytest.raises(WeightsError, match="over 4 MB"):
        read_index(put(tmp_path, index))
