"""``ortsep score`` in the lean runtime: figures, references, what is told, and what is refused."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS
from terminal import typed

import ortsep
from ortsep.audio.sources import ArraySource
from ortsep.base.errors import AudioError, FileMissing, OrtsepError, OutputError, UsageError
from ortsep.measure import score as room
from ortsep.measure.score import Figures, Levels, average, figures, match, seconds
from ortsep.measure.trial import score
from ortsep.measure.truth import Ideal, Recipe, read_mapping, recipe, song_in, songs_in

RATE = 8000
ORTSEP = [sys.executable, "-m", "ortsep.cli", "score"]
STEMS = ("drums", "bass", "other", "vocals")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ORTSEP, *map(str, words)], capture_output=True, text=True, timeout=120)


def write(path: Path, samples: Any, rate: int = RATE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(samples).T, rate, subtype="FLOAT")


def noise(count: int = 3 * RATE + 100, seed: int = 0) -> Any:
    stems = np.random.default_rng(seed).uniform(-0.2, 0.2, (4, 2, count)).astype(np.float32)
    return stems * np.float32([1.0, 0.5, 0.3, 0.8])[:, None, None]


def band(folder: Path, seed: int = 0, **changed: Any) -> Path:
    """A folder in MUSDB's layout; ``changed`` stems instead of the noise, None for none."""
    made = dict(zip(STEMS, noise(seed=seed), strict=True))
    write(folder / "mixture.wav", sum(made.values()))
    for name, samples in {**made, **changed}.items():
        if samples is not None:
            write(folder / f"{name}.wav", samples)
    return folder


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return band(tmp_path_factory.mktemp("songs") / "a song")


def decibels(true: Any, given: Any) -> float:
    true, given = np.asarray(true, np.float64), np.asarray(given, np.float64)
    return float(10 * np.log10(np.sum(true**2) / np.sum((true - given) ** 2)))


def test_figures_of_a_model_whose_factors_are_known(song: Path) -> None:
    """waves gives a quarter of the mixture as drums and half of it as vocals."""
    found = score(GRAPHS / "waves", song)
    (one,) = found.songs
    assert one.song == "a song" and found.labels == ("waves",) and one.seconds == pytest.approx(3.0125)
    effort = one.efforts["waves"]
    assert effort.provider == "cpu" and 20 < effort.peak_mb < 2000
    assert effort.real_time_factor == pytest.approx(effort.seconds / one.seconds)
    stems = noise()
    mixture = stems.sum(axis=0)
    assert list(one.figures) == ["drums", "vocals"]
    for stem, factor, true in (("drums", 0.25, stems[0]), ("vocals", 0.5, stems[3])):
        assert list(one.figures[stem]) == ["mixture", "waves", "ideal mask"]
        floor, mine, best = one.figures[stem].values()
        assert floor.sdr == pytest.approx(decibels(true, mixture), abs=1e-4)
        assert mine.sdr == pytest.approx(decibels(true, mixture * factor), abs=1e-3)
        frames = [decibels(true[:, k : k + RATE], factor * mixture[:, k : k + RATE]) for k in range(0, 3 * RATE, RATE)]
        assert mine.frames_sdr == pytest.approx(np.median(frames), abs=1e-3)
        assert mine.si_sdr == pytest.approx(floor.si_sdr, abs=1e-3), "a gain is free"
        assert best.sdr is not None and best.sdr > max(floor.sdr or 0, mine.sdr or 0) + 1
        assert mine.isr is None
    json.dumps(found.document(), allow_nan=False)


def test_gain_leakage_and_loss_show_where_they_should() -> None:
    s = noise()[0]
    same = figures(s, s, RATE)
    assert (same.sdr, same.si_sdr, same.frames_sdr) == (300.0, 300.0, 300.0)
    assert (same.bleedless, same.fullness) == (100.0, 100.0)
    half = figures(s, 0.5 * s, RATE)
    assert half.sdr == pytest.approx(6.0206, abs=1e-3) and (half.si_sdr or 0) > 120
    lost = 20 * np.log10(2)
    assert (half.bleedless, half.fullness) == (100.0, pytest.approx(100 / (1 + lost), abs=1e-3))
    double = figures(s, 2 * s, RATE)
    assert (double.bleedless, double.fullness) == (pytest.approx(100 / (1 + lost), abs=1e-3), 100.0)
    assert double.sdr == pytest.approx(0, abs=1e-6)
    assert figures(s[0], 0.5 * s[0], RATE).sdr == pytest.approx(half.sdr, abs=0.1), "mono"


