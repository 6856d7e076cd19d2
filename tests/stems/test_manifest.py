"""stems.txt: what is read, what is refused and why, and that every accepted name is a file of its own."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ortsep.base.errors import FileMissing, ModelError, OutputError
from ortsep.stems.manifest import MAX_NAME_BYTES, check_names, name_fault, read_manifest, safe_name, write_manifest


def manifest(folder: Path, data: bytes) -> Path:
    path = folder / "stems.txt"
    path.write_bytes(data)
    return path


def test_round_trip(tmp_path: Path) -> None:
    names = ("drums", "bass", "Lead vocals", "ピアノ", "no_drums.2", "é")
    write_manifest(tmp_path / "stems.txt", names)
    assert (tmp_path / "stems.txt").read_bytes() == "".join(n + "\n" for n in names).encode()
    assert read_manifest(tmp_path / "stems.txt", 6) == names
    assert [p.name for p in tmp_path.iterdir()] == ["stems.txt"]


@pytest.mark.parametrize(
    "data", [b"drums\nvocals\n", b"drums\nvocals", b"drums\r\nvocals\r\n", b"\xef\xbb\xbfdrums\nvocals \n"]
)
def test_line_ends_and_byte_order_mark(tmp_path: Path, data: bytes) -> None:
    assert read_manifest(manifest(tmp_path, data)) == ("drums", "vocals")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "names no stem"),
        (b"\n", "line 1: the name is blank"),
        (b"drums\n\nvocals\n", "line 2: the name is blank"),
        (b"drums\nvocals\n\n", "line 3: the name is blank"),
        (b"drums\n  \n", "line 2: the name is blank"),
        (b"drums\nvocals\ndrums\n", "there already in line 1"),
        (b"drums\nDRUMS\n", "there already in line 1"),
        ("é\ne\u0301\n".encode(), "there already in line 1"),
        ("straße\nSTRASSE\n".encode(), "there already in line 1"),
        (b"a/b\n", "'/'"),
        (b"a\\b\n", "'\\\\'"),
        (b"a:b\n", "':'"),
        (b"..\n", "folder"),
        (b".\n", "folder"),
        (b"CON\n", "device"),
        (b"nul.wav\n", "device"),
        (b"Lpt1\n", "device"),
        (b"a\tb\n", "control"),
        (b"a\0b\n", "control"),
        (b"a\rb\n", "control"),
        ("a\u2028b\n".encode(), "control"),
        (b" drums\n", "space"),
        (b"drums.\n", "dot"),
        ("é".encode() * 51 + b"\n", "longer than 100 bytes"),
        (b"\xff\xfed\0", "not UTF-8 at byte 0"),
        (b"x\n" * 40_000, "65536 bytes"),
    ],
)
def test_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = manifest(tmp_path, data)
    with pytest.raises(ModelError) as caught:
        read_manifest(path)
    assert words in str(caught.value) and str(path) in str(caught.value) and ";" in str(caught.value)


@pytest.mark.parametrize("count", [1, 3])
def test_a_count_that_disagrees_with_the_graph(tmp_path: Path, count: int) -> None:
    with pytest.raises(ModelError, match=f"names 2 stems and the graph gives {count}; write exactly {count}"):
        read_manifest(manifest(tmp_path, b"drums\nvocals\n"), count)


def test_no_file_and_no_place(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="one stem name a line"):
        read_manifest(tmp_path / "stems.txt")
    with pytest.raises(ModelError):
        read_manifest(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_manifest(tmp_path / "file" / "stems.txt", ["a"])
    with pytest.raises(ModelError):
        write_manifest(tmp_path / "stems.txt", ["a", "A"])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@settings(max_examples=200, deadline=None)
@given(names=st.lists(st.text(max_size=60), min_size=1, max_size=5))
def test_accepted_names_are_files_of_their_own(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        accepted = check_names(names)
    except ModelError as error:
        assert str(error).startswith("the list of stems")
        return
    folder = tmp_path_factory.mktemp("names")
    for name in accepted:
        (folder / name).touch(exist_ok=False)
    assert len(list(folder.iterdir())) == len(accepted)
    write_manifest(folder / "stems.txt", accepted)
    assert read_manifest(folder / "stems.txt") == accepted


@settings(max_examples=300, deadline=None)
@given(name=st.text(max_size=80))
def test_safe_names_are_names(name: str) -> None:
    safe = safe_name(name)
    assert len(safe.encode()) > MAX_NAME_BYTES or name_fault(safe) is None
    assert name_fault(name) is not None or safe == name


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_any_bytes_give_names_or_a_clear_error(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = manifest(tmp_path_factory.getbasetemp(), data)
    try:
        assert read_manifest(path)
    except ModelError as error:
        assert str(path) in str(error)
