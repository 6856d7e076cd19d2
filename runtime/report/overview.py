"""A song at a glance, gathered as it streams by: levels, outline and spectrogram in at most ``COLUMNS`` columns.

Memory depends on neither the song's length nor its rate by more than one spectrum per column.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from ortsep.base.arrays import C64, F32, F64
from ortsep.base.errors import AudioError
from ortsep.engine.stft import Analyser
from ortsep.models.spec import STFT

COLUMNS = 1000
BANDS = 200
LOWEST = 30.0
"""Hz where a spectrogram begins."""
_BLOCK = 1 << 16
_HANN_BINS = 1.5
_WINDOW = 0.09
"""Seconds that a spectrum's window should span, before rounding to a power of two samples: 4096 at 44.1 kHz."""


@dataclass(frozen=True)
class Overview:
    """One signal in pictures and figures. Amplitudes are of full scale 1, over all channels.

    ``low``, ``high`` and ``rms_line`` [columns] are the least and greatest sample and the RMS in equal parts of the
    signal; ``power`` [bands, columns'] is the mean in time of the power around ``frequencies`` [bands] (Hz, equal
    intervals), 1 for a sine of full scale. ``energy`` is the sum of squares over all samples and channels.
    """

    sample_rate: int
    channels: int
    samples: int
    peak: float
    energy: float
    low: F32
    high: F32
    rms_line: F64
    frequencies: F64
    power: F64

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    @property
    def rms(self) -> float:
        return math.sqrt(self.energy / (self.samples * self.channels))


class Gatherer:
    """Takes a signal in blocks and gives its ``Overview``.

    ``samples`` a channel are expected: what comes beyond them counts to the last column, what is missing as silence.
    """

    def __init__(self, samples: int, sample_rate: int, channels: int) -> None:
        self._samples, self._rate, self._channels = samples, sample_rate, channels
        self._taken = 0
        self._peak = 0.0
        columns = min(COLUMNS, samples)
        self._edges = -(-np.arange(columns, dtype=np.int64) * samples // columns)
        self._low, self._high = np.zeros((2, columns), np.float32)
        self._squares = np.zeros(columns)
        n_fft = 2 ** round(math.log2(_WINDOW * sample_rate))
        hop = min(max(samples // COLUMNS, n_fft // 16), n_fft // 2)
        half = n_fft // 2
        spec = STFT(n_fft, hop, half + 1, pad_left=half, pad_right=half, pad_mode="zero")
        self._analyser = Analyser(spec, channels, threads=1)
        self._frames = 0
        width = min(COLUMNS, max(1, samples // hop))
        self._spectra = np.zeros((width, half + 1))
        self._counts = np.zeros(width)

    def push(self, block: F32) -> None:
        """Append samples [C, n]."""
        count = block.shape[1]
        if count == 0:
            return
        block = np.ascontiguousarray(block)  # decoders' frames lie the other way, which takes ten times as long
        low, high = block.min(axis=0), block.max(axis=0)
        squares = np.square(block, dtype=np.float64).sum(axis=0)
        first = int(np.searchsorted(self._edges, self._taken, "right")) - 1
        last = int(np.searchsorted(self._edges, self._taken + count, "left"))
        at = np.maximum(self._edges[first:last] - self._taken, 0)
        here = slice(first, last)
        self._low[here] = np.minimum(self._low[here], np.minimum.reduceat(low, at))
        self._high[here] = np.maximum(self._high[here], np.maximum.reduceat(high, at))
        self._squares[here] += np.add.reduceat(squares, at)
        self._taken += count
        self._add(self._analyser.push(block))

    def finish(self) -> Overview:
        """The whole signal's overview; nothing can be pushed after."""
        if self._taken:
            self._add(self._analyser.finish())
        spec = self._analyser.spec
        frequencies, weights = log_bands(self._rate, spec.n_fft)
        means = self._spectra / np.maximum(self._counts, 1.0)[:, None]
        scale = (spec.n_fft / 4) ** 2  # of a Hann-windowed sine of amplitude 1 at its own bin
        ends = np.append(self._edges[1:], self._samples)
        return Overview(
            sample_rate=self._rate,
            channels=self._channels,
            samples=self._samples,
            peak=float(max(self._high.max(), -self._low.min())),
            energy=float(self._squares.sum()),
            low=self._low,
            high=self._high,
            rms_line=np.sqrt(self._squares / ((ends - self._edges) * self._channels)),
            frequencies=frequencies,
            power=_banded(weights, means) / scale,
        )

    def _add(self, spectra: C64) -> None:
        frames = spectra.shape[-1]
        if frames == 0:
            return
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=0, dtype=np.float64).T
        centres = np.arange(self._frames, self._frames + frames, dtype=np.int64) * self._analyser.spec.hop
        columns = np.minimum(centres * len(self._counts) // self._samples, len(self._counts) - 1)
        np.add.at(self._counts, columns, 1.0)
        starts = np.flatnonzero(np.diff(columns, prepend=-1))
        self._spectra[columns[starts]] += np.add.reduceat(power, starts, axis=0)
        self._frames += frames


def of_file(path: Path) -> Overview:
    """The overview of a sound file. Raises AudioError where it can't be read."""
    try:
        with soundfile.SoundFile(path) as file:
            gatherer = Gatherer(max(1, file.frames), file.samplerate, file.channels)
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                gatherer.push(block.T)
    except soundfile.SoundFileError as error:
        raise AudioError(f"the stem {path} can't be read back for the report ({error}); separate it again") from error
    return gatherer.finish()


def _banded(weights: F64, spectra: F64) -> F64:
    """``weights @ spectra.T`` [bands, columns]; few weights in a row are not zero, and those alone are multiplied."""
    bands = np.empty((len(weights), len(spectra)))
    for band, row in zip(bands, weights, strict=True):
        at = np.flatnonzero(row)
        part = slice(at[0], at[-1] + 1)
        np.matmul(spectra[:, part], row[part], out=band)
    return bands


def log_bands(sample_rate: int, n_fft: int) -> tuple[F64, F64]:
    """Centres [BANDS] in Hz from ``LOWEST`` to half the rate at equal intervals, and weights [BANDS, n_fft/2+1].

    Each band is the power of the bins around its centre with triangular weights, which reach to the next centre or the
    next bin, whichever is wider: where bins are sparse this interpolates between them. A sine in the middle of a band
    counts once, though a Hann window spreads it over 1.5 bins (its equivalent noise bandwidth, Harris 1978).
    """
    centres = np.geomspace(LOWEST, sample_rate / 2, BANDS)
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    reach = np.maximum(np.gradient(centres), sample_rate / n_fft)
    weights = np.maximum(0.0, 1.0 - np.abs(bins - centres[:, None]) / reach[:, None])
    return centres, weights / np.minimum(weights.sum(axis=1, keepdims=True), _HANN_BINS)