def test_silence_is_undefined_and_not_a_number(tmp_path: Path) -> None:
    s = noise()[0]
    assert figures(0 * s, s, RATE) == Figures()
    quiet = figures(s, 0 * s, RATE)
    assert (quiet.sdr, quiet.si_sdr, quiet.frames_sdr) == (0.0, None, None) and quiet.fullness is not None
    folder = band(tmp_path / "quiet", vocals=0 * s)
    done = run(GRAPHS / "waves", "--stems", folder, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
    (one,) = document["songs"]
    assert set(one["stems"]["vocals"]["waves"].values()) == {None}
    assert one["stems"]["drums"]["waves"]["sdr"] is not None
    assert one["notes"] == ["quiet: the true vocals is silent, so its figures are undefined"]
    table = run(GRAPHS / "waves", "--stems", folder)
    assert "undefined" in table.stdout and "nan" not in table.stdout.lower()


def test_many_songs_two_models_every_output(tmp_path: Path) -> None:
    songs = tmp_path / "songs"
    for seed in range(2):
        band(songs / f"song {seed}", seed)
    out = tmp_path / "scores.csv"
    seen = typed([*ORTSEP, GRAPHS / "waves", GRAPHS / "masks", "--songs", songs, "--csv", out], cwd=tmp_path)
    lines = seen.left(80)
    assert seen.status == 0 and max(map(len, lines)) <= 80, seen.text
    assert "mean over 2 songs" in lines and "median over 2 songs" in lines
    assert sum(line.startswith("song ") for line in lines) == 2
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 4 and {row["estimate"] for row in rows} == {"mixture", "waves", "masks", "ideal mask"}
    mine = [float(r["sdr"]) for r in rows if (r["stem"], r["estimate"]) == ("drums", "waves")]
    averages = [float(line.split()[1]) for line in lines if line.split()[:1] == ["waves"] and len(line.split()) == 6]
    assert averages[0] == averages[2] == pytest.approx(np.mean(mine), abs=0.006)
    shown = next(line for line in lines if line.split()[:1] == ["waves"] and len(line.split()) == 3)
    assert float(shown.split()[1]) == pytest.approx(mine[0], abs=0.006)


def test_models_of_one_name_are_told_apart(tmp_path: Path, song: Path) -> None:
    (tmp_path / "other").mkdir()
    for path in (GRAPHS / "waves").iterdir():
        (tmp_path / "other" / path.name).write_bytes(path.read_bytes())
    found = score([GRAPHS / "waves", tmp_path / "other"], song, only=("drums",))
    assert found.labels == ("waves", "other") and list(found.songs[0].figures) == ["drums"]
    with pytest.raises(UsageError, match="named twice"):
        score([GRAPHS / "waves", GRAPHS / "waves"], song)


def test_a_table_that_can_not_be_written_is_said_before_the_work(song: Path) -> None:
    done = run(GRAPHS / "waves", "--stems", song, "--csv", song / "vocals.wav" / "a.csv")
    assert done.returncode == 1 and "with --csv" in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1


# -- references --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "stem", "mapping", "told"),
    [
        (STEMS, "vocals", [], "vocals"),
        (STEMS, "Vocals", [], "vocals"),
        (STEMS, "accompaniment", [], "drums + bass + other"),
        ((*STEMS, "piano"), "instrumental", [], "drums + bass + other + piano"),
        ((*STEMS, "accompaniment"), "no_vocals", [], "no_vocals"),
        (("vocals",), "instrumental", [], "mixture - vocals"),
        (("vocals", "drums"), "Instrumental", [], "mixture - vocals"),
        (STEMS, "no_drums", [], "mixture - drums"),
        (("kick", "snare", "ride", "crash"), "drums", [], "kick + snare + ride + crash"),
        (("kick", "ride", "crash"), "cymbals", [], "ride + crash"),
        (("kick", "Hi-Hat"), "hh", [], "hihat"),
        (STEMS, "piano", ["piano=other"], "other"),
        (STEMS, "rest", ["rest=drums+bass"], "drums + bass"),
        (STEMS, "vocals", ["Vocals=mixture-drums"], "mixture - drums"),
    ],
)
def test_what_a_stem_is_compared_with(
    tmp_path: Path, files: tuple[str, ...], stem: str, mapping: list[str], told: str
) -> None:
    for name in (*files, "mixture"):
        write(tmp_path / f"{name}.wav", np.zeros((1, 8)))
    assert str(recipe(song_in(tmp_path), stem, read_mapping(mapping))) == told


