"""The STFT against its definition in float64, and streams against the whole."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from ortsep.engine.stft import (
    Analyser,
    Synthesiser,
    as_channels,
    extended_length,
    frame_count,
    from_channels,
    istft,
    stft,
)
from ortsep.models.spec import STFT

Snr = Callable[[Any, Any], float]

FAMILIES = {
    "demucs": STFT(4096, 1024, 2048, 1536, 1536, "reflect", True, True, "constant"),
    "moises": STFT(6144, 1024, 2048, 3072, 3072, normalized=True, extend="next-hop", frame_multiple=8),
    "umx": STFT(4096, 1024, 2049, 2048, 2048),
    "umxse": STFT(1024, 512, 513, 512, 512),
    "larsnet": STFT(4096, 1024, 2048, 2048, 2048, extend="hop"),
    "spleeter": STFT(4096, 1024, 1024, 4096, 3072, "zero", True, envelope="constant"),
}


def small(spec: STFT, factor: int) -> STFT:
    """The same framing with everything ``factor`` times shorter."""
    n_fft = spec.n_fft // factor
    return replace(
        spec,
        n_fft=n_fft,
        hop=spec.hop // factor,
        bins=n_fft // 2 + 1,
        pad_left=spec.pad_left // factor,
        pad_right=spec.pad_right // factor,
    )


SMALL = {name: small(spec, 64) for name, spec in FAMILIES.items()} | {
    "uncentred": STFT(16, 4, 9, 0, 0),
    "uneven hop": STFT(16, 5, 9, 8, 8),
    "half-covered tail": STFT(24, 8, 13, 12, 4, "zero"),
    "more reflection than a frame": STFT(16, 4, 9, 40, 37, "reflect", True),
    "no overlap": STFT(8, 8, 5, 4, 4),
}


def extended(spec: STFT, samples: int) -> int:
    """By counting up, as the originals' loops do."""
    if spec.extend == "no":
        return samples
    length = samples + (1 if spec.extend == "next-hop" else 0)
    while True:
        if length % spec.hop == 0 and counted(spec, length) % spec.frame_multiple == 0:
            return length
        length += 1


def counted(spec: STFT, length: int) -> int:
    """Frames of an extended signal, by laying them out one after another."""
    total = length + spec.pad_left + spec.pad_right
    frames = 1
    while frames * spec.hop + spec.n_fft <= total or (spec.partial and (frames - 1) * spec.hop + spec.n_fft < total):
        frames += 1
    return frames


