"""Completion: what fits at the cursor, and the same asked by the shells themselves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import GRAPHS
from terminal import typed

ORTSEP = [sys.executable, "-m", "ortsep.cli"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with models, a song, and the command ``ortsep`` on the PATH."""
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(GRAPHS, tmp_path / "models" / "exported")
    shutil.copytree(GRAPHS / "plain", tmp_path / "zz_mine")
    (tmp_path / "song.wav").write_bytes(b"")
    command = tmp_path / "bin" / "ortsep"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ortsep.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def fitting(line: str, cwd: Path) -> list[str]:
    done = subprocess.run([*ORTSEP, "complete", line], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_commands_models_stems_choices_and_options(place: Path) -> None:
    assert {"run", "models", "export", "completion"} <= set(fitting("ortsep ", place))
    assert "complete" not in fitting("ortsep ", place)
    assert fitting("ortsep mo", place) == ["models"]
    models = fitting("ortsep run ", place)
    assert {"htdemucs", "spleeter:2stems", "waves", "zz_mine"} <= set(models)
    assert fitting("ortsep run spleeter:2stems-", place) == ["spleeter:2stems-16kHz"]
    assert "htdemucs" not in fitting("ortsep validate ", place) and "waves" in fitting("ortsep validate ", place)
    assert fitting("ortsep run htdemucs so", place) == fitting("ortsep run ./so", place) == []
    assert fitting("ortsep run -n waves ", place) == []
    assert fitting("ortsep run -n wa", place) == ["waves"]
    assert fitting("ortsep run waves song.wav --stems ", place) == ["drums", "vocals"]
    assert fitting("ortsep run htdemucs_6s song.wav --stems piano,", place) == [
        "piano,drums",
        "piano,bass",
        "piano,other",
        "piano,vocals",
        "piano,guitar",
    ]
    assert fitting("ortsep run htdemucs --two-stems gu", place) == []
    assert fitting("ortsep run htdemucs song.wav --format f", place) == ["flac"]
    assert fitting("ortsep run htdemucs --two", place) == ["--two-stems"]
    assert fitting("ortsep models --for dr", place) == ["drums"]
    assert fitting("ortsep nonsense ", place) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash(place: Path) -> None:
    script = (
        'eval "$(ortsep completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; _ortsep; printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def asked(line: str, before: str = "") -> list[str]:
        command = ["bash", "--norc", "-c", before + script, "bash", line]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
        assert done.stderr == ""
        return done.stdout.split()

    assert asked("ortsep run htdemucs_") == ["htdemucs_ft", "htdemucs_6s"]
    assert asked("ortsep run spleeter:2") == ["2stems", "2stems-16kHz"], "bash keeps what stands before the colon"
    assert asked("ortsep run spleeter:5", "COMP_WORDBREAKS=' '; ")[0] == "spleeter:5stems"
    assert asked("ortsep run waves so") == []


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish(place: Path) -> None:
    def asked(line: str) -> list[str]:
        command = ["fish", "--no-config", "-c", f"ortsep completion fish | source; complete -C '{line}'"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    assert asked("ortsep run spleeter:2") == ["spleeter:2stems", "spleeter:2stems-16kHz"]
    assert "song.wav" in asked("ortsep run waves so")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh(place: Path) -> None:
    setup = "PS1='> '; unsetopt beep; autoload -Uz compinit; compinit -u -D; "
    setup += "eval \"$(ortsep completion zsh)\"; print re''ady\r"
    steps = [
        ("", setup.encode()),
        ("ready\r\n", b"ortsep run htdemucs_6\t"),
        ("htdemucs_6s", b"so\t"),
        ("ng.wav", b"\x15exit\r"),
    ]
    read = 0

    def next_step(process: object, seen: str) -> bytes | bool:
        """Types what comes next as soon as what it waits for is there."""
        nonlocal read
        if not steps or steps[0][0] not in seen[read:]:
            return False
        read = len(seen)
        return steps.pop(0)[1]

    seen = typed(["zsh", "-f", "-i"], cwd=place, then=next_step, often=True, timeout=60)
    assert not steps, seen.raw
