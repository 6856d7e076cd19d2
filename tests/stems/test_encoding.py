"""Bitrates, qualities, and what becomes of samples beyond full scale."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from ortsep.base.errors import UsageError
from ortsep.stems.encoders import check_encoding, encoding
from ortsep.stems.files import StemWriter


def gaussian(seconds: float, rate: int, level: float) -> np.ndarray:
    return (level * np.random.default_rng(0).standard_normal((2, round(seconds * rate)))).astype(np.float32)


@pytest.mark.parametrize(("rate", "bitrate"), [(44100, 320), (44100, 96), (22050, 32), (8000, 64)])
def test_a_constant_bitrate_is_what_was_asked_for(tmp_path: Path, rate: int, bitrate: int) -> None:
    sound = gaussian(6.0, rate, 0.1)
    path = tmp_path / "a.mp3"
    with StemWriter({"a": path}, rate, 2, samples=sound.shape[1], format="mp3", bitrate=bitrate) as writer:
        writer.write({"a": sound})
    assert path.stat().st_size * 8 / 6.0 / 1000 == pytest.approx(bitrate, rel=0.05)


@pytest.mark.parametrize("format", ["mp3", "ogg"])
def test_quality_costs_bits(tmp_path: Path, format: str) -> None:
    sound, sizes = gaussian(3.0, 44100, 0.1), []
    for quality in (0.0, 5.0, 10.0):
        path = tmp_path / f"{quality}.{format}"
        with StemWriter({"a": path}, 44100, 2, samples=sound.shape[1], format=format, quality=quality) as writer:
            writer.write({"a": sound})
        sizes.append(path.stat().st_size)
    assert sizes[0] * 1.5 < sizes[1] < sizes[2] / 1.5


def test_what_the_formats_have_no_bitrate_or_quality_for() -> None:
    for arguments, said in (
        (("wav", 320, None, "rescale"), "option of MP3"),
        (("flac", None, 5.0, "rescale"), "loses nothing"),
        (("mp3", 320, 5.0, "rescale"), "leave one out"),
        (("ogg", None, 11.0, "rescale"), "not from 0"),
        (("ogg", None, float("nan"), "rescale"), "not from 0"),
        (("wav", None, None, "soft"), "--clip-mode soft is unknown"),
    ):
        with pytest.raises(UsageError, match=said):
            check_encoding(*arguments)
    with pytest.raises(UsageError, match="8 to 64 kbit/s"):
        encoding("mp3", sample_rate=8000, bitrate=320)


@pytest.mark.parametrize("subtype", ["16", "24", "float"])
@pytest.mark.parametrize("clip", ["rescale", "clamp", "none"])
def test_what_becomes_of_samples_beyond_full_scale(tmp_path: Path, subtype: str, clip: str) -> None:
    sound = gaussian(0.5, 8000, 0.7)
    over = int((np.abs(sound) > 1).sum())
    assert over > 100
    paths = {"a": tmp_path / "a.wav", "b": tmp_path / "b.wav"}
    with StemWriter(paths, 8000, 2, samples=sound.shape[1], subtype=subtype, clip=clip) as writer:
        writer.write({"a": sound, "b": 0.1 * sound})
    read = {name: sf.read(path, dtype="float64")[0].T for name, path in paths.items()}
    step = {"16": 2.0**-15, "24": 2.0**-23, "float": 1e-7}[subtype]
    exact = subtype == "float"
    gain = 1.0 if exact or clip != "rescale" else 1 / float(np.abs(sound).max())
    expected = gain * sound if exact and clip != "clamp" else np.clip(gain * sound.astype(np.float64), -1, 1)
    np.testing.assert_allclose(read["a"], expected, atol=1.01 * step)
    np.testing.assert_allclose(read["b"], gain * 0.1 * sound, atol=1.01 * step)
    assert writer.written["a"].gain == pytest.approx(gain)
    assert writer.written["a"].cut == (over if clip == "clamp" or (clip == "none" and not exact) else 0)
