"""The figures of ``ortsep score`` beside museval, and beside MVSep's definition in torch and librosa; and mutants."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from ortsep.audio.sources import ArraySource
from ortsep.measure import score
from ortsep.measure.bsseval import add_museval, metrics
from ortsep.measure.score import figures, judge, match, mel_filters
from ortsep.measure.truth import Ideal
from ortsep.models.spec import STFT

torch: Any = pytest.importorskip("torch")
librosa: Any = pytest.importorskip("librosa")
RATE = 8000
Song = tuple[Any, Any, Any]


@pytest.fixture(scope="module")
def museval() -> ModuleType:
    if importlib.util.find_spec("museval") is None:
        pytest.skip("museval is not installed")
    return metrics()


@pytest.fixture(scope="module")
def song() -> Song:
    """Two stems [2, 2, N] of 6.3 s, an estimate of each with gain, leakage, a filter and noise, and their mixture.

    The first is silent in the third second, the second's estimate in the second and the fifth.
    """
    rng = np.random.default_rng(7)
    count = int(6.3 * RATE)
    true = np.cumsum(rng.standard_normal((2, 2, count)), axis=-1) * 0.004
    true[1] = rng.standard_normal((2, count)) * np.linspace(0.02, 0.2, count)
    true[0, :, 2 * RATE : 3 * RATE] = 0
    given = 0.8 * true + 0.2 * np.roll(true, 3, axis=-1) + 0.1 * true[::-1] + 0.01 * rng.standard_normal(true.shape)
    given[1, :, RATE : 2 * RATE] = given[1, :, 4 * RATE : 5 * RATE] = 0
    return true.astype(np.float32), given.astype(np.float32), true.sum(axis=0).astype(np.float32)


@pytest.fixture(scope="module")
def theirs(song: Song, museval: ModuleType) -> Any:
    """museval's SDR, ISR, SIR and SAR [stem, second] of both stems."""
    true, given = (side.transpose(0, 2, 1) for side in song[:2])
    return museval.bss_eval(true, given, window=RATE, hop=RATE, compute_permutation=False)[:4]


def ours(song: Song) -> list[Any]:
    true, given, _ = song
    pairs = zip("ab", true, given, strict=True)
    matches = {name: match(ArraySource(t, RATE), {"x": ArraySource(g, RATE)})["x"] for name, t, g in pairs}
    return list(judge(matches, true.shape[-1], RATE).values())


def bleed_full(reference: Any, estimate: Any, rate: int) -> tuple[float, float]:
    """As MVSep and MSST define it, in float64: a magnitude mel spectrogram in dB, cut 80 below its loudest point."""
    window = torch.hann_window(4096, dtype=torch.float64)
    filters = torch.from_numpy(librosa.filters.mel(sr=rate, n_fft=4096, n_mels=512)).double()

    def levels(x: Any) -> Any:
        z = torch.stft(
            torch.from_numpy(x).double(), 4096, 1024, window=window, pad_mode="constant", return_complex=True
        )
        found = 20 * torch.log10((filters @ z.abs()).clamp(min=1e-10))
        return found.clamp(min=float(found.max()) - 80)

    more = levels(estimate) - levels(reference)
    return float(100 / (1 + more[more > 0].mean())), float(100 / (1 - more[more < 0].mean()))


def plain(reference: Any, estimate: Any) -> tuple[float, float]:
    """SDR, and SI-SDR by least squares."""
    s, x = reference.astype(np.float64).ravel(), estimate.astype(np.float64).ravel()
    (gain,), *_ = np.linalg.lstsq(s[:, None], x, rcond=None)
    power = [np.sum(v**2) for v in (s, s - x, gain * s, x - gain * s)]
    return 10 * np.log10(power[0] / power[1]), 10 * np.log10(power[2] / power[3])


@pytest.mark.filterwarnings("ignore:Empty filters detected")
def test_agrees_with_every_oracle(song: Song, theirs: Any) -> None:
    true, given, _ = song
    frames = theirs[0]
    assert np.isnan(frames[:, [1, 2, 4]]).all() and frames.shape == (2, 6)
    found = ours(song)
    for row, one in enumerate(found):
        sdr, si_sdr = plain(true[row], given[row])
        bleedless, fullness = bleed_full(true[row], given[row], RATE)
        assert one.sdr == pytest.approx(sdr, abs=1e-6)
        assert one.si_sdr == pytest.approx(si_sdr, abs=1e-6)
        assert one.frames_sdr == pytest.approx(np.nanmedian(frames[row]), abs=1e-3)
        assert (one.bleedless, one.fullness) == (pytest.approx(bleedless, abs=0.01), pytest.approx(fullness, abs=0.01))


