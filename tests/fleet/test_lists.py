"""Manifests: every kind gives the same songs, and what is wrong is told with its line."""

import io
import json
import sys
from pathlib import Path

import pytest

from ortsep.base.errors import FileMissing, UsageError
from ortsep.fleet.lists import Row, Shard, read_manifest

ROWS = [
    Row("s3://b/a.wav", {"stems": ("vocals", "drums"), "start": 1.5}, {"id": "1"}),
    Row("/music/b.flac", {"residual": True, "rate": 44100}, {"id": "2"}),
]
CELLS = [
    {"id": "1", "path": "s3://b/a.wav", "stems": "vocals,drums", "start": "1.5", "residual": "", "rate": ""},
    {"id": "2", "path": "/music/b.flac", "stems": "", "start": "", "residual": "yes", "rate": "44100"},
]


def written(folder: Path, kind: str) -> str:
    path = folder / f"list.{kind}"
    if kind in ("csv", "tsv"):
        tab = "\t" if kind == "tsv" else ","
        quoted = [[f'"{c}"' for c in row.values()] for row in CELLS]
        path.write_text("\ufeff" + "\n".join(tab.join(line) for line in [list(CELLS[0]), *quoted]), encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("\n\n".join(json.dumps({k: v for k, v in row.items() if v}) for row in CELLS))
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(CELLS), path)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_gives_the_same_songs(tmp_path: Path, kind: str) -> None:
    assert list(read_manifest(written(tmp_path, kind))) == ROWS


def test_plain_lines_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.txt").write_text("a.wav\n\nsub/b c.wav\ngs://x/y.mp3\n")
    songs = [row.song for row in read_manifest(str(tmp_path / "list.txt"))]
    assert songs == [str(tmp_path / "a.wav"), str(tmp_path / "sub" / "b c.wav"), "gs://x/y.mp3"]
    monkeypatch.setattr(sys, "stdin", io.StringIO('a.wav\n{"song": "b.wav", "start": 2}\n'))
    assert list(read_manifest("-")) == [Row("a.wav"), Row("b.wav", {"start": 2.0})]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "id,title\n1,x\n", ("no column of songs", "id, title")),
        ("a.csv", "path,start\na.wav,soon\n", ("line 2", "start", "'soon'")),
        ("a.csv", "path\na.wav,b.wav\n", ("line 2", "more cells")),
        ("a.csv", "path,id\n,2\n", ("line 2", "names no song")),
        ("a.jsonl", '{"path": "a"}\n{"path": \n', ("line 2", "no JSON")),
        ("a.jsonl", '{"path": 3}\n', ("line 1", "names no song")),
        ("a.xls", "x", ("no known kind",)),
        ("a.parquet", "no parquet", ("no parquet",)),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, name: str, text: str, words: tuple[str, ...]) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError) as error:
        list(read_manifest(str(tmp_path / name)))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_other_bad_manifests(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no manifest"):
        list(read_manifest(str(tmp_path / "none.csv")))
    (tmp_path / "a.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(UsageError, match="UTF-8"):
        list(read_manifest(str(tmp_path / "a.csv")))


def test_shards_are_parts() -> None:
    rows = [Row(str(n)) for n in range(10)]
    parts = [[row.song for row in Shard.parse(f"{i}/3").of(rows)] for i in (1, 2, 3)]
    assert sorted(int(song) for part in parts for song in part) == list(range(10))
    assert parts[0] == ["0", "3", "6", "9"]
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UsageError, match="I/N"):
            Shard.parse(text)
