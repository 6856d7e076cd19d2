"""Bytes around the audio: tags, zeros and junk in front of and behind it, in every format, never change a sample."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from test_song import FORMATS, RATE, music, read, refused, save

from ortsep.audio.container import examine
from ortsep.audio.song import open_song
from ortsep.audio.tags import between_tags


def id3v1() -> bytes:
    return b"TAG" + b"A song".ljust(30, b"\0") + b"Somebody".ljust(30) + bytes(30) + b"1999" + bytes(31)


def id3v2(body: int = 1500, version: int = 4, footer: bool = False, fill: bytes = b"\xff\xfb\x90d fLaC OggS ") -> bytes:
    size = bytes(body >> shift & 0x7F for shift in (21, 14, 7, 0))
    rest = bytes((version, 0, 0x10 if footer else 0)) + size
    frames = (fill * (body // len(fill) + 1))[:body]
    return b"ID3" + rest + frames + (b"3DI" + rest if footer else b"")


def ape(version: int = 2000, header: bool = True, items: int = 700) -> bytes:
    def frame(is_header: bool) -> bytes:
        flags = (1 << 31 if header else 0) | (1 << 29 if is_header else 0) if version >= 2000 else 0
        return b"APETAGEX" + struct.pack("<IIII", version, items + 32, 1, flags) + bytes(8)

    return (frame(True) if header and version >= 2000 else b"") + b"x" * items + frame(False)


def lyrics3(version: int = 2) -> bytes:
    text = b"LYRICSBEGIN" + b"[00:01]Words\xff\xf8\r\n" * 20
    return text + (b"%06dLYRICS200" % len(text) if version == 2 else b"LYRICSEND")


NOISE = np.random.default_rng(7).bytes(3000)
BEHIND = {
    "id3v1": id3v1(),
    "id3v1+": b"TAG+" + bytes(223) + id3v1(),
    "apev1": ape(1000),
    "apev2": ape(),
    "apev2 without header": ape(header=False),
    "lyrics3v1": lyrics3(1) + id3v1(),
    "lyrics3v2": lyrics3() + id3v1(),
    "id3v2": id3v2(),
    "id3v2 with footer": id3v2(footer=True),
    "all": ape() + lyrics3() + id3v1(),
    "large id3v2": id3v2(2_000_000),
    "zeros": bytes(4096),
    "noise": NOISE,
    "few bytes": b"\n",
}
FRONT = {
    "id3v2": id3v2(),
    "two id3v2": id3v2(700) + id3v2(300_000, 3),
    "id3v2 with footer": id3v2(footer=True),
    "id3v2 and padding": id3v2() + bytes(3000),
    "apev2": ape(),
    "zeros": bytes(4096),
    "noise": NOISE,
}
MORE = [("OGG", "OPUS"), ("AU", "FLOAT"), ("WAV", "PCM_32"), ("RF64", "PCM_16"), ("W64", "FLOAT"), ("AIFF", "PCM_16")]


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[bytes, Any]]:
    """A song's bytes in a format, and what soundfile reads of it by path."""
    made: dict[tuple[str, str], tuple[bytes, Any]] = {}
    folder = tmp_path_factory.mktemp("songs")

    def song(format: str, subtype: str) -> tuple[bytes, Any]:
        if (format, subtype) not in made:
            rate = 48000 if subtype == "OPUS" else RATE
            path = save(folder / "x", music(1.3), format, subtype, rate)
            made[format, subtype] = path.read_bytes(), sf.read(path, dtype="float32", always_2d=True)[0].T
        return made[format, subtype]

    return song


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(("format", "subtype"), FORMATS + MORE)
def test_what_lies_behind(tmp_path: Path, songs: Any, format: str, subtype: str, behind: str) -> None:
    data, expected = songs(format, subtype)
    path = tmp_path / "song"
    path.write_bytes(data + BEHIND[behind])
    assert np.array_equal(read(path), expected)
    song = open_song(path)
    assert np.array_equal(read(path, 999, start=1.0), expected[:, song.sample_rate :])
    assert song.samples == expected.shape[1]
    told = behind == "noise" and format in ("WAV", "WAVEX", "RF64", "W64") and subtype != "IMA_ADPCM"
    assert bool(song.warnings) == told


@pytest.mark.parametrize("front", FRONT)
@pytest.mark.parametrize(("format", "subtype"), FORMATS + MORE)
def test_what_lies_in_front(tmp_path: Path, songs: Any, format: str, subtype: str, front: str) -> None:
    data, expected = songs(format, subtype)
    path = tmp_path / "song"
    path.write_bytes(FRONT[front] + data + BEHIND["all"])
    assert np.array_equal(read(path), expected)
    assert open_song(path).warnings == () and open_song(path).samples == expected.shape[1]


