"""Whether what is heard is a drum track, or music that no model of drums is made for.

Music holds its notes: most of its energy between 150 and 5000 Hz lies in peaks of the spectrum, and it goes on between
the strokes. Drums are noise and short: their energy comes in bursts. Over ten seconds both have to speak for music,
since a tom that rings is as tonal as a voice and a busy hi-hat as even; or hardly anything is there but tones.
docs/drums_mini.md has the figures.
"""

import threading
from collections.abc import Iterator

import numpy as np

from ortsep.audio.sources import Source
from ortsep.base.arrays import F32
from ortsep.base.threads import closed

PART, LEAST = 10.0, 5.0
"""Seconds that are judged together, and that the last ones have to be."""
TONAL, EVEN, PURE = 0.6, 0.7, 0.87
"""From which share of tonal energy on, and which evenness in time, ten seconds are taken for music; and from which
share on without evenness."""
_LOW, _HIGH = 150.0, 5000.0
_WINDOW, _AROUND = 0.0929, 130.0
"""Seconds of a spectrum; Hz on either side of a peak to which it is compared."""
_PEAK = 4.0
"""How many times the mean around it a peak is."""
_FAINT = 1e-4
"""Of the loudest spectrum of a part: fainter ones are silence, which says nothing."""


WARNING = (
    "what was given sounds like music with more than drums in it, and this model knows drums alone: its stems are "
    "likely wrong; feed it the drums of a song model, as in: ortsep run htdemucs drums_mini SONG"
)

SAME = "drums only"
"""How a model's own note begins that says the same of any song: one of the two is enough."""


class Listener:
    """Takes a song's blocks and judges each ten seconds; memory does not grow with the song."""

    def __init__(self, sample_rate: int) -> None:
        self._rate, self._waiting, self._count = sample_rate, list[F32](), 0
        self.judged = self.music = 0
        """Parts that were judged, and those that are music."""

    def add(self, block: F32) -> None:
        """Samples [C, n], one block behind another."""
        self._waiting.append(block.mean(axis=0, dtype=np.float32))
        self._count += block.shape[1]
        size = round(PART * self._rate)
        if self._count < size:
            return
        x = np.concatenate(self._waiting)
        for at in range(0, len(x) - size + 1, size):
            self._judge(x[at : at + size])
        self._waiting = [x[len(x) - len(x) % size :]]
        self._count = len(x) % size

    def end(self) -> None:
        """Judge what is left, where it is long enough."""
        if self._count >= LEAST * self._rate:
            self._judge(np.concatenate(self._waiting))
        self._waiting, self._count = [], 0

    @property
    def is_music(self) -> bool:
        """Whether half of the song or more is music."""
        return self.music > 0 and 2 * self.music >= self.judged

    def _judge(self, x: F32) -> None:
        if (found := features(x, self._rate)) is not None:
            self.judged += 1
            tonal, even = found
            self.music += tonal >= PURE or (tonal >= TONAL and even >= EVEN)


def features(x: F32, rate: int) -> tuple[float, float] | None:
    """The share of tonal energy of x [N], and the evenness in time of its energy, both 0 to 1; None for silence."""
    size = 1 << round(np.log2(_WINDOW * rate))
    if len(x) < 2 * size:
        return None
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(x, size)[:: size // 2]
    hertz = rate / size
    low, high, around = int(np.ceil(_LOW / hertz)), int(min(_HIGH / hertz, size // 2 - 1)), round(_AROUND / hertz)
    spectrum = np.fft.rfft(frames * window, axis=1)[:, : high + around + 1]
    power = spectrum.real.astype(np.float64) ** 2 + spectrum.imag.astype(np.float64) ** 2  # [T, F]
    sums = np.pad(np.cumsum(power, axis=1), ((0, 0), (1, 0)))
    bins = np.arange(low, high)
    first, last = np.maximum(bins - around, 0), np.minimum(bins + around + 1, power.shape[1])
    floor = (sums[:, last] - sums[:, first]) / (last - first)
    heard = power[:, low:high]
    peaks = (heard >= power[:, low - 1 : high - 1]) & (heard > power[:, low + 1 : high + 1]) & (heard > _PEAK * floor)
    tonal = peaks.copy()  # with its neighbours: a window's main lobe is wider than a bin
    tonal[:, 1:] |= peaks[:, :-1]
    tonal[:, :-1] |= peaks[:, 1:]
    energy = heard.sum(axis=1)
    loud = energy[energy > _FAINT * energy.max(initial=0.0)]
    if not len(loud):
        return None
    return float((heard * tonal).sum() / energy.sum()), float(np.exp(np.log(loud).mean()) / loud.mean())


class Known:
    """A source that nobody need listen to: somebody does already, or a model made it."""


class Heard(Known):
    """A source that is listened to while it is read for the first time."""

    def __init__(self, source: Source) -> None:
        self.sample_rate, self.channels, self.samples = source.sample_rate, source.channels, source.samples
        self.listener = Listener(source.sample_rate)
        self._source, self._lock, self._taken = source, threading.Lock(), False

    def blocks(self) -> Iterator[F32]:
        with self._lock:
            first, self._taken = not self._taken, True
        with closed(self._source.blocks()) as given:
            for block in given:
                if first:
                    self.listener.add(block)
                yield block

    @property
    def warning(self) -> str:
        """A sentence where what was read is music, else empty."""
        self.listener.end()
        return WARNING if self.listener.is_music else ""

    def survey(self) -> Iterator[F32]:
        """The blocks for who measures them before: nobody listens yet."""
        blocks: Iterator[F32] = getattr(self._source, "survey", self._source.blocks)()
        return blocks
