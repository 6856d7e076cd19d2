"""Reading: every format as soundfile reads it whole, hostile files as clear errors, memory that does not grow."""

import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from ortsep.audio.song import open_song, scan
from ortsep.base.errors import AudioError, FileMissing, OrtsepError, UsageError

RATE = 44100


def music(seconds: float = 1.0, channels: int = 2, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tones = [np.sin(2 * np.pi * (220 * (c + 1)) * t + c) for c in range(channels)]
    return (0.3 * np.stack(tones, 1) + 0.05 * rng.standard_normal((len(t), channels))).astype(np.float32)


def save(path: Path, x: Any, format: str | None = None, subtype: str | None = None, rate: int = RATE) -> Path:
    sf.write(path, x, rate, format=format or path.suffix[1:].upper(), subtype=subtype)
    return path


def read(path: Path, size: int = 65536, **options: Any) -> Any:
    blocks = list(open_song(path, **options).blocks(size))
    assert all(b.dtype == np.float32 and b.flags.c_contiguous and 1 <= b.shape[1] <= size for b in blocks)
    return np.concatenate(blocks, axis=1)


def refused(path: Path, kind: type[OrtsepError] = AudioError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        scan(open_song(path, **options))
    message = str(caught.value)
    assert type(caught.value) is kind and "\n" not in message and ";" in message
    return message


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "PCM_U8"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "FLOAT"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_reads_as_soundfile_reads_it(tmp_path: Path, format: str, subtype: str, channels: int) -> None:
    path = save(tmp_path / "a b.bin", music(1.5, channels), format, subtype)
    whole = sf.read(path, dtype="float32", always_2d=True)[0].T
    song = open_song(path)
    assert (song.sample_rate, song.channels, song.samples) == (RATE, channels, whole.shape[1])
    assert (song.format, song.subtype, song.decoder, song.warnings) == (format, subtype, "libsndfile", ())
    assert np.array_equal(read(path, 4096), whole) and np.array_equal(read(path), whole)
    found = scan(song)
    assert found.samples == whole.shape[1] and np.array_equal(found.peak, np.abs(whole).max(1))


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_a_part_is_exact_to_the_sample(tmp_path: Path, format: str, subtype: str) -> None:
    path = save(tmp_path / "song", music(2.5), format, subtype)
    whole = sf.read(path, dtype="float32", always_2d=True)[0].T
    for start, length in ((1, 1000), (50000, 1), (40001, 60000), (99999, 10**6)):
        part = read(path, 8192, start=start / RATE, duration=length / RATE)
        assert np.array_equal(part, whole[:, start : start + length])
        song = open_song(path, start=start / RATE, duration=length / RATE)
        assert song.samples == scan(song).samples == part.shape[1]


@pytest.mark.parametrize(
    "name", ["-dash.wav", "-", "ünï 音楽 \U0001f3b5.wav", "sp ace.wav", "flac.wav", "wav.raw", "no"]
)
def test_names_say_nothing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x = music(0.1)
    sf.write(tmp_path / "x", x, RATE, format="FLAC" if "flac" in name else "WAV", subtype="PCM_16")
    (tmp_path / "x").rename(tmp_path / name)
    assert np.allclose(read(Path(name)), x.T, atol=2**-15)


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are not UTF-8 need Linux")
def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    save(tmp_path / "x.wav", music(0.1)).rename(odd)
    assert scan(open_song(odd)).samples == 4410


def test_no_file(tmp_path: Path) -> None:
    assert "nope.wav" in refused(tmp_path / "nope.wav", FileMissing)
    save(tmp_path / "a.wav", music(0.1))
    for odd in (tmp_path / "a.wav" / "b.wav", Path("a\0b"), tmp_path / ("x" * 300)):
        refused(odd, FileMissing)
    assert "folder" in refused(tmp_path)
    (tmp_path / "empty.wav").touch()
    assert "0 bytes" in refused(tmp_path / "empty.wav")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert "regular" in refused(tmp_path / "pipe.wav")


@pytest.mark.parametrize("ffmpeg", [True, False])
def test_text_is_no_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ffmpeg: bool) -> None:
    if not ffmpeg:
        monkeypatch.setenv("PATH", str(tmp_path))
    for text in ("x", "hello\n" * 1000, "#EXTM3U\nhttp://127.0.0.1:9/a.mp3\n"):
        (tmp_path / "text.wav").write_text(text)
        assert "text.wav" in refused(tmp_path / "text.wav")


def test_no_samples_and_one_sample(tmp_path: Path) -> None:
    for format, subtype in (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("RF64", "FLOAT")):
        message = refused(save(tmp_path / "none.x", np.zeros((0, 2), np.float32), format, subtype))
        assert "no samples" in message
    for format, subtype in FORMATS:
        path = save(tmp_path / "one.x", np.full((1, 1), 0.5, np.float32), format, subtype)
        assert scan(open_song(path)).samples == sf.info(path).frames >= 1, format


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_samples_that_are_not_finite(tmp_path: Path, value: float, word: str) -> None:
    x = music(3)
    x[100_000, 1] = value
    path = save(tmp_path / "bad.wav", x, subtype="FLOAT")
    message = refused(path)
    assert word in message and f"{100_000 / RATE:.6f} s" in message and "channel 2" in message
    assert f"{100_000 / RATE:.6f} s" in refused(path, start=1.0)
    assert read(path, duration=1.0).shape == (2, RATE)


def test_a_double_beyond_float32_is_not_finite_either(tmp_path: Path) -> None:
    assert "infinite" in refused(save(tmp_path / "d.wav", np.array([[1e300]]), subtype="DOUBLE"))


@pytest.mark.parametrize(
    "options",
    [{"start": -1}, {"start": np.nan}, {"start": np.inf}, {"duration": 0}, {"duration": -1}, {"duration": np.nan}],
)
def test_times_that_are_none(tmp_path: Path, options: dict[str, float]) -> None:
    refused(save(tmp_path / "a.wav", music(0.1)), UsageError, **options)


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_a_start_beyond_the_end(tmp_path: Path, format: str, subtype: str) -> None:
    path = save(tmp_path / "a.x", music(0.5), format, subtype)
    for start in (sf.info(path).frames / RATE, 1.0, 1e9):
        assert "--start" in refused(path, start=start)


@pytest.mark.parametrize("channels", [3, 6, 8])
def test_of_many_channels_two_are_heard_and_that_is_said(tmp_path: Path, channels: int) -> None:
    x = music(0.1, channels)
    path = save(tmp_path / "many.wav", x, "WAV", "FLOAT")
    song = open_song(path)
    assert song.channels == 2 and np.array_equal(read(path), x[:, :2].T)
    (said,) = song.warnings
    assert f"has {channels} channels: the first two are separated; --downmix takes all of them" in said
    mixed = open_song(path, downmix=True)
    assert mixed.channels == 2 and scan(mixed).samples == len(x) and said not in mixed.warnings


def test_the_front_pair_is_found_where_the_file_states_it(tmp_path: Path) -> None:
    """Vorbis has left, centre, right (Vorbis I, 4.3.9): the second channel would be the singer's."""
    x = np.zeros((4410, 3), np.float32)
    x[:, 0], x[:, 2] = music(0.1, 2).T
    path = save(tmp_path / "three.ogg", x, "OGG", "VORBIS")
    assert np.abs(read(path) - sf.read(path)[0].T[[0, 2]]).max() < 1e-6
    assert "3 channels: the front left and right are separated" in open_song(path).warnings[0]


def test_mono_and_stereo_stay_as_they_are_with_downmix(tmp_path: Path) -> None:
    x = music(0.1, 2)
    for channels in (1, 2):
        path = save(tmp_path / "few.wav", x[:, :channels], subtype="FLOAT")
        assert np.array_equal(read(path, downmix=True), x[:, :channels].T)


def test_an_absurd_rate_or_channel_count(tmp_path: Path) -> None:
    assert "3 Hz" in refused(save(tmp_path / "a.wav", music(0.1), rate=3))
    assert "channels" in refused(save(tmp_path / "b.wav", np.zeros((5, 200), np.float32)), downmix=True)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(FORMATS),
    at=st.integers(0, 300),
    junk=st.binary(min_size=1, max_size=12),
    cut=st.integers(0, 400),
)
def test_damaged_headers_give_audio_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, kind: tuple[str, str], at: int, junk: bytes, cut: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path, source = folder / "fuzz.x", folder / f"{kind[0]}-{kind[1]}.x"
    if not source.exists():
        save(source, music(0.3), *kind)
    data = bytearray(source.read_bytes())
    data[at : at + len(junk)] = junk
    path.write_bytes(data[: len(data) - cut])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        try:
            found = scan(open_song(path, downmix=True))
        except OrtsepError as error:
            assert str(error)
        else:
            assert found.samples >= 1 and np.isfinite(found.peak).all()


def test_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        path = tmp_path / "long.wav"
        with sf.SoundFile(path, "w", RATE, 2, subtype="PCM_16") as file:
            for _ in range(seconds):
                file.write(music(1))
        tracemalloc.start()
        scan(open_song(path))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)
    assert peak(60) < peak(5) + 200_000


def test_real_songs(shared_audio: Path) -> None:
    for name, samples in (("slow_motion_dream.mp3", 479832), ("lets_go_fishin.ogg", 5864815)):
        path = shared_audio / "songs" / name
        song = open_song(path)
        whole = sf.read(path, dtype="float32", always_2d=True)[0].T
        found = scan(song)
        assert song.samples == found.samples == samples == whole.shape[1]
        assert np.array_equal(found.peak, np.abs(whole).max(1))
        assert np.array_equal(read(path, start=5.0, duration=2.0), whole[:, 5 * RATE : 7 * RATE])
