"""The spectrum that is stacked of several bands (``models.bands``), and the way back, both streamed in constant memory.

Spectra are complex64 [..., C, F, T] of two channels, signals float32 [..., C, N]. What the transform leaves out - bins
outside the crops, the pre-filter's - is lost: a mask of one does not give the song back.

Definitions: UVR's spec_utils.py (``combine_spectrograms``, ``cmb_spectrogram_to_wave``, ``fft_lp_filter``,
``get_lp_filter_mask`` and their kin), whose resampling between bands is scipy's ``resample_poly``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import C64, F32, F64, Array
from ortsep.engine.polyphase import Polyphase
from ortsep.engine.stft import Analyser, Synthesiser
from ortsep.models.bands import MATRICES, Band, Bands
from ortsep.models.spec import STFT


def transform_of(band: Band) -> STFT:
    """One band's STFT: ``librosa.stft`` with its defaults."""
    half = band.n_fft // 2
    return STFT(band.n_fft, band.hop, half + 1, pad_left=half, pad_right=half, pad_mode="zero")


def band_frames(bands: Bands, samples: int) -> int:
    """Frames of the stacked spectrum of a song: those that all bands have."""
    frames, band = 1 << 62, bands.bands[-1]
    for lower in reversed(bands.bands):
        samples = -(-samples * lower.rate // band.rate)
        frames, band = min(frames, 1 + samples // lower.hop), lower
    return frames


def heard_samples(bands: Bands, samples: int) -> int:
    """How many samples of a song and of zeros behind it are heard: a hop at least, or nothing would come back."""
    return max(samples, bands.hop)


@dataclass(frozen=True)
class Frames:
    """Frames of a song's stacked spectrum [C, F, t], and of what its highest band has above it [C, H, t]."""

    stacked: C64
    above: C64

    @property
    def count(self) -> int:
        return int(self.stacked.shape[-1])


class BandAnalyser:
    """The stacked spectrum of a song [2, N] that comes in blocks."""

    def __init__(self, bands: Bands, *, threads: int | None = None) -> None:
        self.bands = bands
        self.samples = 0
        self._analysers = [Analyser(transform_of(band), 2, threads=threads) for band in bands.bands]
        self._down = _resamplers(bands, 2, upwards=False)
        self._parts = [np.zeros((2, 0, 0), np.complex64) for _ in range(len(bands.bands) + 1)]
        self._gains = prefilter_gains(bands)

    def push(self, block: F32) -> Frames:
        """Take samples [2, n]; return the frames that they complete in all bands, perhaps none."""
        self.samples += block.shape[-1]
        for index in range(len(self._analysers) - 1, -1, -1):
            self._hear(index, self._analysers[index].push(block))
            if index and (down := self._down[index - 1]) is not None:
                block = down.push(block)
        return self._taken()

    def finish(self) -> Frames:
        """Return the last frames. Nothing can be pushed after."""
        if (lacking := heard_samples(self.bands, self.samples) - self.samples) > 0:
            before = self.push(np.zeros((2, lacking), np.float32))
            assert not before.count  # a hop has no frame before its end
        rest = np.zeros((2, 0), np.float32)
        for index in range(len(self._analysers) - 1, -1, -1):
            analyser = self._analysers[index]
            self._hear(index, analyser.push(rest))
            self._hear(index, analyser.finish())
            if index and (down := self._down[index - 1]) is not None:
                rest = np.concatenate((down.push(rest), down.finish()), -1)
        return self._taken()

    def _hear(self, index: int, spectrum: C64) -> None:
        band = self.bands.bands[index]
        self._keep(index, mixed(MATRICES[band.channels], spectrum[:, band.start : band.stop]))
        if index == len(self._analysers) - 1:
            last = band.n_fft // 2
            self._keep(-1, mixed(MATRICES[band.channels], spectrum[:, last - self.bands.mirrored : last]))

    def _keep(self, index: int, part: C64) -> None:
        held = self._parts[index]
        self._parts[index] = np.concatenate((held, part), -1) if held.shape[-1] else part

    def _taken(self) -> Frames:
        count = min(part.shape[-1] for part in self._parts)
        stacked = np.zeros((2, count, self.bands.bins), np.complex64).swapaxes(1, 2)
        row = 0
        for index, part in enumerate(self._parts[:-1]):
            stacked[:, row : row + part.shape[1]] = part[..., :count]
            row += part.shape[1]
            self._parts[index] = part[..., count:]
        above, self._parts[-1] = self._parts[-1][..., :count], self._parts[-1][..., count:]
        if self._gains is not None:
            stacked *= self._gains[:, None]
        return Frames(stacked, above)


class BandSynthesiser:
    """Stems' signals [S, 2, ...] from their stacked spectra; ``frames`` are known beforehand.

    They end hop * (frames - 1) samples from the song's start, as ``librosa.istft`` has it, up to a hop before its end.
    """

    def __init__(self, bands: Bands, stems: int, frames: int, *, threads: int | None = None) -> None:
        self.bands = bands
        self._stems = stems
        self._inverses = [
            Synthesiser(transform_of(band), (stems, 2), band.hop * (frames - 1), threads=threads)
            for band in bands.bands
        ]
        self._up = _resamplers(bands, 2 * stems, upwards=True)
        self._gains = [ramps(band) for band in bands.bands]
        self._sums = [_Sum() for _ in bands.bands]

    def push(self, stacked: C64, above: C64 | None = None) -> F32:
        """Take frames [S, 2, F, t], and what to put above them into the highest band; return samples [S, 2, n]."""
        row, lower = 0, None
        for index, band in enumerate(self.bands.bands):
            part = stacked[:, :, row : row + band.stop - band.start]
            row += part.shape[2]
            top = above if index == len(self.bands.bands) - 1 else None
            wave = self._sound(index, self._inverses[index].push(self._placed(index, part, top)))
            lower = self._joined(index, wave, lower, last=False)
        assert lower is not None
        return lower

    def finish(self) -> F32:
        """Return the rest. Nothing can be pushed after."""
        lower = None
        for index, inverse in enumerate(self._inverses):
            lower = self._joined(index, self._sound(index, inverse.finish()), lower, last=True)
        assert lower is not None
        return lower

    def _placed(self, index: int, part: C64, above: C64 | None) -> C64:
        """A band's spectrum from DC up to where it has something, [S, 2, F, t]."""
        band = self.bands.bands[index]
        bins = band.stop if above is None else band.n_fft // 2
        spectrum = np.zeros((self._stems, 2, part.shape[-1], max(bins, band.stop)), np.complex64).swapaxes(2, 3)
        spectrum[:, :, band.start : band.stop] = part
        if above is not None:
            spectrum[:, :, bins - above.shape[2] : bins] = above
        spectrum *= self._gains[index][: spectrum.shape[2], None]
        return spectrum

    def _sound(self, index: int, wave: F32) -> F32:
        inverse = np.linalg.inv(np.array(MATRICES[self.bands.bands[index].channels]))
        sound: F32 = mixed(tuple(map(tuple, inverse.tolist())), wave)
        return sound

    def _joined(self, index: int, wave: F32, lower: F32 | None, *, last: bool) -> F32:
        """A band's samples and those of all lower ones, as far as both have come."""
        if lower is None:
            return wave
        up = self._up[index - 1]
        if up is not None:
            flat = lower.reshape(2 * self._stems, -1)
            flat = np.concatenate((up.push(flat), up.finish()), -1) if last else up.push(flat)
            lower = flat.reshape(self._stems, 2, -1)
        return self._sums[index].add(wave, lower)


class _Sum:
    """Two streams [S, 2, n] whose blocks differ in length, added."""

    def __init__(self) -> None:
        self._held: list[F32 | None] = [None, None]

    def add(self, *blocks: F32) -> F32:
        whole = [
            block if held is None else np.concatenate((held, block), -1)
            for held, block in zip(self._held, blocks, strict=True)
        ]
        count = min(part.shape[-1] for part in whole)
        self._held = [part[..., count:] for part in whole]
        total: F32 = whole[0][..., :count] + whole[1][..., :count]
        return total


def mixed(matrix: tuple[tuple[float, ...], ...], x: Array) -> Array:
    """A 2 by 2 ``matrix`` times the channels of [..., 2, F, T] spectra or [..., 2, N] signals."""
    if matrix == MATRICES["left_right"]:
        return x
    axis = x.ndim - (3 if np.iscomplexobj(x) else 2)
    first, second = np.take(x, 0, axis), np.take(x, 1, axis)
    rows = [first * np.float32(a) + second * np.float32(b) for a, b in matrix]
    return np.stack(rows, axis)


def band_peak(bands: Bands, blocks: Iterable[F32]) -> float:
    """The greatest magnitude of a song's stacked spectrum, by which a network's input is divided; 1 for silence."""
    analyser, peak = BandAnalyser(bands, threads=1), 0.0
    for block in blocks:
        peak = max(peak, _greatest(analyser.push(block)))
    return max(peak, _greatest(analyser.finish())) or 1.0


def _greatest(frames: Frames) -> float:
    return float(np.abs(frames.stacked).max()) if frames.count else 0.0


def band_spectrum(bands: Bands, mix: F32) -> C64:
    """The stacked spectrum of a whole song [2, N]: [2, F, T]."""
    analyser = BandAnalyser(bands)
    parts = [analyser.push(mix).stacked, analyser.finish().stacked]
    return np.concatenate(parts, -1)


def band_wave(bands: Bands, spectra: C64) -> F32:
    """The signals [S, 2, hop (T - 1)] of stacked spectra [S, 2, F, T]."""
    synthesiser = BandSynthesiser(bands, len(spectra), spectra.shape[-1])
    return np.concatenate((synthesiser.push(spectra), synthesiser.finish()), -1)


def _resamplers(bands: Bands, rows: int, *, upwards: bool) -> list[Polyphase | None]:
    """Between each band and the one above it; None where both have one rate."""
    rates = [(lower.rate, upper.rate) for lower, upper in zip(bands.bands, bands.bands[1:], strict=False)]
    return [
        None if lower == upper else Polyphase(*((lower, upper) if upwards else (upper, lower)), rows)
        for lower, upper in rates
    ]


@lru_cache(maxsize=32)
def ramps(band: Band) -> F32:
    """What a band's bins are multiplied with on the way back, [n_fft/2 + 1]."""
    at = np.arange(band.n_fft // 2 + 1)
    gains = np.ones(len(at))
    if band.rise:
        top, low = band.rise[0], band.rise[1] - 1
        gains *= np.clip((at - low - 1) / max(1, top - low), 0, 1)
    if band.fall:
        gains *= _fall(at, *band.fall)
    return gains.astype(np.float32)


def prefilter_gains(bands: Bands) -> F32 | None:
    """What the stacked rows are multiplied with before the network hears them, [F]; None where nothing is."""
    if not bands.prefilter:
        return None
    first, last = bands.prefilter
    if not bands.steep:
        return _fall(np.arange(bands.bins), first, last).astype(np.float32)
    gains, former = np.ones(bands.bins), 1.0
    for row in range(first + 1, min(last, bands.bins)):  # each gain's exponent has the former gain in it
        former = 10.0 ** (-(row - first) * (3.5 - former) / 20)
        gains[row] = former
    return gains.astype(np.float32)


def _fall(at: npt.NDArray[np.int64], first: int, last: int) -> F64:
    """Ones below bin ``first``, zeros from ``last`` on, and in between a line that begins one step down."""
    inside = 1 - (at - first + 1) / max(1, last - first)
    return np.where(at >= last, 0.0, np.where(at < first, 1.0, inside))
