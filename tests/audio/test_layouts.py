"""Downmixes: of every layout that a file can state, as ffmpeg mixes it; and what is said where none is stated."""

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from test_song import music, read, save

from ortsep.audio.layouts import apple_layout, downmix, ffmpeg_layout, mask_layout
from ortsep.audio.song import open_song

A = 0.5**0.5
FFMPEG = bool(shutil.which("ffmpeg") and shutil.which("ffprobe"))
real = pytest.mark.skipif(not FFMPEG, reason="no ffmpeg on the PATH")
_ON_THE_FLOOR = {"FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"}


def listed() -> dict[str, str]:
    """The layouts that the ffmpeg here lists, of any speakers."""
    if not FFMPEG:
        return {}
    text = subprocess.run(["ffmpeg", "-hide_banner", "-layouts"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.split("DECOMPOSITION")[1].strip().splitlines()]
    return {name: speakers.replace("+", " ") for name, speakers in rows}


NAMED = {
    name: order
    for name, order in listed().items()
    if len(order.split()) in range(3, 9) and set(order.split()) <= _ON_THE_FLOOR
}
"""Those of 3 to 8 channels whose speakers ffmpeg mixes down; their orders are those of the masks' bits."""


def stated(folder: Path, layout: str, samples: int = 4000) -> Path:
    """A float WAV in which ffmpeg states ``layout``, each channel noise of its own."""
    x = np.random.default_rng(3).uniform(-0.3, 0.3, (samples, len(NAMED[layout].split()))).astype(np.float32)
    path = folder / "layout.wav"
    given = ["-f", "f32le", "-ar", "44100", "-ac", str(x.shape[1]), "-channel_layout", layout, "-i", "pipe:0"]
    command = ["ffmpeg", "-v", "error", "-y", *given, "-c:a", "pcm_f32le", path]
    subprocess.run(command, input=x.tobytes(), check=True, capture_output=True)
    return path


def by_ffmpeg(path: Path) -> Any:
    """The stereo downmix that ffmpeg makes by itself."""
    command = ["ffmpeg", "-v", "error", "-i", path, "-ac", "2", "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, "<f4").reshape(-1, 2).T


def remade(path: Path, extension: str, codec: list[str]) -> Path:
    out = path.with_suffix(f".{extension}")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path, *codec, out], check=True, capture_output=True)
    return out


@real
@pytest.mark.parametrize("layout", NAMED)
def test_every_layout_is_mixed_as_ffmpeg_mixes_it(
    tmp_path: Path, layout: str, snr: Callable[[Any, Any], float]
) -> None:
    path = stated(tmp_path, layout)
    assert open_song(path, downmix=True).warnings == ()
    assert snr(by_ffmpeg(path), read(path, downmix=True)) > 120
    for extension, codec in (
        ("w64", ["-c:a", "pcm_f32le"]),
        ("flac", ["-c:a", "flac", "-sample_fmt", "s32"]),
        ("mka", ["-c:a", "flac", "-sample_fmt", "s32"]),
        ("caf", ["-c:a", "pcm_f32le"]),
        ("mov", ["-c:a", "pcm_f32le"]),
    ):
        if (layout, extension) == ("7.1(wide-side)", "caf"):
            continue  # ffmpeg states an order there that its samples don't have
        other = remade(path, extension, codec)
        assert open_song(other, downmix=True).warnings == (), extension
        assert snr(by_ffmpeg(path), read(other, downmix=True)) > 90, extension


@real
@pytest.mark.parametrize("layout", ["2.1", "3.0", "4.0", "quad", "5.1", "4.1"])
def test_aiff_states_its_layout_too(tmp_path: Path, layout: str, snr: Callable[[Any, Any], float]) -> None:
    path = stated(tmp_path, layout)
    aiff = remade(path, "aiff", ["-c:a", "pcm_f32be", "-f", "aiff"])
    assert snr(by_ffmpeg(path), read(aiff, downmix=True)) > 120 and open_song(aiff, downmix=True).warnings == ()


