"""Separating arrays with the small graphs of tests/data, whose stems are known multiples of the mixture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import GRAPHS

from ortsep.audio.sources import ArraySource, as_mixture
from ortsep.base.errors import AudioError, ModelError, UsageError
from ortsep.options import Options
from ortsep.separator import Separator

Snr = Callable[[Any, Any], float]


def music(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 8000
    tones = sum(np.sin(2 * np.pi * f * t + p) for f, p in zip((110, 333, 1234), rng.uniform(0, 6, 3), strict=True))
    return (0.1 * tones + 0.05 * rng.standard_normal((channels, samples))).astype(np.float32)


FACTORS = {
    "waves": {"drums": 0.25, "vocals": 0.5},
    "hybrid": {"drums": 0.3, "bass": 0.5, "vocals": 0.7},
    "complex": {"drums": 0.25, "vocals": 0.75},
    "ratio": {"drums": 0.2, "vocals": 0.8},
    "masks": {"drums": 0.25, "vocals": 0.5},
    "bag": {"drums": 0.25, "vocals": 0.5},
    "mean": {"drums": (0.2 + 0.4) / 2, "vocals": (3 * 0.4 + 0.8) / 4},
    "single": {"drums": 0.25, "vocals": 0.5},
    "plain": {"drums": 0.25, "vocals": 0.75},
    "plain_fixed": {"drums": 0.25, "vocals": 0.75},
}


@pytest.mark.parametrize("samples", [1, 63, 64, 3999, 4000, 4001, 23_456])
@pytest.mark.parametrize("name", FACTORS)
def test_stems_are_the_known_multiples(name: str, samples: int, snr: Snr) -> None:
    x = music(samples)
    if name == "hybrid":  # a Nyquist bin that the model does not see costs what is there
        x[:] = np.sin(2 * np.pi * 440 / 8000 * np.arange(samples)) * 0.5
    separator = Separator(GRAPHS / name, sample_rate=8000)
    stems = separator.separate(x)
    assert list(stems) == list(FACTORS[name])
    for stem, factor in FACTORS[name].items():
        expected = factor * x.astype(np.float64)
        if name == "hybrid":  # the song's mean is taken off before the graph and added to each stem, as Demucs does
            expected += (1 - factor) * x.mean()
        gate = 30 if name == "hybrid" else 110  # Demucs's inverse fades at a chunk's ends, where frames are missing
        assert snr(expected, stems[stem]) > gate, stem


@pytest.mark.parametrize("name", ["waves", "hybrid", "complex", "ratio", "masks", "wiener"])
def test_silence_stays_silent(name: str) -> None:
    for stem in Separator(GRAPHS / name).separate(np.zeros((2, 9000), np.float32)).values():
        assert np.isfinite(stem).all()
        assert np.max(np.abs(stem)) < 1e-7


@pytest.mark.parametrize("name", ["waves", "hybrid", "complex", "ratio", "masks", "wiener", "bag"])
@pytest.mark.parametrize("residual_of", [(), ("vocals",)])
def test_stems_and_residual_add_up(name: str, residual_of: tuple[str, ...]) -> None:
    x = music(12_345)
    stems = Separator(GRAPHS / name).separate(x, stems=residual_of, residual=True)
    assert list(stems)[-1] == "residual"
    total = np.sum([s.astype(np.float64) for s in stems.values()], axis=0)
    assert np.max(np.abs(total - x)) < 1e-6


@pytest.mark.parametrize("name", ["waves", "complex", "masks"])
def test_a_wanted_stem_equals_that_of_all(name: str) -> None:
    x = music(9_000)
    separator = Separator(GRAPHS / name)
    everything = separator.separate(x)
    turned = separator.separate(x, stems=("vocals", "drums"))
    assert list(turned) == ["vocals", "drums"]
    for stem in turned:
        np.testing.assert_array_equal(turned[stem], everything[stem])
    np.testing.assert_array_equal(separator.separate(x, stems=("vocals",))["vocals"], everything["vocals"])


def test_a_ratio_needs_all_stems_even_if_one_is_wanted(snr: Snr) -> None:
    x = music(9_000)
    stems = Separator(GRAPHS / "ratio").separate(x, stems=("vocals",))
    assert list(stems) == ["vocals"]
    assert snr(0.8 * x.astype(np.float64), stems["vocals"]) > 110


def test_two_stems_are_one_and_everything_else(snr: Snr) -> None:
    x = music(9_000)
    stems = Separator(GRAPHS / "waves").separate(x, two_stems="vocals")
    assert list(stems) == ["vocals", "no_vocals"]
    assert snr(0.5 * x.astype(np.float64), stems["no_vocals"]) > 110


def test_only_the_graphs_that_are_needed_are_loaded(tmp_path: Path) -> None:
    for file in (GRAPHS / "single").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    separator = Separator(tmp_path)
    graph = tmp_path / "drums.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert list(separator.separate(music(4000), stems=("vocals",))) == ["vocals"]
    with pytest.raises(ModelError, match=r"drums\.onnx"):
        separator.separate(music(4000), stems=("drums",))


def test_one_graph_of_a_bag_runs_by_itself(snr: Snr) -> None:
    x = music(5000)
    separator = Separator(GRAPHS / "bag" / "second.onnx")
    assert separator.stems == ("vocals",)
    assert snr(0.5 * x.astype(np.float64), separator.separate(x)["vocals"]) > 110


@pytest.mark.parametrize("shifts", [1, 3])
def test_shifts_change_nothing_for_a_graph_without_memory(shifts: int, snr: Snr) -> None:
    x = music(15_000)
    stems = Separator(GRAPHS / "waves").separate(x, shifts=shifts, seed=5)
    assert snr(0.25 * x.astype(np.float64), stems["drums"]) > 110


def test_mono_in_gives_mono_out(snr: Snr) -> None:
    x = music(9_000, channels=1)
    separator = Separator(GRAPHS / "complex")
    assert separator.separate(x)["drums"].shape == (1, 9_000)
    assert separator.separate(x[0])["drums"].shape == (9_000,)
    assert snr(0.25 * x[0].astype(np.float64), separator.separate(x[0])["drums"]) > 100
    (block,) = {b.shape[1] for b in separator.stream(ArraySource(x, 8000))}
    assert block == 1


@pytest.mark.parametrize("rate", [4000, 7350, 8000, 16000, 44100])
def test_another_rate_comes_back_with_every_sample(rate: int, snr: Snr) -> None:
    t = np.arange(rate * 2 + 17) / rate
    x = np.stack([np.sin(2 * np.pi * 440 * t), np.cos(2 * np.pi * 700 * t)]).astype(np.float32) * 0.3
    stems = Separator(GRAPHS / "waves").separate(x, rate)
    assert stems["drums"].shape == x.shape
    inner = slice(rate // 10, -rate // 10)
    assert snr(0.25 * x[:, inner].astype(np.float64), stems["drums"][:, inner]) > (100 if rate == 8000 else 80)


@pytest.mark.parametrize(("kind", "scale"), [(np.int16, 2**15), (np.int32, 2**31), (np.uint8, 2**7), (np.float64, 1)])
def test_array_types(kind: Any, scale: int, snr: Snr) -> None:
    x = music(3000).astype(np.float64)
    given = np.round(x * scale + (scale if kind == np.uint8 else 0)).astype(kind) if scale > 1 else x
    data, _ = as_mixture(given)
    assert data.dtype == np.float32
    assert snr(x, data) > {np.int16: 70, np.int32: 110, np.uint8: 20, np.float64: 110}[kind]


def test_either_way_round_comes_back_as_it_was_given() -> None:
    x = music(3000)
    separator = Separator(GRAPHS / "waves")
    np.testing.assert_array_equal(separator.separate(x.T)["drums"].T, separator.separate(x)["drums"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 0), np.float32), "no samples"),
        (np.zeros((65, 100), np.float32), "65 channels and ortsep takes up to 64"),
        (np.zeros((1, 2, 3), np.float32), "shape"),
        (np.array([0.0, np.nan, 1.0]), "not finite at sample 1"),
        (np.array([[0.0, 1.0, 2.0], [1.0, 2.0, np.inf]]), "sample 2 of channel 1"),
        (np.array(["a", "b"]), "not audio"),
        (np.array([1 + 2j]), "not audio"),
    ],
)
def test_arrays_that_are_not_audio(array: np.ndarray, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        as_mixture(array)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stems": ("piano",)}, "no stem 'piano'; it has drums, vocals"),
        ({"two_stems": "piano"}, "no stem 'piano'"),
        ({"overlap": 1.0}, "overlap"),
        ({"shifts": -1}, "shifts"),
        ({"two_stems": "vocals", "residual": True}, "silent"),
        ({"two_stems": "vocals", "stems": ("drums",)}, "exclude"),
        ({"stems": ("drums", "drums")}, "repeat"),
        ({"niter": 1}, "magnitude models"),
        ({"chunk": 3.0}, "chunks of"),
    ],
)
def test_options_that_cannot_be_honoured(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Separator(GRAPHS / "waves").separate(music(100), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("masks", {"exponent": 2.0}), ("ratio", {"niter": 1}), ("wiener", {"mask_extension": "average"})],
)
def test_filter_options_of_another_family(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="means nothing"):
        Separator(GRAPHS / name).separate(music(100), **options)


def test_progress_reaches_the_end_and_never_goes_back() -> None:
    for name in ("waves", "masks", "wiener"):
        told: list[tuple[int, int]] = []
        Separator(GRAPHS / name).separate(music(20_000), progress=lambda done, total, t=told: t.append((done, total)))
        assert told[-1] == (20_000, 20_000)
        assert [d for d, _ in told] == sorted(d for d, _ in told)


def test_a_stream_is_the_array_block_by_block() -> None:
    x = music(50_000)
    for name in ("waves", "hybrid", "masks", "wiener"):
        separator = Separator(GRAPHS / name)
        blocks = list(separator.stream(ArraySource(x, separator.spec.sample_rate), Options(residual=True)))
        assert len(blocks) > 3
        joined = np.concatenate(blocks, axis=-1)
        np.testing.assert_array_equal(joined, np.stack(list(separator.separate(x, residual=True).values())))


def test_long_blocks_of_a_whole_song_model_join_without_a_seam(snr: Snr) -> None:
    """A graph without memory must give the same in overlapping blocks as in one piece."""
    x = music(60_000)
    separator = Separator(GRAPHS / "wiener")
    whole = separator.separate(x, chunk=100.0, niter=0)
    blocks = separator.separate(x, chunk=0.8, niter=0)
    for stem in whole:
        assert snr(whole[stem], blocks[stem]) > 120


@pytest.mark.parametrize("name", ["ratio", "masks"])
def test_blocks_side_by_side_are_blocks_one_after_the_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: a block hears nothing of another, and the stems are put together in order."""
    monkeypatch.setattr("ortsep.engine.network.cores", lambda: 2)
    alone, beside = Separator(GRAPHS / name, threads=1), Separator(GRAPHS / name, threads=2)
    assert (alone._network((0, 1)).abreast, beside._network((0, 1)).abreast) == (1, 2)
    transform, blocks = alone.spec.stft, alone.spec.blocks
    assert transform is not None and blocks is not None
    mix = music(transform.hop * blocks.frames * 5 + 77)
    one, two = alone.separate(mix), beside.separate(mix)
    for stem in alone.stems:
        np.testing.assert_array_equal(one[stem], two[stem])