def test_a_sum_is_compared_with_as_a_sum(song: Path) -> None:
    stems = noise()
    for how, true in (("drums=bass+other", stems[1] + stems[2]), ("drums=mixture-vocals", stems[:3].sum(axis=0))):
        (one,) = score(GRAPHS / "waves", song, stems_from=[how], only=["drums"]).songs
        expected = decibels(true, 0.25 * stems.sum(axis=0))
        assert one.figures["drums"]["waves"].sdr == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"vocals": None}, [], "has no true stem vocals (it has bass, drums, other); add vocals.wav"),
        ({"vocals": np.zeros((2, 100))}, [], "has 100 samples and the mixture 24100"),
        ({"drums": np.zeros((1, 24100))}, [], "has 1 channels and the mixture 2"),
        ({}, ["--only", "piano"], "no model here has a stem 'piano'; they have drums, vocals"),
        ({}, ["--stems-from", "drums"], "is no mapping; write STEM=FILE+FILE"),
        ({}, ["--stems-from", "drums=a-b-c"], "is no mapping; write STEM=FILE+FILE"),
        ({}, ["--stems-from", "drums=kick"], "has no kick for --stems-from drums=kick"),
        ({}, ["--songs", "."], "name the songs: --stems FOLDER with --mixture FILE, or --songs"),
        ({}, ["--mixture", "nowhere.wav"], "there is no file 'nowhere.wav'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path: Path, change: dict[str, Any], words: list[str], said: str) -> None:
    folder = band(tmp_path / "song", **change)
    done = run(GRAPHS / "waves", "--stems", folder, *words)
    assert done.returncode in (1, 2) and said in done.stderr, done.stderr
    assert done.stdout == "" and len(done.stderr.strip().splitlines()) == 1


def test_stems_at_another_rate_are_refused(tmp_path: Path) -> None:
    folder = band(tmp_path / "song")
    write(folder / "vocals.wav", np.zeros((2, 24100)), 16000)
    with pytest.raises(AudioError, match=r"has 16000 Hz and the mixture 8000: .* take both from one source"):
        score(GRAPHS / "waves", stems=folder)


def test_folders_that_hold_no_song_are_refused(tmp_path: Path, song: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, said in ((tmp_path / "nowhere", "there is no folder"), (tmp_path, "holds no songs in MUSDB's layout")):
        with pytest.raises(FileMissing, match=said):
            songs_in(place)
    write(tmp_path / "lone" / "vocals.wav", np.zeros((2, 8)))
    with pytest.raises(FileMissing, match="holds no mixture"):
        song_in(tmp_path / "lone")
    with pytest.raises(FileMissing, match="holds no stems"):
        song_in(tmp_path / "empty", song / "mixture.wav")
    with pytest.raises(FileMissing, match=r"no folder .* with the true stems"):
        song_in(tmp_path / "nowhere")
    write(tmp_path / "lone" / "vocal.wav", np.zeros((2, 8)))
    with pytest.raises(UsageError, match="which are one stem; take one away"):
        song_in(tmp_path / "lone")
    with pytest.raises(UsageError, match="--mixture goes with --stems"):
        score(GRAPHS / "waves", song, mixture=song / "mixture.wav")
    with pytest.raises(UsageError, match="name the songs"):
        score(GRAPHS / "waves")
    with pytest.raises(UsageError, match=r"waves has none of bass; leave it out"):
        score([GRAPHS / "waves", GRAPHS / "hybrid"], song, only=["bass"])


def test_a_separation_that_fails_says_why(song: Path, tmp_path: Path) -> None:
    with pytest.raises(OrtsepError, match=r"^separating a song with waves failed: .*cuda"):
        score(GRAPHS / "waves", song, provider="cuda")


# -- parts -------------------------------------------------------------------------------------------------------------


class Endless:
    """A source of any length of one repeated block."""

    sample_rate, channels = RATE, 2

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def blocks(self) -> Iterator[Any]:
        block = noise(1000)[0]
        for at in range(0, self.samples, 1000):
            yield block[:, : self.samples - at]


def test_seconds_are_seconds_whatever_the_blocks() -> None:
    sizes = [block.shape[1] for block in seconds(Endless(3 * RATE + 7))]
    assert sizes == [RATE] * 3 + [7]
    whole = ArraySource(noise(20 * RATE)[0], RATE)
    assert np.array_equal(np.concatenate(list(seconds(whole)), axis=1), whole.data)


def test_an_hour_takes_the_memory_of_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(room, "BANDS", 16)
    peaks = []
    for count in (10, 100):
        tracemalloc.start()
        match(
            Endless(count * RATE),
            {"x": Endless(count * RATE), "mask": Ideal(Endless(count * RATE), Endless(count * RATE))},
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch, small_disk: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with (
        pytest.raises(OutputError, match=r"levels of a stem can't be kept in .*small disk.*make room there"),
        Levels(2, RATE) as levels,
    ):
        for block in seconds(Endless(600 * RATE)):
            levels.push(block)


def test_averages_leave_out_what_is_undefined() -> None:
    taken = [Figures(sdr=1.0), Figures(sdr=2.0, si_sdr=5.0), Figures(sdr=6.0), Figures()]
    assert average(taken, "mean") == Figures(sdr=3.0, si_sdr=5.0)
    assert average(taken, "median") == Figures(sdr=2.0, si_sdr=5.0)


def test_arrays_that_differ_are_refused() -> None:
    with pytest.raises(AudioError, match="give both alike"):
        ortsep.figures(noise()[0], noise(100)[0], RATE)
    assert isinstance(ortsep.figures(noise()[0].T, noise()[1].T, RATE), ortsep.Figures)
    assert str(Recipe(("a", "b"), "c")) == "a + b - c"