@real
@pytest.mark.parametrize(("layout", "order"), [("3.0", "FL FC FR"), ("5.1", "FL FC FR BL BR LFE"), ("7.1", "")])
@pytest.mark.parametrize(("extension", "codec"), [("ogg", "libvorbis"), ("opus", "libopus")])
def test_vorbis_and_opus(tmp_path: Path, layout: str, order: str, extension: str, codec: str) -> None:
    """libsndfile leaves their own order. One channel sounds at a time, and is heard where its speaker stands."""
    speakers = NAMED[layout].split()
    x = np.zeros((48000, len(speakers)), np.float32)
    length = 48000 // len(speakers)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(length) / 48000)
    for i in range(len(speakers)):
        x[i * length : (i + 1) * length, i] = tone
    path = stated(tmp_path, layout)
    header = path.read_bytes()[: path.read_bytes().index(b"data")]
    plain = save(tmp_path / "plain.wav", x, "WAVEX", "FLOAT", 48000).read_bytes()
    at = plain.index(b"fmt ") + 28
    mask = header[header.index(b"fmt ") + 28 :][:4]
    path.write_bytes(plain[:at] + mask + plain[at + 4 :])
    coded = remade(path, extension, ["-c:a", codec, "-b:a", "512k"])
    y = read(coded, downmix=True)
    shares = {"FL": (1, 0), "FR": (0, 1), "FC": (A, A), "LFE": (0, 0)}
    for i, speaker in enumerate(speakers):
        part = y[:, i * length + 1000 : (i + 1) * length - 1000]
        heard = np.sqrt(2 * np.mean(part**2, axis=1)) / 0.3
        wanted = shares.get(speaker) or ((A, 0) if speaker[-1] == "L" else (0, A))
        assert np.abs(heard - wanted).max() < 0.05, speaker


@pytest.mark.parametrize(
    ("format", "channels", "left"),
    [
        ("WAV", 3, [1, 0, A]),
        ("WAV", 4, [1, 0, A, 0]),
        ("AIFF", 5, [1, 0, A, A, 0]),
        ("AU", 6, [1, 0, A, 0, A, 0]),
        ("WAVEX", 7, [1, 0, A, 0, 0.5, A, 0]),
        ("CAF", 8, [1, 0, A, 0, A, 0, A, 0]),
        ("WAV", 10, [0.1] * 10),
    ],
)
def test_what_is_assumed_is_said(tmp_path: Path, format: str, channels: int, left: list[float]) -> None:
    x = music(0.3, channels) * np.float32(0.5)
    path = save(tmp_path / "m.x", x, format, "FLOAT")
    (warning,) = open_song(path, downmix=True).warnings
    assert f"which speakers its {channels} channels are for" in warning
    assert ("FL FR FC" in warning) == (channels not in (4, 10)) and ("mean" in warning) == (channels == 10)
    assert np.abs(read(path, downmix=True)[0] - x @ np.array(left)).max() < 1e-6
    assert open_song(path, downmix=True, duration=0.1).warnings == (warning,)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_flac_without_a_mask_has_the_layout_of_its_specification(tmp_path: Path, channels: int) -> None:
    """RFC 9639, 9.1.3: left, right, centre, LFE, ..."""
    left = {3: [1, 0, A], 4: [1, 0, A, 0], 5: [1, 0, A, A, 0], 6: [1, 0, A, 0, A, 0]}
    left |= {7: [1, 0, A, 0, 0.5, A, 0], 8: [1, 0, A, 0, A, 0, A, 0]}
    path = save(tmp_path / "m.flac", music(0.3, channels) * np.float32(0.5), subtype="PCM_24")
    decoded = sf.read(path)[0]
    assert open_song(path, downmix=True).warnings == ()
    assert np.abs(read(path, downmix=True)[0] - decoded @ np.array(left[channels])).max() < 1e-6


@real
def test_the_names_are_those_of_ffmpeg() -> None:
    """Every layout that the ffmpeg here lists is known, speaker for speaker, and each speaker has a share."""
    assert len(NAMED) >= 20
    for name, speakers in listed().items():
        wanted = tuple(speakers.split())
        assert ffmpeg_layout(name, len(wanted)) == wanted
        assert ffmpeg_layout(f"{len(wanted)} channels ({'+'.join(wanted)})", len(wanted)) == wanted
        assert downmix(len(wanted), wanted)[1] == ""
    assert ffmpeg_layout("5.1", 2) is None and ffmpeg_layout("unknown", 6) is None


def test_masks_and_apple_layouts_that_do_not_fit_state_nothing() -> None:
    assert mask_layout(0x3F, 6) == ("FL", "FR", "FC", "LFE", "BL", "BR")
    assert mask_layout(0, 6) is None and mask_layout(0x3, 6) is None
    assert apple_layout(b"", 6) is None and apple_layout(struct.pack(">III", 121 << 16 | 6, 0, 0), 5) is None
    assert apple_layout(struct.pack(">III", 123 << 16 | 6, 0, 0), 6) == ("FL", "FC", "FR", "BL", "BR", "LFE")
    described = struct.pack(">III", 0, 0, 3) + b"".join(struct.pack(">IIfff", n, 0, 0, 0, 0) for n in (3, 1, 2))
    assert apple_layout(described, 3) == ("FC", "FL", "FR")
    assert apple_layout(described[:40], 3) is None


@real
def test_a_wav_without_a_mask_in_ffmpegs_hands(tmp_path: Path) -> None:
    path = save(tmp_path / "x.wav", music(0.2, 6), "WAV", "FLOAT")
    out = tmp_path / "x.tta"
    subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-c:a", "tta", out], check=True)
    assert open_song(out, downmix=True).decoder == "ffmpeg" and len(read(out, downmix=True)) == 2