def test_a_whole_song_shorter_than_a_second_is_one_frame(song: Song, museval: ModuleType) -> None:
    true, given, _ = (part[..., : RATE // 2] for part in song)
    theirs = museval.bss_eval(
        true[:1].transpose(0, 2, 1), given[:1].transpose(0, 2, 1), window=RATE, hop=RATE, compute_permutation=False
    )
    assert figures(true[0], given[0], RATE).frames_sdr == pytest.approx(theirs[0][0, 0], abs=1e-3)


def test_museval_gives_its_own(song: Song, theirs: Any) -> None:
    true, given, _ = song
    sources = [{name: ArraySource(x, RATE) for name, x in zip("ab", side, strict=True)} for side in (true, given)]
    judged = dict(zip("ab", ours(song), strict=True))
    added = add_museval(judged, *sources)
    for row, one in enumerate(added.values()):
        expected = [np.nanmedian(theirs[k][row]) for k in (1, 2, 3)]
        assert [one.isr, one.sir, one.sar] == pytest.approx(expected, abs=1e-9)
        assert one.document()["sir"] is not None and "sir" not in judged["a"].document()


@pytest.mark.filterwarnings("ignore:Empty filters detected")
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_mel_filters_are_librosas(rate: int) -> None:
    theirs = librosa.filters.mel(sr=rate, n_fft=4096, n_mels=512)
    assert np.abs(mel_filters(rate, 4096, 512) - theirs).max() < 1e-6 * theirs.max()


def test_the_ideal_mask_is_sigseps(song: Song) -> None:
    """Of two sources, scipy's STFT, power: sigsep-mus-oracle's IRM with alpha 2."""
    from scipy.signal import istft, stft

    true, _, mixture = song
    made = Ideal(ArraySource(mixture, RATE), ArraySource(true[1], RATE))
    blocks = np.concatenate(list(made.blocks()), axis=1)
    assert blocks.shape == mixture.shape and (made.samples, made.channels) == (mixture.shape[1], 2)
    spectra = [stft(x.astype(np.float64), nperseg=2048)[-1] for x in (mixture, true[1], true[0])]
    powers = [np.abs(z) ** 2 for z in spectra]
    theirs = istft(spectra[0] * powers[1] / (powers[1] + powers[2] + np.finfo(float).eps))[1][:, : mixture.shape[1]]
    assert plain(theirs, blocks)[0] > 90


def _one_channel(self: Any, reference: Any, estimate: Any, real: Any = score.Match.add) -> None:
    real(self, reference[:1], estimate[:1])


MUTANTS: dict[str, tuple[str, str, Any]] = {
    "sdr": ("sdr", "Match.add", _one_channel),
    "si_sdr": ("si_sdr", "Match.si_sdr", property(lambda self: 10 * np.log10(sum(self.wanted) / sum(self.wrong)))),
    "frames_sdr": ("frames_sdr", "np.median", np.mean),
    "frames_sdr, silent seconds": ("frames_sdr", "np.all", lambda there, axis: np.ones(6, bool)),
    "bleedless": ("bleedless", "RANGE", 60.0),
    "fullness": ("fullness", "MEL", STFT(2048, 1024, 1025, 1024, 1024, "zero")),
    "fullness, mel": ("fullness", "_hertz", lambda mels: mels * (4000 / mels[-1])),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_each_figure_is_noticed(mutant: str, song: Song, monkeypatch: pytest.MonkeyPatch) -> None:
    name, place, wrong = MUTANTS[mutant]
    right = [getattr(one, name) for one in ours(song)]
    owner, _, attribute = place.rpartition(".")
    score.mel_filters.cache_clear()
    monkeypatch.setattr(getattr(score, owner) if owner else score, attribute, wrong)
    broken = [getattr(one, name) for one in ours(song)]
    score.mel_filters.cache_clear()
    assert max(abs(a - b) for a, b in zip(right, broken, strict=True)) > 0.05


def test_real_songs_agree_too(shared_audio: Path, museval: ModuleType, tolerance: float = 0.01) -> None:
    read: Callable[..., Any] = pytest.importorskip("soundfile").read
    stems = {
        p.stem: read(p, always_2d=True, dtype="float32")[0].T for p in (shared_audio / "multitrack/song4").iterdir()
    }
    vocals, mixture = stems["vocals"], stems["mixture"]
    found = figures(vocals, mixture, 44100)
    theirs = museval.bss_eval(vocals.T[None], mixture.T[None], window=44100, hop=44100, compute_permutation=False)[0]
    assert found.frames_sdr == pytest.approx(float(np.nanmedian(theirs)), abs=tolerance)
    assert (found.bleedless, found.fullness) == pytest.approx(bleed_full(vocals, mixture, 44100), abs=tolerance)
    assert (found.sdr, found.si_sdr) == pytest.approx(plain(vocals, mixture), abs=1e-5)