@pytest.mark.parametrize("behind", ["id3v1", "apev2", "all", "id3v2", "large id3v2"])
@pytest.mark.parametrize(("format", "subtype"), [f for f in FORMATS if f[0] != "OGG" and f[1] != "IMA_ADPCM"])
def test_cut_off_is_found_behind_a_tag(tmp_path: Path, songs: Any, format: str, subtype: str, behind: str) -> None:
    data, _ = songs(format, subtype)
    for keep in (0.5, 0.98):
        (tmp_path / "song").write_bytes(data[: int(len(data) * keep)] + BEHIND[behind])
        assert "cut off" in refused(tmp_path / "song")


@pytest.mark.parametrize("unknown", [0xFFFFFFFF, 0])
def test_a_tag_behind_samples_of_unknown_length_is_no_sound(tmp_path: Path, songs: Any, unknown: int) -> None:
    data, expected = songs("WAV", "PCM_16")
    at = data.index(b"data") + 4
    (tmp_path / "s.wav").write_bytes(data[:at] + struct.pack("<I", unknown) + data[at + 4 :] + BEHIND["all"])
    assert np.array_equal(read(tmp_path / "s.wav"), expected)
    data, expected = songs("AU", "PCM_16")
    (tmp_path / "s.au").write_bytes(data[:8] + b"\xff" * 4 + data[12:] + BEHIND["all"])
    assert np.array_equal(read(tmp_path / "s.au"), expected)


def test_nothing_but_tags(tmp_path: Path) -> None:
    (tmp_path / "t.mp3").write_bytes(id3v2() + ape() + id3v1())
    assert "tags and no audio" in refused(tmp_path / "t.mp3")


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
@pytest.mark.parametrize("between", [b"", b"LIST" + struct.pack("<I", 4) + b"INFO", b"junk\x03\0\0\0abc\0"])
def test_two_data_chunks(tmp_path: Path, subtype: str, between: bytes) -> None:
    x = music(1)
    whole = sf.read(save(tmp_path / "w.wav", x, "WAV", subtype), dtype="float32")[0].T
    one, two = (save(tmp_path / f"{i}.wav", x[a:b], "WAV", subtype) for i, a, b in ((1, 0, 20000), (2, 20000, RATE)))
    second = two.read_bytes()
    at = second.index(b"data")
    one.write_bytes(one.read_bytes() + between + second[at : at + 8 + struct.unpack_from("<I", second, at + 4)[0]])
    assert np.array_equal(read(one), whole) and open_song(one).warnings == ()
    assert np.array_equal(read(one, start=0.4, duration=0.2), whole[:, 17640 : 17640 + 8820])
    one.write_bytes(one.read_bytes()[:-5000])
    assert "cut off" in refused(one)
    part = read(one, allow_truncated=True)
    assert np.array_equal(part, whole[:, : part.shape[1]]) and part.shape[1] > RATE - 5000


def test_data_behind_the_samples_is_left_out_and_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", music(0.5), subtype="PCM_16")
    path.write_bytes(path.read_bytes() + NOISE)
    told = "holds 0.517 s where its header claims 0.500 s: the rest was left out; --allow-truncated takes all of it"
    assert open_song(path).warnings == (f"{path} {told}",)
    assert read(path).shape[1] == RATE // 2
    assert read(path, allow_truncated=True).shape[1] == RATE // 2 + len(NOISE) // 4


def test_a_sound_flac_is_never_called_cut_off(tmp_path: Path) -> None:
    """The seed of a bytes that look like a frame by chance, and a hundred others; libsndfile reads all of them."""
    for seed in (916, *range(100)):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4200, 8100))
        x = rng.standard_normal((n, 1)) * 10 ** rng.uniform(-3.5, -0.7)
        path = save(tmp_path / "n.flac", np.clip(x, -1, 1), subtype="PCM_16")
        assert open_song(path).samples == n and read(path).shape == (1, n)


