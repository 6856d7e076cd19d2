"""Songs at the edges: cut at every byte, odd rates, names, MPEG layers 1 and 2, counts that are a frame off."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from test_playlists import decoded, ffmpeg, real
from test_song import FORMATS, RATE, music, read, refused, save
from test_surroundings import MORE, ape

from ortsep.audio.container import examine
from ortsep.audio.song import open_song, scan
from ortsep.base.errors import AudioError, UsageError


@pytest.mark.parametrize(("format", "subtype"), FORMATS + MORE)
def test_cut_at_every_byte(tmp_path: Path, format: str, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in a sentence, or what is there: never another exception, never more than there was."""
    monkeypatch.setenv("PATH", "")
    rate = 48000 if subtype == "OPUS" else RATE
    path = save(tmp_path / "song", music(0.03, 1), format, subtype, rate)
    whole = sf.read(path, dtype="float32", always_2d=True)[0].T
    data = path.read_bytes()
    for keep in [*range(1, min(600, len(data))), *range(600, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:keep])
        for allowed in (False, True):
            try:
                got = read(path, allow_truncated=allowed)
            except AudioError as error:
                assert str(error).startswith(str(path)) and ";" in str(error) and "\n" not in str(error), keep
            else:
                assert 1 <= got.shape[1] <= whole.shape[1] + 4 * 1152 and np.isfinite(got).all()


@pytest.mark.parametrize("rate", [1000, 7999, 11025, 44099, 176400, 384000, 767_999])
@pytest.mark.parametrize("format", ["WAV", "FLAC", "AIFF", "CAF"])
def test_odd_rates(tmp_path: Path, rate: int, format: str) -> None:
    if format == "FLAC" and rate > 655_350:
        pytest.skip("FLAC has no such rate")
    path = save(tmp_path / "x", music(0.1), format, "PCM_16", rate)
    assert open_song(path).sample_rate == rate
    assert np.array_equal(read(path), sf.read(path, dtype="float32")[0].T)


@pytest.mark.parametrize("options", [{"start": 1e308}, {"start": 1e12}, {"duration": 1e308}, {"duration": 1e10}])
def test_times_beyond_counting(tmp_path: Path, options: dict[str, float]) -> None:
    assert "seconds" in refused(save(tmp_path / "a.wav", music(0.1)), UsageError, **options)


def test_times_of_years_and_of_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", music(0.1))
    assert read(path, duration=1e9).shape[1] == 4410 and read(path, duration=1e-300).shape[1] == 1
    assert read(path, start=1e-300).shape[1] == 4410
    assert "ends before --start" in refused(path, start=1e9)


@pytest.mark.parametrize("codec", ["mp2", "libtwolame"])
@real
def test_layer_2(tmp_path: Path, codec: str, snr: Callable[[Any, Any], float]) -> None:
    """No header counts its frames: libsndfile's estimate goes by the bytes, tags and all."""
    wav = save(tmp_path / "x.wav", music(3), subtype="PCM_16")
    parts = []
    for kbit in (64, 320):
        ffmpeg("-i", wav, "-c:a", codec, "-b:a", f"{kbit}k", tmp_path / f"{kbit}.mp2")
        parts.append((tmp_path / f"{kbit}.mp2").read_bytes())
    for data in (parts[0], parts[0] + ape(items=200_000), parts[0] + parts[1], parts[1] + parts[0]):
        path = tmp_path / "song.mp2"
        path.write_bytes(data)
        expected = decoded(path)
        song = open_song(path)
        assert (song.decoder, song.samples) == ("libsndfile", expected.shape[1])
        got = read(path)
        assert got.shape == expected.shape and snr(expected, got) > 60


def test_a_count_that_is_a_frame_off_is_no_damage(tmp_path: Path) -> None:
    """Some encoders count the Xing frame itself, and libsndfile believes it."""
    path = save(tmp_path / "a.mp3", music(2), "MP3")
    expected = sf.read(path, dtype="float32")[0].T
    data = bytearray(path.read_bytes())
    at = max(data.find(b"Xing"), data.find(b"Info")) + 8
    data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + 1)
    path.write_bytes(data)
    song = open_song(path)
    assert song.samples == 2 * RATE + 1152 and song.warnings == ()
    assert np.array_equal(read(path)[:, : 2 * RATE - 1152], expected[:, : 2 * RATE - 1152])


@pytest.mark.skipif(sys.platform != "linux", reason="such names need Linux")
@pytest.mark.parametrize(
    "name", [b"\xff\xfe.wav", b"a\nb\x1b[31m.wav", b"x" * 251 + b".wav", b"\xe2\x80\xae.wav", b"%d.wav"]
)
def test_names(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    save(tmp_path / "x.wav", music(0.1), subtype="PCM_16").rename(path)
    assert scan(open_song(path)).samples == 4410


@real
@pytest.mark.skipif(sys.platform != "linux", reason="such names need Linux")
@pytest.mark.parametrize(
    "name", [b"\xff\xfe.m4a", b"a\nb\x1b[31m,,:.m4a", b"x" * 251 + b".m4a", b"%03d.m4a", b"a|b.m4a"]
)
def test_names_in_ffmpegs_hands(tmp_path: Path, name: bytes) -> None:
    ffmpeg("-i", save(tmp_path / "x.wav", music(0.5), subtype="PCM_16"), "-c:a", "alac", tmp_path / "x.m4a")
    for behind in (b"", ape()):  # with a tag behind, ffmpeg is given a stretch of the file
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes((tmp_path / "x.m4a").read_bytes() + behind)
        assert read(path).shape == (2, RATE // 2)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("format", ["WAV", "AIFF", "CAF", "AU", "W64"])
def test_what_is_not_finite_in_any_float_format(tmp_path: Path, format: str, subtype: str) -> None:
    for value, word in ((np.nan, "NaN"), (np.inf, "infinite")):
        x = music(0.2)
        x[5000, 0] = value
        assert word in refused(save(tmp_path / "x", x, format, subtype))


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory by /proc")
def test_an_hour_in_little_memory(tmp_path: Path) -> None:
    """A FLAC of an hour with a tag behind, whose last frame is the one that its header promises."""
    path = tmp_path / "hour.flac"
    with sf.SoundFile(path, "w", 4000, 2, subtype="PCM_16") as file:
        block = np.random.default_rng(0).uniform(-1e-3, 1e-3, (4000, 2))
        for _ in range(3600):
            file.write(block)
    with path.open("ab") as file:
        file.write(ape())
    assert not examine(path).doubtful
    # VmHWM begins anew with the program; ru_maxrss would count what this process held when it started the other.
    code = "import sys; from pathlib import Path; from ortsep.audio.song import open_song, scan; "
    code += "print(scan(open_song(sys.argv[1])).samples, "
    code += "Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    samples, peak = map(int, done.stdout.split())
    assert samples == 4000 * 3600 and peak * 1024 < 200e6
