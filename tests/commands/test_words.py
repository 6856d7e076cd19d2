"""What is typed behind ``ortsep run``: models, songs, folders, and what people bring from other tools."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from places import GRAPHS

from ortsep.base.errors import FileMissing, UsageError
from ortsep.cli import app
from ortsep.commands import habits
from ortsep.commands.arguments import tell_apart
from ortsep.commands.folders import gather
from ortsep.commands.help import SHORT
from ortsep.models.catalogue import BUNDLED, exported_home, model_homes, ready_folders
from ortsep.stems.paths import output_paths


def ortsep(*arguments: str | Path | bytes, cwd: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **changes.pop("env", {})}
    command = [sys.executable, "-m", "ortsep.cli", *arguments]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "errors": "surrogateescape", **changes}
    return subprocess.run(command, cwd=cwd, env=env, timeout=120, **settings)


def song(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((round(8000 * seconds), 2), 0.25, np.float32), 8000, subtype="FLOAT")
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    shutil.copytree(GRAPHS, tmp_path / "models" / "exported")
    song(tmp_path / "song.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_word_is_the_model_and_a_second_one_only_where_it_can_be_no_song(place: Path) -> None:
    assert tell_apart(["waves", "song.wav"], None).models == ("waves",)
    assert tell_apart(["waves", "masks@drums", "song.wav"], None).models == ("waves", "masks@drums")
    assert tell_apart(["waves", "song.wav"], None, ("masks@drums",)).models == ("waves", "masks@drums")
    assert tell_apart(["waves", "masks"], None).songs == ("masks",)  # nothing else would be left to separate
    three = tell_apart(["waves", "masks@drums", "hybrid@a", "song.wav"], None)
    assert three.models == ("waves", "masks@drums", "hybrid@a") and three.songs == ("song.wav",)
    assert tell_apart(["song.wav"], "waves", ("masks@drums", "hybrid@a")).models == three.models
    song(place / "masks" / "a.wav")
    assert tell_apart(["waves", "masks", "song.wav"], None).songs == ("masks", "song.wav")
    shutil.copy(next((GRAPHS / "masks").glob("*.onnx")), place / "masks")
    assert tell_apart(["waves", "masks", "song.wav"], None).songs == ("masks", "song.wav")
    assert tell_apart(["song.wav", "masks"], "waves").songs == ("song.wav", "masks")
    assert tell_apart(["waves", "song.wav"], "waves").songs == ("song.wav",)


def test_without_a_model_one_that_is_ready_is_taken_and_said(place: Path) -> None:
    with pytest.raises(UsageError, match=r"ortsep run spleeter:2stems song\.wav .* htdemucs"):
        tell_apart(["song.wav"], None)
    shutil.copytree(GRAPHS / "waves", place / "home" / "ortsep" / "models" / "umxhq")
    assert tell_apart(["song.wav"], None).models == ("umxhq",)
    done = ortsep("run", "song.wav", cwd=place)
    assert done.returncode == 0 and "no model was named: umxhq is taken" in done.stderr


@pytest.mark.parametrize("words", [[""], ["waves", ""], ["waves", "song.wav", ""]])
def test_an_empty_name_is_no_song(place: Path, words: list[str]) -> None:
    with pytest.raises(UsageError, match="no name at all"):
        tell_apart(words, None)
    assert ortsep("run", *words, cwd=place).returncode == 2
    assert not (place / "separated").exists()


def test_a_folder_of_the_models_name_does_not_hide_it(place: Path) -> None:
    for _ in range(2):
        done = ortsep("run", "waves", "song.wav", "-o", ".", cwd=place)
        assert done.returncode == 0, done.stderr
    assert (place / "waves" / "song" / "drums.wav").exists()
    (place / "notes").mkdir()
    done = ortsep("run", "notes", "song.wav", cwd=place)
    assert done.returncode == 2 and "no model is named" in done.stderr


def test_a_folders_songs_and_one_line_of_the_rest(place: Path) -> None:
    for name in ("b.wav", "a.FLAC", "._b.wav", ".hidden.wav", "deep/c.wav", "deep/deeper/d.wav"):
        song(place / "album" / name.replace("FLAC", "wav")).rename(place / "album" / name)
    for name in ("cover.jpg", "list.txt", "1.pdf", "2.pdf", "deep/cover.jpg"):
        (place / "album" / name).write_bytes(b"x")
    found = gather(["album", "song.wav"], None, recursive=False)
    assert [str(path) for path in found.songs] == ["album/a.FLAC", "album/b.wav", "song.wav"]
    assert found.notes == [
        "album: a folder in it was not entered (--recursive enters it); left out 1.pdf, 2.pdf, cover.jpg and 1 more"
    ]
    everything = gather(["album"], None, recursive=True)
    names = ["album/a.FLAC", "album/b.wav", "album/deep/c.wav", "album/deep/deeper/d.wav"]
    assert [str(path) for path in everything.songs] == names
    assert everything.notes == ["album: left out 1.pdf, 2.pdf, cover.jpg and 2 more"]
    done = ortsep("run", "waves", "album", "-r", "--format", "flac", "-o", "album/stems", cwd=place)
    assert done.returncode == 0 and done.stderr.endswith("4 songs: 4 done\n"), done.stderr
    again = ortsep("run", "waves", "album", "-r", "--format", "flac", "-o", "album/stems", cwd=place)
    assert again.stderr.endswith("4 songs: 4 done\n"), "the stems of the first run were taken for songs"
    (place / "album" / "deep" / "c.wav").unlink()
    with pytest.raises(FileMissing, match=r"holds no songs; a folder in it was not entered .* left out cover\.jpg"):
        gather(["album/deep"], None, False)


def test_what_only_ffmpeg_opens_is_left_out_without_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song(place / "album" / "a.wav")
    for name in ("b.m4b", "c.wv", "d.mp2", "e.ac3", "f.mov"):
        (place / "album" / name).write_bytes(b"x")
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = gather(["album"], None, False)
    assert len(found.songs) == 1 and "left out b.m4b, c.wv, d.mp2 and 2 more (ffmpeg" in found.notes[0]
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert len(gather(["album"], None, False).songs) == 6


def test_targets_as_open_unmix_writes_them(place: Path) -> None:
    done = ortsep("run", "waves", "song.wav", "--targets", "vocals", "drums", "--json", cwd=place)
    assert list(json.loads(done.stdout)["stems"]) == ["vocals", "drums"]
    song(place / "drums" / "a.wav")
    done = ortsep("run", "waves", "song.wav", "--targets", "vocals", "drums", "--json", cwd=place)
    assert len(json.loads(done.stdout)["songs"]) == 2, "a folder that is there is songs"


def test_switches_of_demucs(place: Path) -> None:
    done = ortsep("run", "-n", "waves", "song.wav", "--flac", "--int24", "--duration", "-1", "-d", "cpu", cwd=place)
    assert done.returncode == 0, done.stderr
    info = soundfile.info(place / "separated" / "waves" / "song" / "drums.flac")
    assert (info.subtype, info.frames) == ("PCM_24", 4000)
    done = ortsep("run", "waves", "song.wav", "--flac", "--mp3", cwd=place)
    assert done.returncode == 2 and "two formats, flac and mp3" in done.stderr
    done = ortsep("run", "waves", "song.wav", "--float32", "--int24", cwd=place)
    assert done.returncode == 2 and "two subtypes" in done.stderr


@pytest.mark.parametrize("option", [name for name in habits.OURS if name.startswith("--")])
def test_an_option_of_a_peer_names_ours(place: Path, option: str) -> None:
    done = ortsep("run", "waves", "song.wav", option, cwd=place)
    assert done.returncode == 2
    assert done.stderr == f"ortsep: there is no {option}; here that is {habits.OURS[option]}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "waves", "song.wav", "--start", "abc"], "--start can't be 'abc': {};"),
        (["run", "waves", "song.wav", "--jobs=0"], "--jobs can't be '0': {};"),
        (["run", "waves", "song.wav", "--provider", "gpu"], "--provider can't be 'gpu': 'gpu' is not one of 'auto'"),
        (["export", "htdemuc"], "there is no model called 'htdemuc' in the catalogue; did you mean htdemucs or"),
    ],
)
def test_a_typo_is_told_as_it_was_typed(place: Path, words: list[str], said: str) -> None:
    """Without the frameworks too: nothing is to be installed for a name that is none.

    What a number should be is typer's to say, which had other words before it carried its own click.
    """
    done = ortsep(*words, cwd=place)
    (line,) = done.stderr.splitlines()
    typers = (
        r"(it should be a valid number|'abc' is not a valid float|it should be greater than .* 1|0 is not in the .*)"
    )
    assert re.search(re.escape(said).replace(r"\{\}", typers), line) and done.returncode == (
        1 if words[0] == "export" else 2
    )


def test_verbose_tells_model_and_levels(place: Path) -> None:
    done = ortsep("run", "waves", "song.wav", "-v", cwd=place)
    assert "waves: drums, vocals; 8000 Hz, stereo" in done.stderr and "drums: peak -24.1 dBFS" in done.stderr
    assert ortsep("run", "waves", "song.wav", "-v", "-q", cwd=place).returncode == 2


@pytest.mark.parametrize("seconds", ["inf", "nan", "0", "-1", "1e300"])
def test_a_timeout_that_is_no_time(place: Path, seconds: str) -> None:
    done = ortsep("run", "waves", "song.wav", "--timeout", seconds, cwd=place)
    assert done.returncode == 2 and "is no time for a song" in done.stderr


def test_names_of_bytes_and_of_300_letters(place: Path) -> None:
    name = b"caf\xe9 \xff.wav"
    shutil.copy(place / "song.wav", os.fsencode(place) + b"/" + name)
    done = ortsep("run", "waves", name, "song.wav", "--json", cwd=place, env={"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert os.fsencode(json.loads(done.stdout)["songs"][0]["song"]) == name
    done = ortsep("run", "waves", "a" * 300, "song.wav", cwd=place)
    assert done.returncode == 1 and "unexpected" not in done.stderr.replace("a" * 300, "")
    done = ortsep("run", "a" * 300, "song.wav", cwd=place)
    assert done.returncode == 1 and "there is no model" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_streams(place: Path, closed: str) -> None:
    command = f'"$0" -m ortsep.cli run waves song.wav {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], cwd=place, capture_output=True, timeout=120)
    assert done.returncode == 0 and done.stdout == b""
    assert soundfile.info(place / "separated" / "waves" / "song" / "drums.wav").frames == 4000


def test_a_closed_standard_output_loses_nothing_silently(place: Path) -> None:
    for arguments in ("models", "run waves song.wav --json"):
        command = f'"$0" -m ortsep.cli {arguments} >&-'
        done = subprocess.run(["sh", "-c", command, sys.executable], cwd=place, capture_output=True, timeout=120)
        assert done.returncode == 1 and b"standard output can't be written" in done.stderr


def test_an_account_without_a_home(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import pathlib, sys\n"
        "def none(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = none\n"
        "sys.argv = ['ortsep', 'run', 'waves', 'song.wav']\n"
        "from ortsep.cli import main\n"
        "main()\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "HOME"))}
    done = subprocess.run([sys.executable, "-c", script], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_listed_with_a_sentence(place: Path) -> None:
    listed = ortsep(cwd=place).stdout.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in listed} == set(SHORT)
    assert all(line.endswith(SHORT[line.split()[0]]) and len(line) <= 80 for line in listed)


def test_no_option_stands_for_two_parameters() -> None:
    """Of two parameters with one flag the parser feeds the last alone, without a word."""
    commands: Any = typer.main.get_command(app)
    for name, command in commands.commands.items():
        flags = [flag for one in command.params for flag in (*one.opts, *one.secondary_opts) if flag.startswith("-")]
        assert sorted(flags) == sorted(set(flags)), name


def test_help_survives_without_docstrings(place: Path) -> None:
    for command in ([], ["run"], ["export"], ["models"]):
        plain = ortsep(*command, "--help", cwd=place)
        stripped = ortsep(*command, "--help", cwd=place, env={"PYTHONOPTIMIZE": "2"})
        assert stripped.stdout == plain.stdout and plain.stdout.count("\n") > 8
        assert all(len(line) <= 80 for line in plain.stdout.splitlines())


def test_where_models_are_looked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = place / "home" / "ortsep" / "models"
    assert model_homes() == (Path("models/exported"), users) and exported_home() == Path("models/exported")
    shutil.copytree(GRAPHS / "plain", users / "mine")
    assert ready_folders()["mine"] == users / "mine"
    (place / "elsewhere").mkdir()
    monkeypatch.chdir(place / "elsewhere")
    assert exported_home() == users
    done = ortsep("run", "mine", "../song.wav", cwd=place / "elsewhere")
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("ORTSEP_MODELS", "/x")
    assert model_homes() == (Path("/x"),) and exported_home() == Path("/x")


def test_other_folders_of_models_are_named_beside_the_variable(place: Path) -> None:
    for folder, graph in {"a/one": "waves", "b/two": "plain", "b/waves": "masks"}.items():
        shutil.copytree(GRAPHS / graph, place / folder)
    shutil.copy(GRAPHS / "waves" / "waves.onnx", place / "b" / "alone.onnx")
    both = ("--models-dir", "a", "--models-dir", "b")
    for model in ("two", "alone", "hybrid"):
        done = ortsep("run", model, "song.wav", "--dry-run", *both, cwd=place)
        assert done.returncode == 0 and "song.wav -> drums, " in done.stdout, done
    found = json.loads(ortsep("models", "--json", *both, cwd=place, env={"ORTSEP_MODELS": "b"}).stdout)
    assert {row["name"]: row["exported"] for row in found["models"] if row["exported"] and "/" in row["exported"]} == {
        "one": "a/one",
        "two": "b/two",
        "waves": "b/waves",
        "drums_mini": str(BUNDLED / "drums_mini"),
    }
    assert [file["path"] for file in found["files"]] == ["b/alone.onnx"]
    assert json.loads(ortsep("inspect", "two", "--json", *both, cwd=place).stdout)["folder"] == "b/two"
    assert "two" in ortsep("complete", "ortsep run --models-dir b t", cwd=place).stdout.split()
    for folder, reason in {"c": "there is no folder c to look for models in", "x:y": "':' in its name"}.items():
        if ":" in folder:
            (place / folder).mkdir()
        done = ortsep("run", "one", "song.wav", "--models-dir", folder, cwd=place)
        assert done.returncode in (1, 2) and reason in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(find_spec("onnx") is not None, reason="onnx is installed here")
def test_a_model_that_is_not_exported_says_what_exporting_takes(place: Path) -> None:
    for model, extra in (("spleeter:2stems", "onnx"), ("htdemucs", "export")):
        done = ortsep("run", model, "song.wav", cwd=place)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert f"{model} is not exported yet" in done.stderr and f"pip install 'ortsep[{extra}]'" in done.stderr


def test_800_songs_of_one_name_are_named_at_once(tmp_path: Path) -> None:
    songs = [tmp_path / str(n) / "mixture.wav" for n in range(800)]
    began = time.process_time()
    named = output_paths("{model}/{song}/{stem}.{ext}", tmp_path, songs, ("a", "b", "c", "d"), model="m", ext="wav")
    assert time.process_time() - began < 10, "30 s when each name began to count at one"
    assert len({path for targets in named for path in targets.values()}) == 3200
    assert named[-1]["a"] == tmp_path / "m" / "mixture (800)" / "a.wav"
