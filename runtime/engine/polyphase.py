"""Resampling by a fraction of small whole numbers with one FIR filter, streamed: ``scipy.signal.resample_poly``.

Its definition, with its defaults: ``up - 1`` zeros behind each sample, a Kaiser-windowed sinc of 20 max(up, down) + 1
taps (beta 5, cutoff at the lower of the two Nyquist frequencies, gain ``up``) centred on each output, every ``down``-th
output kept, zeros outside the signal.
"""

import math

import numpy as np

from ortsep.base.arrays import F64, Array

_BATCH = 1 << 15
"""Numbers that are multiplied at a time: few enough to stay in a core's cache."""


def taps(up: int, down: int) -> F64:
    """The filter [2 half + 1] of ``resample_poly``, as ``scipy.signal.firwin`` makes it."""
    slower = max(up, down)
    half = 10 * slower
    sinc = np.sinc(np.arange(-half, half + 1) / slower) * np.kaiser(2 * half + 1, 5.0)
    filtered: F64 = up * sinc / sinc.sum()
    return filtered


class Polyphase:
    """A signal [R, N] of ``rows`` R at ``rate``, in blocks, at another rate: ceil(N * new / rate) samples in all."""

    def __init__(self, rate: int, new: int, rows: int) -> None:
        common = math.gcd(rate, new)
        self.up, self.down = new // common, rate // common
        h = taps(self.up, self.down)
        half = len(h) // 2
        # Outputs come in groups of ``up``, a group every ``down`` inputs; it hears those from ``first`` to ``last``.
        self._first = -(half // self.up)
        self._last = (half + (self.up - 1) * self.down) // self.up
        inputs = np.arange(self._first, self._last + 1)
        at = half + np.arange(self.up)[None, :] * self.down - inputs[:, None] * self.up
        inside = (at >= 0) & (at < len(h))
        self._weights = np.where(inside, h[np.where(inside, at, 0)], 0.0).astype(np.float32)
        self._held: Array = np.zeros((rows, -self._first), np.float32)
        self._start = self._first
        self._given = self._groups = self._done = 0

    def push(self, block: Array) -> Array:
        """Take samples [R, n]; return those that they complete, [R, m], perhaps none."""
        self._given += block.shape[-1]
        self._held = np.concatenate((self._held, block), -1)
        ready = (self._given - 1 - self._last) // self.down + 1 if self._given > self._last else 0
        out = self._resampled(max(0, ready - self._groups))
        self._done += out.shape[-1]
        return out

    def finish(self) -> Array:
        """Return the rest, [R, m]. Nothing can be pushed after."""
        total = -(-self._given * self.up // self.down)
        groups = -(-total // self.up) - self._groups
        lacking = (self._groups + groups) * self.down + self._last + 1 - self._given
        self._held = np.pad(self._held, ((0, 0), (0, max(0, lacking))))
        out = self._resampled(groups)[:, : total - self._done]
        self._done = total
        return out

    def _resampled(self, groups: int) -> Array:
        """The next ``groups`` groups of outputs."""
        rows, width = len(self._held), len(self._weights)
        out = np.empty((rows, groups, self.up), np.float32)
        if groups:
            start = self._groups * self.down + self._first - self._start
            windows = np.lib.stride_tricks.sliding_window_view(self._held[:, start:], width, -1)[:, :: self.down]
            size = max(1, _BATCH // width)
            for row in range(rows):
                for at in range(0, groups, size):
                    part = np.ascontiguousarray(windows[row, at : min(at + size, groups)])
                    np.matmul(part, self._weights, out=out[row, at : at + len(part)])
            self._groups += groups
            kept = self._groups * self.down + self._first - self._start
            self._held, self._start = self._held[:, kept:].copy(), self._start + kept
        return out.reshape(rows, groups * self.up)
