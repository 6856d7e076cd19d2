"""UVR's post-processing of a mask, streamed: what stays loud for long belongs to the stem whole.

Where the least value of a frame's mask, over channels and bins, is above a threshold for more than 64 frames on end,
the mask is drawn to one, with fades of 32 frames at both ends of that run; runs less than 32 frames apart are joined by
a new fade, which begins 64 frames before the end of the first (UVR, spec_utils.py, ``merge_artifacts``).
"""

import numpy as np

from ortsep.base.arrays import F32, F64

LONG, FADE = 64, 32
_RISE = np.linspace(0, 1, FADE)
_FALL = np.linspace(1, 0, FADE)


class Artifacts:
    """How far the frames of a mask are drawn to one, 0 to 1 each, as soon as no later frame can change it."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._weights = np.zeros(0)  # of the frames from ``_base`` on
        self._base = 0
        self._at = 0  # the next frame
        self._start: int | None = None  # of the run that goes on
        self._applied = False  # whether that run is long, and its beginning is in the weights
        self._end: int | None = None  # the last frame of the long run before it

    def push(self, mask: F32) -> F32:
        """Take a mask's next frames [C, F, t]; return the weights that are final, [n], of the frames in order."""
        self._weights = np.concatenate((self._weights, np.zeros(mask.shape[-1])))
        for loud in (mask.min(axis=(0, 1)) > self._threshold).tolist():
            self._hear(loud)
        return self._final(self._settled())

    def finish(self) -> F32:
        """Return the weights of the frames that are left."""
        self._close()
        return self._final(self._at)

    def _hear(self, loud: bool) -> None:
        if not loud:
            self._close()
        elif self._start is None:
            self._start = self._at
        self._at += 1
        if self._start is not None and self._at - 1 - self._start > LONG:
            self._grow()

    def _grow(self) -> None:
        """The run that goes on is long: its beginning, and ones up to where its end could fade."""
        assert self._start is not None
        last = self._at - 1
        if not self._applied:
            begin = self._start
            if self._end is not None and begin - self._end < FADE:
                begin = self._end - 2 * FADE
            if begin:
                self._set(begin, _RISE)
            self._set(begin + FADE if begin else 0, np.ones(last - FADE - (begin + FADE if begin else 0)))
            self._applied = True
        else:
            self._set(last - FADE - 1, np.ones(1))

    def _close(self) -> None:
        if self._start is not None and self._applied:
            self._end = self._at - 1
            self._set(self._end - FADE, _FALL)
        self._start, self._applied = None, False

    def _set(self, start: int, values: F64) -> None:
        self._weights[start - self._base : start - self._base + len(values)] = values

    def _settled(self) -> int:
        """Frames that no later one can change: before what a fade may still overwrite."""
        if self._applied:
            return self._at - 1 - 2 * FADE
        near = self._at if self._start is None else self._start
        if self._end is not None and near - self._end < FADE:
            return self._end - 2 * FADE
        return near

    def _final(self, until: int) -> F32:
        count = max(0, until - self._base)
        done, self._weights = self._weights[:count], self._weights[count:]
        self._base += count
        return done.astype(np.float32)