def test_bytes_like_a_frame_in_the_last_frame_of_a_flac(tmp_path: Path) -> None:
    """Verbatim frames of samples that spell a frame's header, checksum and all: nothing to be found by it is true."""
    plain = save(tmp_path / "p.flac", music(0.2), subtype="PCM_16").read_bytes()
    at = plain.rindex(b"\xff\xf8")
    rng = np.random.default_rng(1)
    x = rng.integers(-(2**15), 2**15, (4096 + 900, 2)).astype(np.int16)
    header = np.frombuffer((b"\0" + plain[at : at + 7]).ljust(8, b"\0"), ">i2")
    x[-len(header) :, 0] = header
    path = tmp_path / "v.flac"
    sf.write(path, x, RATE, subtype="PCM_16")
    assert open_song(path).samples == len(x) and np.array_equal(read(path) * 2**15, x.T)


def test_a_long_tail_takes_no_longer_than_its_length(tmp_path: Path) -> None:
    """Counted, not timed: candidates for the last frame, each of which costs a checksum of what follows it."""
    path = save(tmp_path / "t.flac", music(0.5), subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data + b"\xff\xf8\xc9\x18\0\xc2" * 200_000)
    found = examine(path)
    assert found.doubtful and open_song(path).samples == RATE // 2
    assert np.array_equal(read(path), sf.read(save(tmp_path / "u.flac", music(0.5)), dtype="float32")[0].T)


def test_opus_is_decoded_at_48_khz_whatever_was_encoded(tmp_path: Path, snr: Callable[[Any, Any], float]) -> None:
    """The header's rate is about the encoder's input; RFC 7845, 5.1, item 5. A chain's links are mended one by one."""
    path = save(tmp_path / "o.ogg", music(1), "OGG", "OPUS", rate=48000)
    expected = sf.read(path, dtype="float32")[0].T
    data = path.read_bytes()
    at = data.index(b"OpusHead") + 12
    for rate in (8000, 12000, 16000, 24000, 44100, 96000, 0):
        path.write_bytes(with_ogg_checksum(data[:at] + struct.pack("<I", rate) + data[at + 4 :]))
        song = open_song(path)
        assert (song.sample_rate, song.samples) == (48000, 44100)
        assert np.array_equal(read(path), expected)
    path.write_bytes(path.read_bytes() * 2)
    assert np.array_equal(read(path), np.concatenate([expected] * 2, 1))


def with_ogg_checksum(data: bytes) -> bytes:
    """The first page's checksum set right, by the definition of RFC 3533 as a division of polynomials."""
    length = 27 + data[26] + sum(data[27 : 27 + data[26]])
    page = data[:22] + bytes(4) + data[26:length]
    remainder = int.from_bytes(page) << 32
    for bit in range(remainder.bit_length() - 1, 31, -1):
        if remainder >> bit & 1:
            remainder ^= 0x104C11DB7 << (bit - 32)
    return data[:22] + struct.pack("<I", remainder) + data[26:]


def test_an_ogg_without_a_last_page_is_read_and_told(tmp_path: Path, songs: Any) -> None:
    data, expected = songs("OGG", "VORBIS")
    last = data.rindex(b"OggS")
    (tmp_path / "a.ogg").write_bytes(data[:last])
    song = open_song(tmp_path / "a.ogg")
    assert "its end may be missing" in song.warnings[0]
    part = read(tmp_path / "a.ogg")
    assert np.array_equal(part[:, :20000], expected[:, :20000])
    (tmp_path / "a.ogg").write_bytes(data[: last + 40])
    assert "cut off" in refused(tmp_path / "a.ogg")


@pytest.mark.parametrize("front", ["id3v2", "two id3v2", "id3v2 with footer", "apev2"])
@pytest.mark.parametrize("behind", [b for b in BEHIND if b not in ("zeros", "noise", "few bytes")])
def test_where_the_tags_end(front: str, behind: str) -> None:
    """To the byte, without a format that could be searched for; bytes in between that look like tags are left alone."""
    for audio in (b"audio", b"TAG" + bytes(range(200)), b"xAPETAGEX" + bytes(60), b"ID3 \0\0\0\0\x7f\x7f\x7f\x7f more"):
        data = FRONT[front] + b"x" + audio + BEHIND[behind]
        begin = len(FRONT[front])
        assert between_tags(io.BytesIO(data), len(data)) == (begin, begin + 1 + len(audio))


def test_a_sound_flac_of_noise_needs_no_decoding_to_be_known_for_it(tmp_path: Path) -> None:
    """Its frames are full of bytes that begin like a frame; only the true one has both checksums."""
    for seed in range(12):
        x = np.random.default_rng(seed).uniform(-1, 1, (RATE, 2))
        path = save(tmp_path / "n.flac", x, subtype="PCM_24")
        path.write_bytes(path.read_bytes() + BEHIND["all"])
        assert not examine(path).doubtful
