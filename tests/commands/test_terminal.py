"""Commands typed into a terminal: what is drawn there is seen by nobody whose standard error is a file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS
from terminal import render, typed

ORTSEP = [sys.executable, "-m", "ortsep.cli"]
SONGS = ["song.wav", "[brackets] and spaces.wav", "A name that is far too long for a line - live (1999).wav"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    noise = 0.1 * np.random.default_rng(0).standard_normal((80000, 2)).astype(np.float32)
    for name in SONGS:
        soundfile.write(tmp_path / name, noise, 8000, subtype="FLOAT")
    shutil.copytree(GRAPHS, tmp_path / "models" / "exported")
    return tmp_path


def long_song(path: Path) -> None:
    """Half an hour, in which something can happen."""
    soundfile.write(path, np.zeros((8000 * 1800, 2), np.float32), 8000, subtype="PCM_16")


def when(text: str, answer: bool | bytes = True) -> Callable[[subprocess.Popen[bytes], str], bool | bytes]:
    return lambda process, seen: answer if text in seen else False


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize("env", [{"TERM": "xterm-256color"}, {"TERM": "dumb"}, {"NO_COLOR": "1"}], ids=str)
@pytest.mark.parametrize("more", [(), ("-j", "2")], ids=str)
def test_run_draws_and_leaves_sentences(place: Path, columns: int, env: dict[str, str], more: tuple[str, ...]) -> None:
    done = typed([*ORTSEP, "run", "waves", *SONGS, *more], cwd=place, columns=columns, env=env)
    assert done.status == 0, done.text
    assert "unexpected" not in done.text
    lines, folded = render(done.raw, columns)
    for song in SONGS:
        assert f"{song}: drums, vocals ->" in done.flowing(columns)
        assert (place / "separated" / "waves" / Path(song).stem / "drums.wav").exists()
    assert lines[-1] == "3 songs: 3 done"
    dumb = env.get("TERM") == "dumb"
    assert folded == 0, "a word or a bar was broken at the edge"
    assert not any("━" in line or "%" in line for line in lines), "something of a bar was left"
    assert ("%" in done.text) is not dumb
    assert ("\x1b" in done.raw) is not dumb
    if "NO_COLOR" in env:
        assert "\x1b[3" not in done.raw


def test_json_has_standard_output_for_itself_and_the_bar_is_drawn(place: Path) -> None:
    reading, writing = os.pipe()
    done = typed([*ORTSEP, "run", "waves", "song.wav", "--json"], cwd=place, stdout=writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        document = json.loads(pipe.read())
    assert done.status == 0 and set(document["stems"]) == {"drums", "vocals"}
    assert "%" in done.text and "song.wav: drums, vocals ->" in done.flowing(80)


def test_a_song_of_eight_channels_says_which_are_heard(place: Path) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal((8000, 8)).astype(np.float32)
    soundfile.write(place / "eight.wav", noise, 8000, subtype="FLOAT")
    done = typed([*ORTSEP, "run", "waves", "eight.wav"], cwd=place)
    said = "eight.wav has 8 channels: the first two are separated; --downmix takes all of them, mixed to stereo"
    assert done.status == 0 and done.flowing(80).count(said) == 1
    assert soundfile.info(place / "separated" / "waves" / "eight" / "drums.wav").channels == 2
    done = typed([*ORTSEP, "run", "waves", "eight.wav", "--dry-run"], cwd=place)
    assert done.status == 0 and said in " ".join(done.text.split())
    done = typed([*ORTSEP, "run", "waves", "eight.wav", "--downmix", "-o", "mixed"], cwd=place)
    assert done.status == 0 and said not in done.flowing(80) and "assumed FL FR FC" in done.flowing(80)


def test_quiet_is_quiet_on_a_terminal_too(place: Path) -> None:
    done = typed([*ORTSEP, "run", "waves", "song.wav", "-q"], cwd=place)
    assert (done.status, done.raw) == (0, "")


@pytest.mark.parametrize("more", [(), ("-j", "2")], ids=str)
def test_ctrl_c_leaves_one_line_and_nothing_half_made(place: Path, more: tuple[str, ...]) -> None:
    for name in ("long.wav", "longer.wav"):
        long_song(place / name)
    before = files_below(place)
    done = typed([*ORTSEP, "run", "waves", "long.wav", "longer.wav", *more], cwd=place, then=when("%", b"\x03"))
    assert done.status == 130
    assert done.left(80) == ["ortsep: interrupted; nothing half-written was left"]
    assert files_below(place) == before


def test_an_interrupted_batch_says_how_to_go_on(place: Path) -> None:
    long_song(place / "long.wav")
    done = typed([*ORTSEP, "run", "waves", "song.wav", "long.wav"], cwd=place, then=when("2/2 long.wav  ", b"\x03"))
    assert done.status == 130
    said = done.flowing(80).splitlines()[-1]
    assert said.startswith("ortsep: interrupted; 1 of 2 songs is done") and "--skip-existing" in said
    again = typed([*ORTSEP, "run", "waves", "song.wav", SONGS[1], "--skip-existing"], cwd=place)
    assert "song.wav: skipped" in again.flowing(80) and again.left(80)[-1] == "2 songs: 1 done, 1 skipped"


def test_a_terminal_that_closes_ends_the_run_with_nothing_half_made(place: Path) -> None:
    long_song(place / "long.wav")
    before = files_below(place)
    done = typed([*ORTSEP, "run", "waves", "long.wav"], cwd=place, then=when("%"), hang_up=True)
    assert done.status == 130
    assert files_below(place) == before


def test_who_ignores_the_hang_up_gets_the_stems(place: Path) -> None:
    long_song(place / "long.wav")
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *ORTSEP, "run", "waves", "long.wav", "--duration", "300"]
    done = typed(command, cwd=place, then=when("%"), hang_up=True)
    assert done.status == 0
    assert soundfile.info(place / "separated" / "waves" / "long" / "drums.wav").frames == 300 * 8000


def test_a_song_that_fails_is_said_above_the_bar(place: Path) -> None:
    (place / "broken.wav").write_text("this is not audio")
    done = typed([*ORTSEP, "run", "waves", "broken.wav", *SONGS], cwd=place, columns=60)
    assert done.status == 1
    assert done.left(60)[0].startswith("ortsep: broken.wav ")
    assert done.left(60)[-1] == "ortsep: 1 of 4 songs failed, 3 done"


@pytest.mark.parametrize("columns", [80, 40])
@pytest.mark.parametrize(
    "arguments", [("doctor", "waves"), ("bench", "waves", "--seconds", "1", "--runs", "1")], ids=str
)
def test_measuring_says_what_it_is_at_and_leaves_the_table(
    place: Path, columns: int, arguments: tuple[str, ...]
) -> None:
    done = typed([*ORTSEP, *arguments], cwd=place, columns=columns, env={"ORTSEP_CACHE": str(place / "cache")})
    assert done.status == 0, done.text
    assert ("examining cpu ..." if arguments[0] == "doctor" else "run 1/1 ortsep: separating ...") in done.text
    left = "\n".join(done.left(columns))
    assert "..." not in left and ("auto means" if arguments[0] == "doctor" else "of real time") in left


@pytest.mark.parametrize("arguments", [("doctor", "waves"), ("bench", "waves", "--runs", "50")], ids=str)
def test_measuring_ends_at_ctrl_c(place: Path, arguments: tuple[str, ...]) -> None:
    env = {"ORTSEP_CACHE": str(place / "cache")}
    done = typed([*ORTSEP, *arguments], cwd=place, env=env, then=when(" ...", b"\x03"))
    assert done.status == 130
    assert done.left(80) == ["ortsep: interrupted; nothing half-written was left"]


def test_names_and_notes_reach_the_terminal_without_their_control_characters(place: Path) -> None:
    evil = "a\x1b]0;title\x07\x1b[2J\nb\x9b31m\u202ec.wav"
    shutil.copy(place / "song.wav", place / evil)
    done = typed([*ORTSEP, "run", "waves", evil, "missing\x1b[2J.wav"], cwd=place)
    assert done.status == 1
    assert "\x1b[2" not in done.raw and "\x1b]" not in done.raw and "\x9b" not in done.raw and "\u202e" not in done.raw
    assert r"a\x1b]0;title\x07\x1b[2J\nb\x9b31m\u202ec.wav: drums, vocals" in done.flowing(80)
    assert r"missing\x1b[2J.wav" in done.flowing(80)


def test_a_bar_in_a_terminal_that_knows_ascii_only(place: Path) -> None:
    done = typed([*ORTSEP, "run", "waves", *SONGS], cwd=place, env={"PYTHONIOENCODING": "ascii"})
    assert done.status == 0
    assert "##" in done.text and done.text.isascii()
    assert render(done.raw, 80)[1] == 0
