"""Containers: files that are cut off, lie about their length or do not know it, and what libsndfile makes of them."""

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from test_song import FORMATS, RATE, music, read, refused, save

from ortsep.audio.mpeg import read_mpeg
from ortsep.audio.song import open_song, scan


@pytest.mark.parametrize(("format", "subtype"), [f for f in FORMATS if f[1] != "IMA_ADPCM"])
@pytest.mark.parametrize("keep", [0.6, 0.97])
def test_a_cut_off_file(tmp_path: Path, format: str, subtype: str, keep: float) -> None:
    path = save(tmp_path / "song.x", music(6), format, subtype)
    whole = sf.read(path, dtype="float32", always_2d=True)[0].T
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    message = refused(path)
    assert "cut off" in message
    if format == "CAF":
        return  # libsndfile opens none that is cut off
    assert "--allow-truncated" in message
    assert format == "OGG" or "of 6.000 s" in message
    song = open_song(path, allow_truncated=True)
    part = np.concatenate(list(song.blocks()), 1)
    assert "cut off" in song.warnings[0]
    assert (keep - 0.25) * whole.shape[1] < part.shape[1] < whole.shape[1]
    near = min(part.shape[1], whole.shape[1] // 2)
    assert np.array_equal(part[:, :near], whole[:, :near])
    if format not in ("MP3", "OGG"):
        assert song.samples == part.shape[1] and np.array_equal(part, whole[:, : part.shape[1]])
    # What lies before the cut needs no leave.
    assert np.array_equal(read(path, duration=1.0), whole[:, :RATE])


def test_cut_off_a_little(tmp_path: Path) -> None:
    for format, subtype in FORMATS:
        if subtype in ("IMA_ADPCM", "PCM_U8") or format == "CAF":
            continue
        path = save(tmp_path / "song.x", music(2), format, subtype)
        path.write_bytes(path.read_bytes()[:-60])
        assert "cut off" in refused(path), format


@pytest.mark.parametrize("keep", [0, 10, 30, 43, 100, 400])
def test_cut_off_in_the_header(tmp_path: Path, keep: int) -> None:
    for format, subtype in FORMATS:
        path = save(tmp_path / "song.x", music(2), format, subtype)
        path.write_bytes(path.read_bytes()[:keep])
        refused(path)


def wav_with_size(path: Path, size: int, x: Any, tail: bytes = b"") -> Path:
    save(path, x, "WAV", "PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(bytes(data) + tail)
    return path


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x7FFFFFFF, 0x80000000])
def test_streamed_wav_of_unknown_size(tmp_path: Path, size: int) -> None:
    x = music(0.7)
    path = wav_with_size(tmp_path / "s.wav", size, x)
    assert open_song(path).samples == len(x)
    assert np.allclose(read(path), x.T, atol=2**-15)
    assert np.array_equal(read(path, start=0.1, duration=0.2), read(path)[:, 4410 : 4410 + 8820])


def test_a_wav_that_lies(tmp_path: Path) -> None:
    x = music(1)
    short = wav_with_size(tmp_path / "short.wav", 4000, x)
    (message,) = open_song(short).warnings
    assert "holds 1.000 s" in message and "claims 0.023 s" in message and "--allow-truncated" in message
    assert read(short).shape == (2, 1000) and read(short, allow_truncated=True).shape == (2, RATE)
    message = refused(wav_with_size(tmp_path / "long.wav", 8 * RATE, x))
    assert "holds 1.000 s of 2.000 s" in message
    assert read(tmp_path / "long.wav", allow_truncated=True).shape == (2, RATE)


@pytest.mark.parametrize(
    "tail",
    [b"LIST" + struct.pack("<I", 4) + b"abcd", bytes(5000), b"TAG" + b"x" * 125, b"id3 " + struct.pack("<I", 99)],
)
def test_what_follows_the_audio_of_a_wav_does_no_harm(tmp_path: Path, tail: bytes) -> None:
    x = music(0.2)
    assert read(wav_with_size(tmp_path / "t.wav", 4 * len(x), x, tail)).shape == x.T.shape


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")
def test_a_plain_wav_past_4_gib(tmp_path: Path) -> None:
    path = save(tmp_path / "big.wav", np.zeros((8, 2), np.float32), subtype="PCM_16")
    header = path.read_bytes()[:44]
    size = (1 << 32) + 400_000
    with path.open("r+b") as file:
        file.write(header[:40] + struct.pack("<I", 400_000))
        file.seek(44 + size - 4)
        file.write(struct.pack("<hh", 16384, -16384))
    song = open_song(path, start=(size // 4 - 10) / RATE)
    assert song.samples == 10
    assert np.array_equal(np.concatenate(list(song.blocks()), 1)[:, -2:], [[0, 0.5], [0, -0.5]])


def test_a_header_claiming_no_samples_before_other_chunks(tmp_path: Path) -> None:
    path = save(tmp_path / "none.wav", np.zeros((0, 2), np.float32), subtype="PCM_16")
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 30) + bytes(30))
    assert "no samples" in refused(path)