def reference(spec: STFT, x: Any) -> Any:
    """The STFT of one signal [N] by its definition: float64, a loop over frames, a matrix of exponentials."""
    length = extended(spec, len(x))
    frames = counted(spec, length)
    total = max(length + spec.pad_left + spec.pad_right, (frames - 1) * spec.hop + spec.n_fft)
    body = [float(v) for v in x] + [0.0] * (length - len(x))
    left, right = spec.pad_left, total - spec.pad_left - length
    while spec.pad_mode == "reflect" and len(body) <= max(spec.pad_left, total - spec.pad_left - length):
        if right:
            body, right = [*body, 0.0], right - 1
        else:
            body, left = [0.0, *body], left - 1
    if spec.pad_mode == "reflect":
        body = [body[i] for i in range(left, 0, -1)] + body + [body[-2 - i] for i in range(right)]
    else:
        body = [0.0] * left + body + [0.0] * right
    n = np.arange(spec.n_fft)
    window = np.sin(np.pi * n / spec.n_fft) ** 2
    matrix = np.exp(-2j * np.pi * np.outer(np.arange(spec.n_fft // 2 + 1), n) / spec.n_fft)
    columns = []
    for t in range(frames):
        columns.append(matrix @ (np.asarray(body[t * spec.hop : t * spec.hop + spec.n_fft]) * window))
    return np.stack(columns, 1) / (math.sqrt(spec.n_fft) if spec.normalized else 1.0)


def inverse(spec: STFT, z: Any, samples: int) -> Any:
    """The inverse of one spectrum [F, T] by its definition: float64, a loop over frames."""
    frames = z.shape[1]
    full = np.zeros((spec.n_fft // 2 + 1, frames), np.complex128)
    full[: len(z)] = z
    total = np.zeros(max((frames - 1) * spec.hop + spec.n_fft, spec.pad_left + samples))
    envelope = np.zeros_like(total)
    window = np.sin(np.pi * np.arange(spec.n_fft) / spec.n_fft) ** 2
    first, last = (0, frames) if spec.envelope == "frames" else (-spec.n_fft, len(total))
    for t in range(frames):
        total[t * spec.hop : t * spec.hop + spec.n_fft] += window * np.fft.irfft(full[:, t], spec.n_fft)
    for t in range(first, last):
        for i in range(spec.n_fft):
            if 0 <= t * spec.hop + i < len(total):
                envelope[t * spec.hop + i] += window[i] ** 2
    known = envelope > 1e-11
    total[known] /= envelope[known]
    total[~known] = 0.0
    return total[spec.pad_left : spec.pad_left + samples] * (math.sqrt(spec.n_fft) if spec.normalized else 1.0)


def noise(shape: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("samples", [1, 2, 7, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 100, 333])
def test_definition(name: str, samples: int, snr: Snr) -> None:
    spec = SMALL[name]
    x = noise(samples)
    expected = reference(spec, x)
    assert extended_length(spec, samples) == extended(spec, samples)
    assert frame_count(spec, samples) == expected.shape[1]
    assert stft(spec, x).dtype == np.complex128
    assert snr(expected, stft(spec, x)) > 250
    single = stft(spec, x.astype(np.float32))
    assert single.dtype == np.complex64
    assert snr(expected, single) > 120

    z = noise((2, *expected.shape), 1)[0] + 1j * noise((2, *expected.shape), 2)[1]
    z = z[: min(spec.bins, len(z))]
    back = inverse(spec, z, samples)
    if np.any(back):
        assert snr(back, istft(spec, z, samples)) > 250
        assert snr(back, istft(spec, z.astype(np.complex64), samples)) > 120
    else:
        assert not np.any(istft(spec, z, samples))


@pytest.mark.parametrize("name", ["moises", "umx", "umxse", "larsnet"])
@pytest.mark.parametrize("samples", [1, 1000, 4096, 30000])
def test_round_trip(name: str, samples: int, snr: Snr) -> None:
    spec = FAMILIES[name]
    x = noise((2, samples))
    assert snr(x, istft(spec, stft(spec, x), samples)) > 250
    x = x.astype(np.float32)
    y = istft(spec, stft(spec, x), samples)
    assert y.dtype == np.float32
    # A last sample that only the foot of a window covers is divided by next to nothing, as in the original.
    assert snr(x, y) > (110 if name == "umxse" and samples % 512 > 448 else 120)


def test_round_trip_of_spleeter(snr: Snr) -> None:
    x = noise((2, 30000)).astype(np.float32)
    spec = FAMILIES["spleeter"]
    assert frame_count(spec, 30000) == math.ceil((30000 + 4096) / 1024)
    assert snr(x, istft(spec, stft(spec, x), 30000)) > 120


def test_scipy(snr: Snr) -> None:
    x = noise((2, 20000))
    spec = FAMILIES["umx"]
    window = scipy.signal.get_window("hann", 4096, fftbins=True)
    other = scipy.signal.ShortTimeFFT(window, 1024, 44100, fft_mode="onesided", phase_shift=None)
    expected = other.stft(np.pad(x, ((0, 0), (2048, 2048)), mode="reflect"), p0=2, p1=2 + 20000 // 1024 + 1)
    assert snr(expected, stft(spec, x)) > 250


def test_batches_of_any_shape_are_rows() -> None:
    spec = SMALL["demucs"]
    x = noise((2, 3, 2, 400)).astype(np.float32)
    z = stft(spec, x)
    assert z.shape == (2, 3, 2, 33, frame_count(spec, 400))
    y = istft(spec, z[..., : spec.bins, :], 400)
    assert y.shape == x.shape
    for index in np.ndindex(2, 3, 2):
        np.testing.assert_array_equal(z[index], stft(spec, x[index]))
        np.testing.assert_array_equal(y[index], istft(spec, z[index][: spec.bins], 400))
    assert stft(spec, x[:0]).shape == (0, *z.shape[1:])
    assert istft(spec, z[:0], 400).shape == (0, 3, 2, 400)


def test_views_integers_and_half_precision() -> None:
    spec = SMALL["umx"]
    x = noise((800, 2)).astype(np.float32)
    np.testing.assert_array_equal(stft(spec, x.T[:, ::2]), stft(spec, np.ascontiguousarray(x.T[:, ::2])))
    whole = (x * 1000).astype(np.int16)
    np.testing.assert_array_equal(stft(spec, whole.T), stft(spec, whole.T.astype(np.float32)))
    half = as_channels(stft(spec, x.T)).astype(np.float16)
    assert istft(spec, half, 800).dtype == np.float32
    z = stft(spec, x.T)
    swapped = np.ascontiguousarray(z.swapaxes(1, 2)).swapaxes(1, 2)
    np.testing.assert_array_equal(istft(spec, swapped, 800), istft(spec, z, 800))


@pytest.mark.parametrize("name", FAMILIES)
def test_silence_is_silence(name: str) -> None:
    spec = FAMILIES[name]
    z = stft(spec, np.zeros((2, 9000), np.float32))
    assert not np.any(z)
    y = istft(spec, z, 9000)
    assert y.shape == (2, 9000)
    assert not np.any(y)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_samples(name: str) -> None:
    z = stft(FAMILIES[name], np.zeros((2, 0), np.float32))
    assert z.shape[-1] == frame_count(FAMILIES[name], 0) >= 1
    assert istft(FAMILIES[name], z, 0).shape == (2, 0)


def test_channels() -> None:
    z = (noise((3, 2, 5, 7)) + 1j * noise((3, 2, 5, 7), 1)).astype(np.complex64)
    planes = as_channels(z)
    assert planes.shape == (3, 4, 5, 7)
    assert planes.dtype == np.float32
    expected = np.stack([z[:, 0].real, z[:, 0].imag, z[:, 1].real, z[:, 1].imag], 1)
    np.testing.assert_array_equal(planes, expected)
    np.testing.assert_array_equal(from_channels(planes), z)
    assert from_channels(planes).dtype == np.complex64
    spec = STFT(16, 4, 5, 8, 8)
    np.testing.assert_array_equal(istft(spec, planes, 24), istft(spec, z, 24))


@pytest.mark.parametrize("name", ["demucs", "moises", "umxse"])
def test_threads_change_nothing(name: str) -> None:
    spec = FAMILIES[name]
    x = noise((2, 90000)).astype(np.float32)
    z = stft(spec, x, threads=1)
    y = istft(spec, z[:, : spec.bins], 90000, threads=1)
    for threads in (2, 3, 8, None):
        np.testing.assert_array_equal(stft(spec, x, threads=threads), z)
        np.testing.assert_array_equal(istft(spec, z[:, : spec.bins], 90000, threads=threads), y)


def blocks(draw: st.DrawFn, total: int, longest: int) -> list[int]:
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(draw(st.integers(0 if len(sizes) < 9 else 1, longest)), total - sum(sizes)))
    return sizes


@given(data=st.data(), name=st.sampled_from(sorted(SMALL)), samples=st.integers(0, 700), known=st.booleans())
@settings(max_examples=300, deadline=None)
def test_streams_equal_the_whole(data: st.DataObject, name: str, samples: int, known: bool) -> None:
    spec = SMALL[name]
    x = noise((2, samples), samples).astype(np.float32)
    whole = stft(spec, x)

    analyser, parts, position = Analyser(spec, 2), [], 0
    for size in data.draw(st.composite(blocks)(samples, data.draw(st.sampled_from([9, 70, 700])))):
        parts.append(analyser.push(x[:, position : position + size]))
        position += size
    parts.append(analyser.finish())
    np.testing.assert_array_equal(np.concatenate(parts, -1), whole)
    assert analyser.samples == samples
    assert analyser.frames == whole.shape[-1]
    assert all(part.dtype == np.complex64 for part in parts)

    z = np.stack([whole, whole[::-1] * 2j])[:, :, : spec.bins]
    expected = istft(spec, z, samples)
    synthesiser = Synthesiser(spec, (2, 2), samples if known else None)
    outputs, frame = [], 0
    for size in data.draw(st.composite(blocks)(z.shape[-1], data.draw(st.sampled_from([2, 9, 200])))):
        part = z[..., frame : frame + size]
        outputs.append(synthesiser.push(as_channels(part) if frame % 2 else part))
        frame += size
    outputs.append(synthesiser.finish(None if known else samples))
    np.testing.assert_array_equal(np.concatenate(outputs, -1), expected)
    assert synthesiser.done == samples


@pytest.mark.parametrize("name", FAMILIES)
def test_streams_are_prompt_and_flat(name: str) -> None:
    """A stream holds back no more than padding and a few frames, however long the song."""
    spec = FAMILIES[name]
    analyser, synthesiser = Analyser(spec, 1), Synthesiser(spec, (1,))
    slack = spec.n_fft + spec.pad_left + spec.pad_right + (spec.frame_multiple + 3) * spec.hop
    x = noise((1, 40 * spec.hop)).astype(np.float32)
    for block in range(12):
        synthesiser.push(analyser.push(x))
        assert analyser.samples == (block + 1) * x.shape[1]
        assert analyser.samples - synthesiser.done <= slack
        held = analyser._held.shape[1] + synthesiser._open[0].size + synthesiser._ready.shape[1]
        assert held <= 2 * slack


def test_a_synthesiser_must_learn_the_length() -> None:
    with pytest.raises(ValueError, match="number of samples"):
        Synthesiser(FAMILIES["umx"], (2,)).finish()


@given(
    spec=st.builds(
        STFT,
        n_fft=st.sampled_from([8, 12, 20, 32]),
        hop=st.integers(1, 8),
        bins=st.just(5),
        pad_left=st.integers(0, 32),
        pad_right=st.integers(0, 32),
        pad_mode=st.sampled_from(["reflect", "zero"]),
        partial=st.booleans(),
        normalized=st.booleans(),
        envelope=st.sampled_from(["frames", "constant"]),
        extend=st.sampled_from(["no", "hop", "next-hop"]),
        frame_multiple=st.integers(1, 5),
    ),
    samples=st.integers(1, 90),
    cut=st.integers(0, 90),
)
@settings(max_examples=300, deadline=None)
def test_any_spec_and_length_is_well_defined(spec: STFT, samples: int, cut: int) -> None:
    x = noise(samples, samples)
    expected = reference(spec, x)
    z = stft(spec, x)
    np.testing.assert_allclose(z, expected, atol=1e-12)
    back = istft(spec, z[:5], samples)
    np.testing.assert_allclose(back, inverse(spec, z[:5], samples), atol=1e-11, rtol=1e-4)
    analyser = Analyser(spec, 1)
    parts = [analyser.push(x[None, :cut]), analyser.push(x[None, cut:]), analyser.finish()]
    np.testing.assert_array_equal(np.concatenate(parts, -1)[0], z)
    synthesiser = Synthesiser(spec, (), dtype=np.float64)
    outputs = [synthesiser.push(z[:5, :cut]), synthesiser.push(z[:5, cut:]), synthesiser.finish(samples)]
    np.testing.assert_array_equal(np.concatenate(outputs, -1), back)
