"""stem.mp4: five streams of one length that ffmpeg reads, names in their atom, and a sum that is the mixture."""

import json
import os
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import faked, scaled
from places import GRAPHS

from ortsep.base.errors import MissingDependency, OutputError, UsageError
from ortsep.models.spec import Chunks, ModelSpec
from ortsep.options import Options
from ortsep.report.write import require_files
from ortsep.separator import Separator
from ortsep.songs import Files, provenance, separate_file

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg")
RATE = 44100


@pytest.fixture(autouse=True)
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models here are functions, of whose files there is nothing to remember."""
    monkeypatch.setattr(provenance, "_graphs", lambda model: [])


def spec(*stems: str) -> ModelSpec:
    return ModelSpec("fake", "test", stems, RATE, 2, "waveform", "stems", chunks=Chunks(20000))


def song(path: Path, channels: int = 2, scale: float = 0.7) -> Any:
    t = np.arange(RATE) / RATE
    tones = [np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.25)) for f in (110, 440, 1760)]
    x = np.stack([scale * sum(tones[k:]) / 2 for k in range(channels)], axis=1).astype(np.float32)
    soundfile.write(path, x, RATE, subtype="FLOAT")
    return x


def streams(path: Path) -> list[Any]:
    """Every audio stream [n, C] as ffmpeg decodes it."""
    form = ["-c:a", "pcm_f32le", "-f", "f32le", "-y"]
    files = [path.with_name(f"{number}.f32") for number in range(5)]
    outputs = [part for number, file in enumerate(files) for part in ("-map", f"0:a:{number}", *form, file)]
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, *outputs], check=True)
    found = [np.fromfile(file, "<f4").reshape(-1, 2) for file in files]
    for file in files:
        file.unlink()
    return found


def atom(data: bytes, *names: bytes) -> bytes:
    """What the atom at this path holds."""
    at = 0
    while at < len(data):
        size, name = struct.unpack(">I4s", data[at : at + 8])
        if name == names[0]:
            inside = data[at + 8 : at + size]
            return atom(inside, *names[1:]) if names[1:] else inside
        at += size
    raise LookupError(names)


def decibels(signal: Any, noise: Any) -> float:
    return float(
        10 * np.log10(np.sum(signal.astype(np.float64) ** 2) / max(1e-300, np.sum(noise.astype(np.float64) ** 2)))
    )


@needs_ffmpeg
@pytest.mark.parametrize(
    ("subtype", "codec", "deep", "tagged"),
    [(None, "alac", 125, True), ("16", "alac", 75, False), ("aac", "aac", 25, False)],
)
def test_the_streams_are_the_mixture_and_stems_that_add_up_to_it(
    tmp_path: Path, subtype: str | None, codec: str, deep: float, tagged: bool
) -> None:
    x = song(tmp_path / "song.wav")
    source = tmp_path / "song.wav"
    if tagged:
        pytest.importorskip("mutagen")
        source = tmp_path / "song.flac"
        subprocess.run(
            ["ffmpeg", "-v", "error", "-i", tmp_path / "song.wav", "-metadata", "title=T", source], check=True
        )
        x = soundfile.read(source, dtype="float32")[0]
    separator, _ = faked(spec("drums", "bass"), scaled(0.6, 0.3))
    report = separate_file(separator, source, Files(tmp_path / "out", format="stem.mp4", subtype=subtype))
    path = tmp_path / "out" / "fake" / "song.stem.mp4"
    assert set(report.stems.values()) == {str(path)} and list(report.stems) == ["drums", "bass", "residual"]
    mixture, *parts = streams(path)
    assert {len(stream) for stream in parts} == {len(mixture)} and len(mixture) >= RATE
    assert decibels(x, mixture[:RATE] - x) > deep and report.gain == 1.0
    assert decibels(x, sum(parts)[:RATE] - x) > deep
    assert report.null_db == pytest.approx(decibels(x, sum(parts)[:RATE] - x), abs=0.5)
    assert decibels(0.6 * x, parts[0][:RATE] - 0.6 * x) > deep - 8
    assert not parts[3].any()
    told = json.loads(atom(path.read_bytes(), b"moov", b"udta", b"stem"))
    assert [stem["name"] for stem in told["stems"]] == ["drums", "bass", "residual", "-"] and told["version"] == 1
    assert not told["mastering_dsp"]["compressor"]["enabled"] and not told["mastering_dsp"]["limiter"]["enabled"]
    entries = "stream=codec_name,duration_ts:stream_disposition=default:format_tags=title"
    command = ["ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", entries, "-of", "json", path]
    probed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [s["codec_name"] for s in probed["streams"]] == [codec] * 5
    assert {s["duration_ts"] for s in probed["streams"]} == {RATE}
    assert [s["disposition"]["default"] for s in probed["streams"]] == [1, 0, 0, 0, 0]
    assert probed["format"].get("tags", {}).get("title") == ("T" if tagged else None)
    assert {p.name for p in path.parent.iterdir()} == {path.name, f".{path.name}.ortsep.json"}


@needs_ffmpeg
def test_a_loud_song_keeps_its_sum_by_one_gain_and_the_same_bytes_come_again(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", scale=2.0)
    separator, _ = faked(spec("a", "b", "c", "d"), scaled(0.1, 0.2, 0.3, 0.4))
    first = separate_file(separator, tmp_path / "song.wav", Files(tmp_path / "1", format="stem.mp4"))
    again = separate_file(separator, tmp_path / "song.wav", Files(tmp_path / "2", format="stem.mp4"))
    assert first.gain == pytest.approx(1 / np.abs(x).max()) and (first.null_db or 0) > 120 and len(first.stems) == 4
    assert Path(first.stems["a"] or "").read_bytes() == Path(again.stems["a"] or "").read_bytes()
    files = Files(tmp_path / "1", format="stem.mp4", skip_existing=True)
    assert separate_file(separator, tmp_path / "song.wav", files).skipped


@needs_ffmpeg
def test_a_mono_song_plays_from_both_sides(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", channels=1)
    separator, _ = faked(replace(spec("a"), channels=1), scaled(0.5))
    separate_file(separator, tmp_path / "song.wav", Files(tmp_path, template="x.{ext}", format="stem.mp4"))
    mixture, stem, *_ = streams(tmp_path / "x.stem.mp4")
    assert decibels(x[:, 0], mixture[:, 1] - x[:, 0]) > 120 and decibels(x[:, 0], 2 * stem[:, 0] - x[:, 0]) > 120


@pytest.mark.parametrize(
    ("stems", "files", "words"),
    [
        ("abcde", {}, "holds four stems and these are a, b, c, d, e; choose with --stems, or three and --residual"),
        ("ab", {"subtype": "float"}, "use 24, 16, aac"),
        ("ab", {"template": "{song}/{stem}.{ext}"}, "has {stem}; leave it out"),
        ("ab", {"subtype": "aac", "rate": 44101}, "AAC has no sample rate of 44101 Hz"),
        ("ab", {"inline_audio": True}, "leave one of them out"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, stems: str, files: dict[str, Any], words: str) -> None:
    song(tmp_path / "song.wav")
    separator, _ = faked(spec(*stems), scaled(*[0.1] * len(stems)))
    with pytest.raises(UsageError, match=words.replace("{", r"\{")):
        separate_file(separator, tmp_path / "song.wav", Files(tmp_path / "out", format="stem.mp4", **files))
    assert not (tmp_path / "out").exists()


def test_a_page_needs_a_file_for_each_stem() -> None:
    with pytest.raises(UsageError, match="a report plays each stem's own file"):
        require_files(Files(format="stem.mp4"))


def test_without_ffmpeg_it_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((8000, 2)), 8000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependency, match="written by ffmpeg, which is not on the PATH"):
        separate_file(Separator(GRAPHS / "waves"), tmp_path / "song.wav", Files(tmp_path / "o", format="stem.mp4"))
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(os.name == "nt", reason="a program in shell")
def test_a_failing_ffmpeg_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((8000, 2)), 8000)
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'No space left on device' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    files = Files(tmp_path / "o", format="stem.mp4")
    with pytest.raises(OutputError, match="No space left on device"):
        separate_file(Separator(GRAPHS / "waves"), tmp_path / "song.wav", files, Options(residual=True))
    assert not (tmp_path / "o").exists()