def mp3(path: Path, seconds: float = 4, loud_after: float = 0) -> Path:
    x = music(seconds)
    x[: round(loud_after * RATE)] *= 1e-4
    return save(path, x, "MP3")


def without_xing(path: Path) -> None:
    data = path.read_bytes()
    with path.open("rb") as file:
        found = read_mpeg(file, 0, len(data), 1)
    assert found is not None and found.parts == (((found.begin, found.end),),)
    path.write_bytes(data[data.index(b"\xff\xfb", 4) :])


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_mp3_blocks_are_what_the_whole_is(tmp_path: Path, size: int) -> None:
    """A quiet start fills the bit reservoir, which a seek between blocks would lose."""
    path = mp3(tmp_path / "a.mp3", 4, 2.0)
    assert np.array_equal(read(path, size), sf.read(path, dtype="float32")[0].T)


@pytest.mark.parametrize("loud_after", [0.0, 2.0, 3.9])
def test_mp3_without_a_xing_header_keeps_every_frame(tmp_path: Path, loud_after: float) -> None:
    path = mp3(tmp_path / "a.mp3", 4, loud_after)
    complete = sf.read(path, dtype="float32")[0].T
    with path.open("rb") as file:
        found = read_mpeg(file, 0, path.stat().st_size, 1)
    assert found is not None and found.present is not None
    without_xing(path)
    y = read(path)
    assert y.shape[1] == found.present * 1152 == open_song(path).samples
    # The same samples, later by the delay that only the lost header told (LAME's 576 and the decoder's 529).
    late = 576 + 529
    assert np.abs(y[:, late:][:, : complete.shape[1]] - complete[:, : y.shape[1] - late]).max() < 1e-6


def test_concatenated_mp3_and_chained_ogg_are_read_to_the_end(tmp_path: Path) -> None:
    one, two = mp3(tmp_path / "1.mp3", 2), mp3(tmp_path / "2.mp3", 3)
    both = tmp_path / "both.mp3"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    assert sf.info(both).frames == 2 * RATE  # what libsndfile alone makes of it
    y = read(both)
    assert 5 * RATE < y.shape[1] < 5.2 * RATE and np.abs(y[:, -RATE // 2 : -4000]).max() > 0.2
    links = [save(tmp_path / f"{i}.ogg", music(i + 1, seed=i), "OGG") for i in range(3)]
    chain = tmp_path / "chain.ogg"
    chain.write_bytes(b"".join(p.read_bytes() for p in links))
    expected = np.concatenate([sf.read(p, dtype="float32")[0] for p in links]).T
    assert sf.info(chain).frames != 6 * RATE
    assert np.array_equal(read(chain), expected) and open_song(chain).samples == 6 * RATE
    assert np.array_equal(read(chain, start=2.5, duration=1.0), expected[:, int(2.5 * RATE) : int(3.5 * RATE)])


def test_a_chain_that_changes_its_rate(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a.ogg", music(1), "OGG"), save(tmp_path / "b.ogg", music(1), "OGG", rate=48000)
    (tmp_path / "c.ogg").write_bytes(a.read_bytes() + b.read_bytes())
    assert "48000" in refused(tmp_path / "c.ogg")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_streamed_flac_of_unknown_length(tmp_path: Path, subtype: str) -> None:
    x = music(1.3)
    path = save(tmp_path / "s.flac", x, subtype=subtype)
    whole = sf.read(path, dtype="float32")[0].T
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert open_song(path).samples == len(x)
    assert np.array_equal(read(path), whole)
    path.write_bytes(data[:-200])
    assert "cut off" in refused(path)
    part = read(path, allow_truncated=True)
    assert part.shape[1] > len(x) - 20000 and np.array_equal(part, whole[:, : part.shape[1]])


def test_a_flac_damaged_inside(tmp_path: Path) -> None:
    path = save(tmp_path / "a.flac", music(4))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    assert "damaged" in refused(path) or "cut off" in refused(path)


@pytest.mark.parametrize("name", ["slow_motion_dream.mp3", "solo_trumpet.ogg"])
def test_real_songs_cut_off(shared_audio: Path, tmp_path: Path, name: str) -> None:
    data = (shared_audio / "songs" / name).read_bytes()
    for keep in (0.3, 0.9, 0.999):
        (tmp_path / name).write_bytes(data[: int(len(data) * keep)])
        assert "cut off" in refused(tmp_path / name)
        assert scan(open_song(tmp_path / name, allow_truncated=True)).samples > 0
