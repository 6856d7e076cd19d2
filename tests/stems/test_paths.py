"""Where stems go: templates, songs of one name, hostile and long names."""

from pathlib import Path

import pytest

from ortsep.base.errors import UsageError
from ortsep.base.whole import partial_path
from ortsep.songs.provenance import sidecar
from ortsep.stems.paths import output_paths


def places(template: str, songs: list[str], stems: tuple[str, ...] = ("a", "b")) -> list[list[str]]:
    found = output_paths(template, Path("out"), [Path(s) for s in songs], stems, model="m", ext="wav")
    return [[p.as_posix() for p in song.values()] for song in found]


def test_templates() -> None:
    assert places("{song}/{stem}.{ext}", ["x/Song.mp3"]) == [["out/Song/a.wav", "out/Song/b.wav"]]
    assert places("{model}/{song} - {stem}.{ext}", ["s.flac"], ("a",)) == [["out/m/s - a.wav"]]
    assert places("{stem}.{ext}", ["s.flac"]) == [["out/a.wav", "out/b.wav"]]
    assert places("x.{ext}", ["s.flac"], ("a",)) == [["out/x.wav"]]


@pytest.mark.parametrize(
    ("template", "songs"),
    [
        ("{song}.wav", ["s"]),
        ("{stem}.wav", ["s", "t"]),
        ("{artist}/{stem}", ["s"]),
        ("{song.parent}/{stem}", ["s"]),
        ("{song!r}/{stem}", ["s"]),
        ("{stem:>9}", ["s"]),
        ("{}", ["s"]),
        ("{stem", ["s"]),
        ("../{stem}.wav", ["s"]),
        ("a/../{stem}.wav", ["s"]),
        ("/tmp/{stem}.wav", ["s"]),
        ("C:\\x\\{stem}.wav", ["s"]),
        ("{song}\n{stem}", ["s"]),
        ("", ["s"]),
        ("x" * 300 + "{stem}", ["s"]),
    ],
)
def test_templates_that_are_none(template: str, songs: list[str]) -> None:
    with pytest.raises(UsageError):
        places(template, songs)


def test_two_songs_of_one_name_both_survive() -> None:
    songs = ["1/Hit.mp3", "2/hit.wav", "3/Hit.flac", "4/other.wav", "5/Hit (2).wav"]
    names = [paths[0].split("/")[1] for paths in places("{song}/{stem}.{ext}", songs)]
    assert names == ["Hit", "hit (2)", "Hit (3)", "other", "Hit (2) (2)"]
    assert places("{song}/{stem}.{ext}", songs) == places("{song}/{stem}.{ext}", songs)


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        "a\\b",
        "CON",
        "-rf",
        "*",
        "ünï 音楽 \U0001f3b5",
        "x" * 240,
        "音" * 80,
        "\udcff",
        "a\nb",
        "~",
        "$HOME",
        " . ",
    ],
)
def test_no_name_of_a_song_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (found,) = output_paths("{song}/{stem}.{ext}", tmp_path, [Path("in") / f"{name}.mp3"], ["a"], model="m", ext="wav")
    path = found["a"]
    assert path.parent.parent == tmp_path and path.resolve().is_relative_to(tmp_path.resolve())
    save_at = partial_path(sidecar({"a": path}))
    path.parent.mkdir()
    save_at.touch()
    save_at.replace(path)
    str(path.relative_to(tmp_path)).encode()


def test_long_names_are_cut_and_stay_apart(tmp_path: Path) -> None:
    songs = [Path("音" * 80 + tail) for tail in ("1.wav", "2.wav")]
    first, second = output_paths("{song}-{stem}.{ext}", tmp_path, songs, ["a" * 100], model="m", ext="wav")
    one, two = first["a" * 100], second["a" * 100]
    assert one != two and two.name.startswith("音") and " (2)-" in two.name
    for path in (one, two):
        path.touch()
        partial_path(sidecar({"a": path})).touch()
