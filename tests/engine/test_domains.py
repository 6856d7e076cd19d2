"""What a graph hears and what its outputs mean, against transforms written out here in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import changed, faked, scaled, song

from ortsep.audio.sources import ArraySource
from ortsep.models.spec import STFT, Blocks, Chunks, Filter, Normalization

N_FFT, HOP, BINS = 256, 64, 120
N = 64 * 30
"""Samples of the one chunk: the transforms are then of the whole song."""
Snr = Callable[[Any, Any], float]


def window(kind: str) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT) if kind == "hann" else np.ones(N_FFT)


def transform(x: np.ndarray, kind: str) -> np.ndarray:
    """Centred STFT [C, F, T], frame by frame."""
    padded = np.pad(x, ((0, 0), (N_FFT // 2, N_FFT // 2)), mode="reflect")
    frames = [padded[:, at : at + N_FFT] * window(kind) for at in range(0, padded.shape[1] - N_FFT + 1, HOP)]
    return np.stack([np.fft.rfft(frame) for frame in frames], axis=-1)


def inverse(z: np.ndarray, kind: str) -> np.ndarray:
    """Least squares from [C, F, T], bins above F zero."""
    z = np.pad(z, ((0, 0), (0, N_FFT // 2 + 1 - z.shape[1]), (0, 0)))
    length = N + N_FFT
    total, squares = np.zeros((len(z), length)), np.zeros(length)
    for t in range(z.shape[-1]):
        total[:, t * HOP : t * HOP + N_FFT] += np.fft.irfft(z[..., t], N_FFT) * window(kind)
        squares[t * HOP : t * HOP + N_FFT] += window(kind) ** 2
    return (total / np.maximum(squares, 1e-12))[:, N_FFT // 2 : N_FFT // 2 + N]


def spec(
    output: str, *, domain: str = "complex", kind: Any = "hann", before: int = 0, after: int = 0, **more: Any
) -> Any:
    stft = STFT(N_FFT, HOP, BINS, N_FFT // 2, N_FFT // 2, window=kind, zero_before=before, zero_after=after)
    return changed(domain=domain, output=output, stft=stft, chunks=Chunks(N, overlap=0.0), **more)


def channels(z: np.ndarray) -> np.ndarray:
    """[C, F, T] as [2C, F, T]."""
    return np.stack([z.real, z.imag], axis=1).reshape(-1, *z.shape[1:])


@pytest.mark.parametrize("kind", ["hann", "ones"])
@pytest.mark.parametrize("output", ["masks", "part_masks", "stem_spectra"])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (3, 0), (0, 1), (2, 5)])
def test_outputs_of_complex_graphs(output: str, kind: str, before: int, after: int, snr: Snr) -> None:
    rng = np.random.default_rng(7)
    shape = (2, 2, BINS, N // HOP + 1)
    given = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    separator, session = faked(
        spec(output, kind=kind, before=before, after=after),
        lambda spectrum: np.stack([channels(z) for z in given])[None],
    )
    x = song(N)
    heard = transform(x.astype(np.float64), kind)[:, :BINS]
    heard[:, :before] = 0
    made = {
        "masks": lambda m: m * heard,
        "part_masks": lambda m: m.real * heard.real + 1j * m.imag * heard.imag,
        "stem_spectra": lambda m: m.astype(np.complex128).copy(),
    }[output]
    stems = separator.separate(x)
    assert snr(channels(heard), session.heard[0]["spectrum"][0]) > 120
    for stem, mask in zip(("a", "b"), given, strict=True):
        z = made(mask)
        z[:, :after] = 0
        assert snr(inverse(z, kind), stems[stem]) > 120


def test_zeroed_bins_of_hybrid_graphs(snr: Snr) -> None:
    separator, session = faked(
        spec("hybrid", domain="hybrid", before=2, after=4),
        lambda mix, spectrum: (scaled(0.5, 0.25)(mix), np.stack([spectrum, 2 * spectrum], axis=1)),
    )
    x = song(N)
    stems = separator.separate(x)
    z = transform(x.astype(np.float64), "hann")[:, :BINS]
    z[:, :4] = 0
    assert (
        np.abs(session.heard[0]["spectrum"][0, :, :2]).max() == 0 < np.abs(session.heard[0]["spectrum"][0, :, 2]).max()
    )
    assert snr(0.5 * x + inverse(z, "hann"), stems["a"]) > 120
    assert snr(0.25 * x + inverse(2 * z, "hann"), stems["b"]) > 120


def test_zeroed_bins_of_magnitude_graphs(snr: Snr) -> None:
    stft = STFT(N_FFT, HOP, BINS, N_FFT // 2, N_FFT // 2, zero_before=3, zero_after=5)
    made = changed(domain="magnitude", output="masks", stft=stft, chunks=None, blocks=Blocks(16), filter=Filter("mask"))
    separator, session = faked(made, lambda magnitude: np.stack([0 * magnitude + 0.5, 0 * magnitude + 0.25], axis=1))
    x = song(N)
    z = transform(x.astype(np.float64), "hann")[:, :BINS]
    stems = separator.separate(x)
    blocks = [each["magnitude"][0] for each in session.heard]  # in any order: two run at a time
    assert max(np.abs(block[:, :3]).max() for block in blocks) == 0
    assert max(snr(np.abs(z[:, 3:, :16]), block[:, 3:]) for block in blocks if block.shape[2] == 16) > 100
    z[:, :5] = 0
    assert snr(inverse(0.5 * z, "hann"), stems["a"]) > 110


@pytest.mark.parametrize(("ddof", "eps"), [(0, 0.0), (1, 0.0), (1, 1e-5), (0, 0.1)])
@pytest.mark.parametrize("samples", [1, 2, 700, 5000])
def test_a_song_is_standardised_as_a_whole(ddof: int, eps: float, samples: int, snr: Snr) -> None:
    normalization = Normalization("track", eps, ddof)
    separator, session = faked(changed(normalization=normalization, chunks=Chunks(700, overlap=0.0)), scaled(1.0, 0.5))
    x = song(samples) + np.float32(0.2)
    mono = x.astype(np.float64).mean(axis=0)
    deviation = (mono.std(ddof=ddof) if samples > 1 else 0.0) + eps or 1.0
    stems = dict(zip("ab", np.concatenate(list(separator.stream(ArraySource(x, 8000))), axis=-1), strict=True))
    heard = np.concatenate([run["mix"][0] for run in session.heard], axis=-1)
    start = max(0, (700 - samples) // 2)  # a short song is centred in its chunk
    count = min(samples, 700)
    expected = (x - mono.mean()) / deviation
    assert snr(expected[:, :count] + 1e-9, heard[:, start : start + count] + 1e-9) > 100
    assert snr(0.5 * x + 0.5 * mono.mean(), stems["b"]) > 100


@pytest.mark.parametrize("kind", ["track", "spectrum"])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_silence_is_standardised_without_a_nan(kind: Any, eps: float) -> None:
    made = spec("stem_spectra", normalization=Normalization(kind, eps, 0))
    separator, session = faked(made, lambda spectrum: np.stack([spectrum, spectrum], axis=1))
    for samples in (1, N, 3 * N):
        for stem in separator.separate(np.zeros((2, samples), np.float32)).values():
            assert np.isfinite(stem).all() and np.abs(stem).max() < 1e-6
    assert all(np.isfinite(run["spectrum"]).all() for run in session.heard)


def test_spleeters_wiener_filter_is_norberts(snr: Snr) -> None:
    """``spleeter --mwf``: ``norbert.wiener(v, x)`` over the whole track, whatever the blocks are."""
    norbert = pytest.importorskip("norbert")
    stft = STFT(N_FFT, HOP, BINS, N_FFT // 2, N_FFT // 2)
    made = changed(
        domain="magnitude", output="stem_magnitudes", stft=stft, chunks=None, blocks=Blocks(16), filter=Filter("ratio")
    )
    slope = np.linspace(0.1, 2, BINS, dtype=np.float32)[:, None]
    separator, _ = faked(made, lambda magnitude: np.stack([magnitude * slope, magnitude**0.5 + 0.1], axis=1))
    x = song(N)
    z = transform(x.astype(np.float64), "hann")
    seen = np.abs(z[:, :BINS])
    v = np.zeros((z.shape[2], z.shape[1], 2, 2))
    v[:, :BINS] = np.stack([seen * slope, seen**0.5 + 0.1], axis=-1).transpose(2, 1, 0, 3)
    y = norbert.wiener(v, z.transpose(2, 1, 0).copy(), eps=np.finfo(np.float32).eps)
    stems = separator.separate(x, wiener=True)
    for k, stem in enumerate(("a", "b")):
        assert snr(inverse(y[..., k].transpose(2, 1, 0), "hann"), stems[stem]) > 100


@pytest.mark.parametrize(("rest", "others"), [(True, (0.2, 0.5)), (False, (0.2,))])
def test_the_rest_takes_part_in_the_filter_unseen(rest: bool, others: tuple[float, ...], snr: Snr) -> None:
    """One iteration on shares of the mixture itself is their powers' ratio: all covariances are alike then.

    Two of three stems are asked for, 0.3 and 0.2 of the mixture; the rest is 0.5.
    """
    stft = STFT(N_FFT, HOP, BINS, N_FFT // 2, N_FFT // 2)
    how = {"stft": stft, "blocks": Blocks(64), "filter": Filter("wiener", iterations=1, window=500, eps=1e-10)}
    made = changed(domain="magnitude", output="stem_magnitudes", chunks=None, stems=("a", "b", "c"), **how)
    separator, _ = faked(made, lambda magnitude: np.stack([k * magnitude for k in (0.3, 0.2, 0.9)], axis=1))
    mono = song(N)[:1].repeat(2, axis=0)
    found = separator.separate(mono, stems=("a", "b"), rest=rest)["a"]
    z = transform(mono.astype(np.float64), "hann")
    z[:, BINS:] = 0
    share = 0.3**2 / sum(part**2 for part in (0.3, *others))
    assert snr(inverse(share * z, "hann"), found) > 35
