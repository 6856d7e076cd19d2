"""What ``stream`` takes a song from: arrays, paths, sound files, generators, anything that is a Source."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import WAVES, changed, faked, scaled, song
from places import GRAPHS

from ortsep.audio.resample import resample
from ortsep.audio.sources import ArraySource, At, Channel, Kept, Source, as_mixture, as_source, fit_channels
from ortsep.base.errors import AudioError, FileMissing, UsageError
from ortsep.options import Options
from ortsep.separator import Separator


def whole(blocks: Iterator[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(blocks), axis=-1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "song.wav", song(150_000).T, 8000, subtype="FLOAT")
    return tmp_path / "song.wav"


@pytest.mark.parametrize("name", ["waves", "hybrid", "masks"])
def test_all_kinds_of_sources_give_the_same(name: str, file: Path) -> None:
    separator, x = Separator(GRAPHS / name), song(150_000)
    options = Options(residual=True)
    expected = whole(separator.stream(ArraySource(x, 8000), options))
    kinds: list[Any] = [
        x,
        x.T,
        x.astype(np.float64),
        file,
        str(file),
        (x[:, at : at + 777] for at in range(0, 150_000, 777)),
        iter([x[:, :5], x[:, 5:5], x[:, 5:]][::2]),
    ]
    for kind in kinds:
        np.testing.assert_array_equal(whole(separator.stream(kind, options)), expected)
    with soundfile.SoundFile(file) as opened:
        opened.seek(333)
        np.testing.assert_array_equal(whole(separator.stream(opened, options)), expected)


def test_the_rate_of_arrays_and_blocks() -> None:
    separator, x = Separator(GRAPHS / "waves"), song(9000)
    expected = whole(separator.stream(ArraySource(x, 11025)))
    np.testing.assert_array_equal(whole(separator.stream(x, sample_rate=11025)), expected)
    np.testing.assert_array_equal(whole(separator.stream(iter([x]), sample_rate=11025.0)), expected)
    mono = whole(separator.stream(iter([x[0, :3], x[0, 3:]])))
    assert mono.shape == (2, 1, 9000)
    at_half = whole(separator.stream(x, rate=4000))
    assert at_half.shape == (2, 2, 4500)


def test_what_is_no_source(file: Path) -> None:
    separator = Separator(GRAPHS / "waves")
    with pytest.raises(UsageError, match="this source has its own"):
        separator.stream(file, sample_rate=8000)
    with pytest.raises(FileMissing, match="nowhere"):
        separator.stream("nowhere.wav")
    with pytest.raises(AudioError, match="follows one of"):
        separator.stream(iter([song(5), song(5, 1)]))
    with pytest.raises(AudioError, match="no samples"):
        separator.stream(iter([]))
    with pytest.raises(AudioError, match="not finite"):
        separator.stream(iter([song(5), np.full((2, 5), np.nan)]))
    with pytest.raises(AudioError, match="not audio"):
        separator.stream(object())
    with pytest.raises(UsageError, match="sample rate"):
        separator.stream(song(100), sample_rate=0)


def test_a_generator_that_fails_is_closed_and_its_error_told() -> None:
    closed = []

    def broken() -> Iterator[np.ndarray]:
        try:
            yield song(100)
            raise KeyError("the caller's own")
        finally:
            closed.append(True)

    with pytest.raises(KeyError, match="the caller's own"):
        Separator(GRAPHS / "waves").stream(broken())
    assert closed


@pytest.mark.parametrize("rate", [8000, 11025, 4000])
@pytest.mark.parametrize("width", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_source_at_another_rate_and_width(rate: int, width: int, channels: int) -> None:
    x = song(9001, channels)
    at: Source = At(ArraySource(x, 8000), rate, width)
    expected = whole(resample(iter([x]), channels, 8000, rate, -(-9001 * rate // 8000)))
    expected = fit_channels(expected, width or channels)
    assert (at.sample_rate, at.channels, at.samples) == (rate, width or channels, expected.shape[1])
    np.testing.assert_array_equal(whole(at.blocks()), expected)
    np.testing.assert_array_equal(whole(at.survey()), expected)  # type: ignore[attr-defined]


def test_one_channel_of_a_source() -> None:
    x = song(70_000)
    for index in range(2):
        channel = Channel(ArraySource(x, 8000), index)
        assert (channel.channels, channel.samples) == (1, 70_000)
        np.testing.assert_array_equal(whole(channel.blocks())[0], x[index])


def test_kept_blocks_may_be_read_by_two_at_a_time() -> None:
    x = song(300_000)
    kept = Kept((x[:, at : at + 1234] for at in range(0, 300_000, 1234)), 8000)
    for one, two in zip(kept.blocks(), kept.blocks(), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(whole(kept.blocks()), x)


def test_integers_of_a_generator_are_scaled() -> None:
    given = np.array([[-32768, 0, 16384]], np.int16)
    source = as_source(iter([given]), None, 8000)
    np.testing.assert_array_equal(whole(source.blocks()), [[-1.0, 0.0, 0.5]])


def test_a_mono_model_measures_and_hears_each_channel_of_a_fed_stem() -> None:
    """A chain whose second model is mono: each channel is a run of its own, and the others' stems stay in step."""
    from ortsep.chain import Chain

    first, _ = faked(WAVES, scaled(0.5, 0.25))
    second, _ = faked(changed(name="mono", stems=("c", "d"), channels=1), lambda mix: np.stack([mix**2, mix], axis=1))
    x = song(50_000)
    stems = whole(Chain(first, second, "a").stream(x))
    np.testing.assert_allclose(stems[0], 0.25 * x, atol=1e-6)
    np.testing.assert_allclose(stems[1], (0.5 * x) ** 2, atol=1e-6)
    np.testing.assert_allclose(stems[2], 0.5 * x, atol=1e-6)


