"""How near separated stems come to the true ones: the figures of papers and leaderboards, in numpy, block by block.

All are of a stem's reference s and estimate x [C, N], taken over both channels together, in float64:

- SDR: 10*log10(sum(s^2) / sum((s - x)^2)) over the whole of both, as MDX challenges and MVSep's leaderboards take it;
- SI-SDR (Le Roux et al., ICASSP 2019, without removal of means): s scaled by <x,s>/<s,s> first, so that gain is free;
- frames SDR: the median over seconds of BSS Eval v4's SDR, as ``museval`` 0.4 gives it (Stöter et al., LVA/ICA 2018).
  Its filters cancel out of the SDR of images. A second in which any stem's reference or estimate is silent (the sum of
  its channels zero throughout) counts for no stem, a last second that is not whole for none either;
- bleedless and fullness (MVSep; ``bleed_full`` in MSST's utils/metrics.py): what the estimate's mel spectrogram has too
  much of, and lacks, against the reference's. Levels in dB of 512 mel bands (Slaney's, of magnitudes; 4096 points, hop
  1024), cut 80 dB below the loudest of the clip; 100 / (1 + mean dB) over the points that are too loud, or too soft.

A figure is None where it is undefined: all of a silent reference, SI-SDR and frames of a silent estimate too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ortsep.audio.sources import ArraySource, Source, as_mixture, as_rate
from ortsep.base.arrays import F32, F64
from ortsep.base.decibels import ratio
from ortsep.base.errors import AudioError
from ortsep.base.scratch import Scratch
from ortsep.base.threads import closed
from ortsep.engine.stft import Analyser
from ortsep.models.spec import STFT

MEL = STFT(4096, 1024, 2049, pad_left=2048, pad_right=2048, pad_mode="zero")
BANDS = 512
RANGE = 80.0
"""dB below the loudest point at which levels are cut."""
LEAST = 1e-10
"""Magnitude that counts as silence."""
BEST = 300.0
"""dB that are given where nothing at all is wrong."""


@dataclass(frozen=True)
class Figures:
    """What one estimate of one stem reached: dB, and for bleedless and fullness 0 to 100; more is better in all."""

    sdr: float | None = None
    si_sdr: float | None = None
    frames_sdr: float | None = None
    bleedless: float | None = None
    fullness: float | None = None
    isr: float | None = None
    """These three, image to spatial distortion, source to interference and to artefacts, are museval's."""
    sir: float | None = None
    sar: float | None = None

    def document(self) -> dict[str, float | None]:
        """The figures for JSON, without museval's where it was not asked."""
        rounded = {name: None if v is None else round(v, 4) for name, v in asdict(self).items()}
        extra = any(rounded[name] is not None for name in ("isr", "sir", "sar"))
        return {name: v for name, v in rounded.items() if extra or name not in ("isr", "sir", "sar")}


@dataclass
class Match:
    """What is summed of a reference and an estimate: energies of each second, and what no sum of seconds gives."""

    wanted: list[float] = field(default_factory=list)
    """Energy of the reference, a second each; the last one may be shorter."""
    wrong: list[float] = field(default_factory=list)
    """Energy of the difference."""
    heard: list[bool] = field(default_factory=list)
    """Whether neither is silent."""
    product: float = 0.0
    estimated: float = 0.0
    """Energy of the estimate."""
    bleedless: float = 100.0
    fullness: float = 100.0

    def add(self, reference: F64, estimate: F64) -> None:
        """Count a second [C, n] of both."""
        self.wanted.append(float(np.sum(reference**2)))
        self.wrong.append(float(np.sum((reference - estimate) ** 2)))
        self.heard.append(bool(reference.sum(axis=0).any() and estimate.sum(axis=0).any()))
        self.product += float(np.sum(reference * estimate))
        self.estimated += float(np.sum(estimate**2))

    @property
    def silent(self) -> bool:
        """Whether the reference is."""
        return not sum(self.wanted)

    @property
    def si_sdr(self) -> float | None:
        power = sum(self.wanted)
        if not power or not self.estimated:
            return None
        kept = self.product**2 / power
        return _decibels(kept, max(0.0, self.estimated - kept))


