"""What a model of drums is given: held notes are music, strokes and noise are not; said once, and by nobody else."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import WAVES, changed, faked, scaled
from typer.testing import CliRunner

from ortsep.audio.heard import PURE, SAME, TONAL, WARNING, Heard, Listener, features
from ortsep.audio.sources import ArraySource
from ortsep.base.arrays import F32
from ortsep.chain import Chain
from ortsep.cli import app
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file

RATE = 44100
DRUMS = changed(content="drums", sample_rate=RATE)


def chords(seconds: float, rate: int = RATE) -> F32:
    """[2, N]: four notes with harmonics, a new chord every half second, under a little noise."""
    rng, t = np.random.default_rng(0), np.arange(round(seconds * rate)) / rate
    x = 0.005 * rng.standard_normal((2, len(t)))
    for at in range(int(2 * seconds)):
        part = slice(round(at * rate / 2), round((at + 1) * rate / 2))
        for note in rng.choice(24, 4, replace=False):
            for k in (1, 2, 3):
                x[:, part] += 0.05 / k * np.sin(2 * np.pi * 196 * 2 ** (note / 12) * k * t[part])
    return x.astype(np.float32)


def strokes(seconds: float, rate: int = RATE) -> F32:
    """[2, N]: noise and a falling tone that die away, four a second."""
    rng, t = np.random.default_rng(1), np.arange(rate // 4) / rate
    hits = [np.exp(-t / 0.04) * (rng.standard_normal(len(t)) + np.sin(2 * np.pi * 180 * t)) for _ in range(4)]
    x = 0.2 * np.concatenate(hits * int(np.ceil(seconds)))[: round(seconds * rate)]
    return np.stack([x, 0.7 * x]).astype(np.float32)


def said(given: list[Any]) -> int:
    return sum(WARNING in str(one.message) for one in given)


@pytest.mark.parametrize("rate", [22050, 44100, 48000, 96000])
def test_the_features_of_music_and_of_drums(rate: int) -> None:
    music, drums = (features(of(10, rate)[0], rate) for of in (chords, strokes))
    assert music is not None and music[0] > TONAL and music[1] > 0.9
    assert drums is not None and drums[0] < PURE and drums[1] < 0.2
    assert features(np.zeros(10 * rate, np.float32), rate) is None
    assert features(np.ones(50, np.float32), rate) is None


@pytest.mark.parametrize(
    ("parts", "music"),
    [("m", True), ("d", False), ("md", True), ("mdd", False), ("dmm", True), ("s", False), ("ms", True)],
)
def test_half_of_the_song_decides(parts: str, music: bool) -> None:
    kinds = {"m": chords(10), "d": strokes(10), "s": np.zeros((2, 10 * RATE), np.float32)}
    listener = Listener(RATE)
    whole = np.concatenate([kinds[part] for part in parts], axis=1)
    for at in range(0, whole.shape[1], 10_007):
        listener.add(whole[:, at : at + 10_007])
    listener.end()
    assert listener.is_music is music


def test_a_last_part_counts_from_five_seconds_on() -> None:
    for seconds, judged in ((4.9, 0), (5.1, 1), (14.9, 1), (15.1, 2)):
        listener = Listener(RATE)
        listener.add(chords(seconds))
        listener.end()
        assert listener.judged == judged, seconds


def test_memory_does_not_grow() -> None:
    listener, block = Listener(RATE), chords(3)
    for _ in range(60):
        listener.add(block)
        assert sum(len(x) for x in listener._waiting) < 10 * RATE + block.shape[1]
    assert listener.judged == 18


def test_only_the_first_reading_is_listened_to() -> None:
    heard = Heard(ArraySource(chords(10), RATE))
    list(heard.survey())
    assert heard.listener._count == 0
    first, second = heard.blocks(), heard.blocks()
    while next(second, None) is not None:
        next(first, None)
    list(first)
    list(heard.blocks())
    assert heard.warning == WARNING and heard.listener.judged == 1


def arrays(separator: Separator, x: F32) -> Iterator[Any]:
    yield lambda: separator.separate(x)
    yield lambda: separator.separate(x.T, RATE, residual=True)
    yield lambda: list(separator.stream(x, sample_rate=RATE))
    yield lambda: list(separator.stream(iter([x]), sample_rate=RATE))
    yield lambda: list(separator.stream(ArraySource(x, RATE)))


def test_python_is_warned_once_a_call() -> None:
    separator, _ = faked(DRUMS, scaled(0.5, 0.25))
    for x, times in ((chords(10), 1), (strokes(10), 0)):
        for call in arrays(separator, x):
            with warnings.catch_warnings(record=True) as given:
                warnings.simplefilter("always")
                call()
            assert said(given) == times
            assert all(one.filename == __file__ for one in given if WARNING in str(one.message))


def test_models_of_songs_and_drums_behind_them_are_not_asked() -> None:
    music, _ = faked(changed(sample_rate=RATE), scaled(0.5, 0.25))
    drums, _ = faked(changed(content="drums", sample_rate=RATE, stems=("kick", "snare")), scaled(0.5, 0.25))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        music.separate(chords(10))
        list(Chain(music, drums, music.stems[0]).stream(ArraySource(chords(10), RATE)))
    assert said(given) == 0
    assert WAVES.content == "music"


@pytest.mark.parametrize(("residual", "of", "times"), [(False, chords, 1), (True, chords, 1), (False, strokes, 0)])
def test_a_file_is_separated_and_its_report_says_so(tmp_path: Path, residual: bool, of: Any, times: int) -> None:
    soundfile.write(tmp_path / "song.wav", of(6).T, RATE)
    separator = Separator("drums_mini", provider="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files, options = Files(output=tmp_path / "out"), Options(stems=("kick",), residual=residual)
        report = separate_file(separator, tmp_path / "song.wav", files, options)
    assert report.warnings.count(WARNING) == times and len(report.stems) == 1 + residual
    assert sum(each.startswith(SAME) for each in report.warnings) == 1 - times, "not the same in two sentences"


def test_the_command_says_it_and_goes_on(tmp_path: Path) -> None:
    """The model in the box, by the terminal and by JSON."""
    soundfile.write(tmp_path / "song.wav", chords(6).T, RATE)
    command = ["run", "drums_mini", str(tmp_path / "song.wav"), "-o", str(tmp_path / "out"), "--provider", "cpu"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and done.stderr.count("this model knows drums alone") == 1
    document = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert WARNING in json.dumps(document)