@pytest.mark.parametrize(("kind", "middle"), [(np.uint8, 128), (np.uint16, 32768), (np.uint32, 1 << 31), (np.int8, 0)])
def test_unsigned_samples_lie_about_their_middle(kind: Any, middle: int) -> None:
    half = np.iinfo(kind).max // 2 + 1 if middle else 128
    given = np.array([[middle, middle - half, middle + half // 2]]).astype(kind)
    np.testing.assert_array_equal(as_mixture(given, as_it_lies=True)[0], [[0.0, -1.0, 0.5]])


@pytest.mark.parametrize("name", ["waves", "masks"])
def test_of_an_array_of_eight_channels_the_first_two_are_separated_and_that_is_said(name: str) -> None:
    separator, x = Separator(GRAPHS / name), song(20_000, 8)
    expected = separator.separate(x[:2], residual=True)
    ways: list[Any] = [
        lambda: separator.separate(x, residual=True),
        lambda: {k: v.T for k, v in separator.separate(x.T, residual=True).items()},
        lambda: {k: v[0] for k, v in separator.separate(x[None], residual=True).items()},
        *(
            lambda given=given: dict(zip(expected, whole(separator.stream(given(), {"residual": True})), strict=True))
            for given in (lambda: x, lambda: iter([x[:, :9], x[:, 9:]]), lambda: ArraySource(x, 8000))
        ),
    ]
    for way in ways:
        with pytest.warns(UserWarning, match="has 8 channels: the first two are separated") as told:
            stems = way()
        assert [w.filename for w in told if w.category is UserWarning] == [__file__], "the caller's line is named"
        for stem in expected:
            np.testing.assert_array_equal(stems[stem], expected[stem])


def test_what_is_said_of_a_path_is_said_to_who_streams_it(tmp_path: Path) -> None:
    x = song(20_000, 8)
    soundfile.write(tmp_path / "eight.wav", x.T, 8000, subtype="FLOAT")
    separator = Separator(GRAPHS / "waves")
    with pytest.warns(UserWarning, match="eight.wav has 8 channels"):
        stems = whole(separator.stream(tmp_path / "eight.wav"))
    np.testing.assert_array_equal(stems, whole(separator.stream(x[:2])))


def test_a_model_of_one_channel_hears_the_two_one_by_one() -> None:
    separator, _ = faked(changed(name="mono", channels=1), lambda mix: np.stack([mix, mix**2], axis=1))
    x = song(9_000, 8)
    with pytest.warns(UserWarning, match="8 channels"):
        stems = separator.separate(x)
    np.testing.assert_allclose(np.stack(list(stems.values())), [x[:2], x[:2] ** 2], atol=1e-6)