def figures(reference: npt.ArrayLike, estimate: npt.ArrayLike, sample_rate: int) -> Figures:
    """All figures of one stem, from arrays [N], [C, N] or [N, C] at ``sample_rate`` Hz.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).standard_normal((2, 44100)) * 0.1
    >>> round(figures(noise, 0.5 * noise, 44100).sdr, 3)
    6.021

    Raises AudioError for what is no audio, or for arrays of different shapes.
    """
    rate = as_rate(sample_rate)
    both = [ArraySource(as_mixture(array)[0], rate) for array in (reference, estimate)]
    if both[0].data.shape != both[1].data.shape:
        shapes = [list(source.data.shape) for source in both]
        raise AudioError(f"the reference has the shape {shapes[0]} and the estimate {shapes[1]}; give both alike")
    return judge({"stem": match(both[0], {"": both[1]})[""]}, both[0].samples, rate)["stem"]


def judge(matches: Mapping[str, Match], samples: int, sample_rate: int) -> dict[str, Figures]:
    """The figures of all stems of one song by one separator; together because of the silent seconds."""
    count = max(1, samples // sample_rate)
    there = [m.heard[:count] for m in matches.values() if not m.silent and m.estimated]
    heard = np.all(there, axis=0) if there else np.zeros(count, bool)
    result = {}
    for stem, m in matches.items():
        if m.silent:
            result[stem] = Figures()
            continue
        frames = [_decibels(s, e) for s, e, h in zip(m.wanted, m.wrong, heard, strict=False) if h]
        median = float(np.median(frames)) if frames and m.estimated else None
        whole = _decibels(sum(m.wanted), sum(m.wrong))
        result[stem] = Figures(whole, m.si_sdr, median, m.bleedless, m.fullness)
    return result


def match(reference: Source, estimates: Mapping[str, Source]) -> dict[str, Match]:
    """Compare one stem's reference with its estimates by several separators; all alike in rate, channels, length.

    Memory does not grow with the song; the mel levels, which are cut by the loudest, wait on disk: 0.63 GB an hour of
    stereo for each signal. Raises AudioError where a source can't be read, OutputError where the disk is full.
    """
    rate, made = reference.sample_rate, {name: Match() for name in estimates}
    with ExitStack() as stack:
        levels = [stack.enter_context(Levels(reference.channels, rate)) for _ in range(1 + len(made))]
        sources = [reference, *estimates.values()]
        blocks = [stack.enter_context(closed(seconds(source))) for source in sources]
        for signals in zip(*blocks, strict=True):
            for signal, level in zip(signals, levels, strict=True):
                level.push(signal)
            exact = [signal.astype(np.float64) for signal in signals]
            for counted, estimate in zip(made.values(), exact[1:], strict=True):
                counted.add(exact[0], estimate)
        for level in levels:
            level.finish()
        for counted, level in zip(made.values(), levels[1:], strict=True):
            counted.bleedless, counted.fullness = compare_levels(levels[0], level)
    return made


def seconds(source: Source) -> Iterator[F32]:
    """The samples of a source second by second, [C, rate], the last one shorter."""
    size, held, count = source.sample_rate, list[F32](), 0
    with closed(source.blocks()) as blocks:
        for block in blocks:
            held.append(block)
            count += block.shape[1]
            if count >= size:
                joined = np.concatenate(held, axis=1)
                whole = count - count % size
                for at in range(0, whole, size):
                    yield joined[:, at : at + size]
                held, count = [joined[:, whole:]], count - whole
    if count:
        yield np.concatenate(held, axis=1)


class Levels:
    """The mel levels of a signal that comes in blocks, in dB, kept on disk; ``peak`` is the loudest of all."""

    def __init__(self, channels: int, sample_rate: int) -> None:
        self.peak = -math.inf
        self._filters = mel_filters(sample_rate, MEL.n_fft, BANDS)
        self._analyser = Analyser(MEL, channels)
        self._file = Scratch("the levels of a stem")
        self._channels, self._frames = channels, 0

    def __enter__(self) -> "Levels":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def push(self, block: F32) -> None:
        self._keep(self._analyser.push(block))

    def finish(self) -> None:
        self._keep(self._analyser.finish())

    def _keep(self, spectrum: npt.NDArray[np.complex64]) -> None:
        if not spectrum.shape[-1]:
            return
        bands = np.maximum(self._filters @ np.abs(spectrum), np.float32(LEAST))
        levels = 20 * np.log10(bands, dtype=np.float32)
        self.peak = max(self.peak, float(levels.max()))
        self._file.write(4 * self._frames * self._channels * BANDS, levels.transpose(2, 0, 1))
        self._frames += levels.shape[-1]

    def blocks(self, frames: int = 256) -> Iterator[F32]:
        """The levels, cut ``RANGE`` below the peak: [t, C, M] of up to so many frames at a time."""
        floor = np.float32(self.peak - RANGE)
        for start in range(0, self._frames, frames):
            levels = np.empty((min(frames, self._frames - start), self._channels, BANDS), np.float32)
            self._file.read(4 * start * self._channels * BANDS, levels)
            yield np.maximum(levels, floor)


def compare_levels(reference: Levels, estimate: Levels) -> tuple[float, float]:
    """Bleedless and fullness: 100 over 1 and the mean of the differences above zero, and of those below."""
    total, count = [0.0, 0.0], [0, 0]
    for wanted, given in zip(reference.blocks(), estimate.blocks(), strict=True):
        more = given - wanted
        for side, chosen in enumerate((more[more > 0], -more[more < 0])):
            total[side] += float(chosen.sum(dtype=np.float64))
            count[side] += chosen.size
    bleedless, fullness = (100 / (1 + t / max(1, n)) for t, n in zip(total, count, strict=True))
    return bleedless, fullness


@lru_cache(maxsize=4)
def mel_filters(sample_rate: int, n_fft: int, bands: int) -> F32:
    """Triangular filters [bands, n_fft/2+1] of equal area up to half the rate, on Slaney's mel scale.

    Slaney, Auditory Toolbox (1998): 200/3 Hz a mel up to 1000 Hz, above that 27 mels for each factor of 6.4.
    """
    edges = _hertz(np.linspace(0.0, _mels(sample_rate / 2), bands + 2))
    bins = np.arange(n_fft // 2 + 1) * (sample_rate / n_fft)
    left, middle, right = (edges[k : bands + k, None] for k in range(3))
    rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    filters: F32 = (np.maximum(0, np.minimum(rising, falling)) * 2 / (right - left)).astype(np.float32)
    return filters


_KNEE, _STEP, _LOG_STEP = 1000.0, 200 / 3, math.log(6.4) / 27


def _mels(hertz: float) -> float:
    linear = hertz / _STEP
    return linear if hertz < _KNEE else _KNEE / _STEP + math.log(hertz / _KNEE) / _LOG_STEP


def _hertz(mels: F64) -> F64:
    knee = _KNEE / _STEP
    return np.where(mels < knee, mels * _STEP, _KNEE * np.exp(_LOG_STEP * np.maximum(0.0, mels - knee)))


def _decibels(power: float, error: float) -> float:
    return ratio(power, error, BEST)


def average(values: Sequence[Figures], how: str) -> Figures:
    """The mean or median (``how``) of each figure over those songs in which it is defined; None where it is in none."""
    taken = {name: [v for each in values if (v := getattr(each, name)) is not None] for name in asdict(Figures())}
    of = np.mean if how == "mean" else np.median
    return Figures(**{name: float(of(known)) if known else None for name, known in taken.items()})
