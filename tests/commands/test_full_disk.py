"""A disk of 2 MB: one sentence that says so, and nothing half-written, wherever the bytes were meant to go."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS


def run(*arguments: str, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "ortsep.cli", "run", str(GRAPHS / "waves"), *arguments]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, errors="replace"
    )


def song(path: Path, seconds: float) -> Path:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * 8000), 2))
    soundfile.write(path, noise, 8000, subtype="PCM_16")
    return path


def files_in(folder: Path) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != "kept.bin"]


@pytest.mark.parametrize("more", [(), ("--format", "flac"), ("--subtype", "16"), ("--format", "ogg"), ("--residual",)])
def test_stems_on_a_full_disk(tmp_path: Path, small_disk: Path, more: tuple[str, ...]) -> None:
    song(tmp_path / "song.wav", 60.0)
    done = run("song.wav", "-o", str(small_disk), *more, cwd=tmp_path)
    assert done.returncode == 1
    assert "No space left" in done.stderr and "make room" in done.stderr and "Traceback" not in done.stderr
    assert files_in(small_disk) == []
    assert run("song.wav", "-o", str(small_disk), *more, "--duration", "2", cwd=tmp_path).returncode == 0


def test_one_song_too_many_in_a_batch(tmp_path: Path, small_disk: Path) -> None:
    song(tmp_path / "a.wav", 5.0)
    song(tmp_path / "b.wav", 60.0)
    song(tmp_path / "c.wav", 5.0)
    done = run("a.wav", "b.wav", "c.wav", "-o", str(small_disk), "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert done.returncode == 1 and document["failed"] == 1
    assert [Path(p).parent.name for p in sorted(files_in(small_disk)) if p.endswith("drums.wav")] == ["a", "c"]
    assert not list(small_disk.rglob("*.partial"))


def test_no_room_for_the_sidecar(tmp_path: Path, small_disk: Path) -> None:
    """The stems are right, so they stay: a warning says that they can't be skipped later."""
    (small_disk / "kept.bin").write_bytes(b"x" * (2 * 1024 * 1024 - 2 * (16 + 4) * 1024 - 4096))
    song(tmp_path / "song.wav", 0.25)
    done = run("song.wav", "-o", str(small_disk), "--template", "{stem}.{ext}", cwd=tmp_path)
    stems = [name for name in files_in(small_disk) if name.endswith(".wav")]
    assert done.returncode == (0 if stems else 1), done.stderr
    assert not [name for name in files_in(small_disk) if name.endswith(".partial")]
    assert "Traceback" not in done.stderr


def test_standard_input_larger_than_the_temporary_folder(tmp_path: Path, small_disk: Path) -> None:
    data = song(tmp_path / "song.wav", 120.0).read_bytes()
    command = [sys.executable, "-m", "ortsep.cli", "run", str(GRAPHS / "waves"), "-"]
    env = {**os.environ, "TMPDIR": str(small_disk)}
    done = subprocess.run(command, cwd=tmp_path, env=env, input=data, capture_output=True, timeout=120)
    assert done.returncode == 1
    assert b"standard input can't be kept" in done.stderr and b"TMPDIR" in done.stderr
    assert files_in(small_disk) == [] and not (tmp_path / "separated").exists()


def test_standard_output_onto_a_full_device(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    song(tmp_path / "song.wav", 5.0)
    command = [
        sys.executable,
        "-m",
        "ortsep.cli",
        "run",
        str(GRAPHS / "waves"),
        "song.wav",
        "--stems",
        "drums",
        "-o",
        "-",
    ]
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert "standard output can't be written" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
