"""The short-time Fourier transform and its inverse for every family, whole or streamed, driven by ``models.spec.STFT``.

Spectra are complex64 [..., F, T] for float32 signals [..., N], and complex128 for float64. Frames are cut by strides,
windowed and transformed in batches that stay in the cache; overlap-add runs by hop phase, n_fft/hop slices a batch.
Spectra lie frame by frame in memory (F is contiguous, not T), as transforms read and write them: columns of a block
whose T is a power of two share a few cache lines, and cost more than the transforms.
The order of every addition is that of the frames, so streamed output is bit-identical to the whole for any split.

``threads`` is the most threads to use, by default one a core: numpy's FFT lets go of the interpreter lock. Beside a
graph that keeps the cores busy, 1 is as fast.

Definitions: Griffin and Lim 1984 (least-squares inverse); ``torch.stft`` and ``torch.istft``; in ``demucs.hdemucs``,
``pad1d``, ``HDemucs._spec`` and ``HDemucs._ispec``.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ortsep.base.arrays import Array
from ortsep.base.threads import cores
from ortsep.models.spec import STFT

_BATCH = 1 << 17
"""Samples that are windowed and transformed at a time: half a megabyte in float32, about a core's cache."""

_FEW = 1 << 18
"""Samples of all frames below which starting threads costs more than it saves."""

_SILENT = 1e-11
"""Where squared windows sum to no more than this a sample is unknown and becomes 0; ``torch.istft`` refuses there."""


def extended_length(spec: STFT, samples: int) -> int:
    """Length of a signal of ``samples`` after ``spec.extend``, before padding."""
    if spec.extend == "no":
        return samples
    hops = -(-samples // spec.hop) if spec.extend == "hop" else samples // spec.hop + 1
    frames = _frames(spec, hops * spec.hop)
    if max(frames, 1) % spec.frame_multiple:
        hops += -(-max(frames, 1) // spec.frame_multiple) * spec.frame_multiple - frames
    return hops * spec.hop


def frame_count(spec: STFT, samples: int) -> int:
    """Frames of a signal of ``samples``: at least one, even of a padded signal shorter than ``n_fft``."""
    return max(1, _frames(spec, extended_length(spec, samples)))


def _frames(spec: STFT, extended: int) -> int:
    """Frames of an extended signal by the formula alone, which is 0 or less where it doesn't fill the first."""
    room = extended + spec.pad_left + spec.pad_right - spec.n_fft
    return (-(-room // spec.hop) if spec.partial else room // spec.hop) + 1


def _padded_length(spec: STFT, samples: int) -> int:
    needed = (frame_count(spec, samples) - 1) * spec.hop + spec.n_fft
    return max(extended_length(spec, samples) + spec.pad_left + spec.pad_right, needed)


def stft(spec: STFT, x: Array, *, threads: int | None = None) -> Array:
    """STFT of ``x`` [..., N], all bins: [..., n_fft/2+1, T].

    A signal too short to be reflected gets zeros on the right first, then on the left (``demucs.hdemucs.pad1d``).
    """
    x = _floating(x)
    return _analyse(spec, _pad(spec, x), frame_count(spec, x.shape[-1]), threads)


def istft(spec: STFT, z: Array, samples: int, *, threads: int | None = None) -> Array:
    """Inverse of ``stft``: the first ``samples`` of the signal, [..., samples].

    ``z`` is complex [..., F, T] or, saving a copy, the real channels [..., 2C, F, T] of ``as_channels``. Bins from F up
    are zero. Samples that no frame covers are zero.
    """
    prefix, z = _spectra(z)
    rows = max(z.shape[-1] + _phases(spec) - 1, -(-(spec.pad_left + samples) // spec.hop))
    total = np.zeros((len(z), rows, spec.hop), np.float64 if z.dtype in (np.float64, np.complex128) else np.float32)
    _overlap_add(spec, z, total, threads)
    _correct(spec, total, 0, z.shape[-1])
    return total.reshape(*prefix, rows * spec.hop)[..., spec.pad_left : spec.pad_left + samples]


def as_channels(z: Array) -> Array:
    """Complex [..., C, F, T] as real channels [..., 2C, F, T] in the order L_re, L_im, R_re, R_im: one copy."""
    *prefix, channels, bins, frames = z.shape
    out = np.empty((*prefix, channels, 2, bins, frames), z.real.dtype)
    out[..., 0, :, :] = z.real
    out[..., 1, :, :] = z.imag
    return out.reshape(*prefix, 2 * channels, bins, frames)


def from_channels(channels: Array) -> Array:
    """Inverse of ``as_channels``: [..., 2C, F, T] as complex [..., C, F, T]: one copy."""
    real, imag = channels[..., 0::2, :, :], channels[..., 1::2, :, :]
    out = np.empty(real.shape, np.result_type(channels, np.complex64))
    out.real = real
    out.imag = imag
    return out


class Analyser:
    """``stft`` of a signal [C, N] that comes in blocks, N unknown until ``finish``; memory doesn't grow with N."""

    def __init__(self, spec: STFT, channels: int, *, threads: int | None = None) -> None:
        self.spec = spec
        self.samples = 0
        """Samples pushed so far."""
        self.frames = 0
        """Frames returned so far."""
        self._threads = threads
        self._held: Array = np.zeros((channels, 0), np.float32)
        self._start = 0  # of ``_held``, as an index of the padded signal, once that has begun
        self._begun = False
        self._right = spec.pad_right + spec.hop  # no signal that has begun is padded by more than this

    def push(self, block: Array) -> Array:
        """Take samples [C, n]; return the frames that they complete, [C, n_fft/2+1, t], perhaps none."""
        spec = self.spec
        block = _floating(block)
        self.samples += block.shape[-1]
        self._held = np.concatenate((self._held, block), -1) if self._held.shape[-1] else block
        if not self._begun and self.samples > max(spec.pad_left, self._right, spec.n_fft):
            padded = np.zeros((len(block), spec.pad_left + self.samples), self._held.dtype)
            padded[:, spec.pad_left :] = self._held
            if spec.pad_mode == "reflect":
                _mirror_left(padded, spec.pad_left)
            self._held, self._begun = padded, True
        if not self._begun:
            return self._none()
        end = self._start + self._held.shape[-1]
        return self._take(max(0, (end - spec.n_fft) // spec.hop + 1 - self.frames))

    def finish(self) -> Array:
        """Return the last frames, [C, n_fft/2+1, t]. Nothing can be pushed after."""
        spec = self.spec
        if not self._begun:
            z = stft(spec, self._held, threads=self._threads)
            self.frames = z.shape[-1]
            return z
        padded = np.zeros((len(self._held), _padded_length(spec, self.samples) - self._start), self._held.dtype)
        padded[:, : self._held.shape[-1]] = self._held
        if spec.pad_mode == "reflect":
            _mirror_right(padded, spec.pad_left + extended_length(spec, self.samples) - self._start)
        self._held = padded
        return self._take(frame_count(spec, self.samples) - self.frames)

    def _take(self, count: int) -> Array:
        if count == 0:
            return self._none()
        spec = self.spec
        z = _analyse(spec, self._held[:, self.frames * spec.hop - self._start :], count, self._threads)
        self.frames += count
        end = self._start + self._held.shape[-1]
        start = max(self._start, min(self.frames * spec.hop, end - self._right - 1))
        self._held = self._held[:, start - self._start :].copy()
        self._start = start
        return z

    def _none(self) -> Array:
        shape = len(self._held), 0, self.spec.n_fft // 2 + 1
        return np.zeros(shape, np.result_type(self._held, np.complex64)).swapaxes(1, 2)


class Synthesiser:
    """``istft`` of spectra [*prefix, F, T] that come in blocks of frames; memory doesn't grow with T.

    ``samples`` is the length of the signal; where it is only known at the end, give it to ``finish``.
    """

    def __init__(
        self,
        spec: STFT,
        prefix: tuple[int, ...],
        samples: int | None = None,
        *,
        dtype: DTypeLike = np.float32,
        threads: int | None = None,
    ) -> None:
        self.spec = spec
        self.samples = samples
        self.frames = 0
        """Frames pushed so far."""
        self.done = 0
        """Samples returned so far."""
        self._prefix = tuple(prefix)
        self._threads = threads
        self._open: Array = np.zeros((math.prod(self._prefix), _phases(spec) - 1, spec.hop), dtype)
        self._ready: Array = np.zeros((len(self._open), 0), dtype)  # final, but perhaps beyond the signal's end
        self._position = 0  # of ``_ready``, as an index of the padded signal

    def push(self, z: Array) -> Array:
        """Take frames [*prefix, F, t], or real channels as ``istft``; return samples that are final, [*prefix, n]."""
        _, z = _spectra(z)
        rows = z.shape[-1]
        total = np.zeros((len(z), rows + self._open.shape[1], self.spec.hop), self._open.dtype)
        total[:, : self._open.shape[1]] = self._open
        _overlap_add(self.spec, z, total, self._threads)
        self._open = total[:, rows:].copy()
        closed = total[:, :rows]
        _correct(self.spec, closed, self.frames, self.frames + rows)
        self.frames += rows
        return self._emit(closed, self._least())

    def finish(self, samples: int | None = None) -> Array:
        """Return the rest, [*prefix, n], so that all blocks together have ``samples``. Nothing can be pushed after."""
        if samples is not None:
            self.samples = samples
        if self.samples is None:
            raise ValueError("a Synthesiser needs the number of samples, when it is made or when it finishes")
        missing = -(-(self.spec.pad_left + self.samples) // self.spec.hop) - self.frames
        tail = np.zeros((len(self._open), max(missing, self._open.shape[1]), self.spec.hop), self._open.dtype)
        tail[:, : self._open.shape[1]] = self._open
        _correct(self.spec, tail, self.frames, self.frames)
        return self._emit(tail, self.samples)

    def _least(self) -> int:
        """The fewest samples that a signal of this many frames can have; more may not be returned before N is known."""
        if self.samples is not None:
            return self.samples
        spec = self.spec
        extra = spec.frame_multiple if spec.extend != "no" else 0
        if self.frames <= max(1, extra):
            return 0
        hops = self.frames - 1 - int(spec.partial) - extra
        return hops * spec.hop + spec.n_fft - spec.pad_left - spec.pad_right

    def _emit(self, closed: Array, limit: int) -> Array:
        """Release what is final and within the first ``limit`` samples of the signal."""
        fresh = closed.reshape(len(closed), -1)
        ready = np.concatenate((self._ready, fresh), -1) if self._ready.shape[-1] else fresh
        left = self.spec.pad_left
        count = max(0, min(ready.shape[-1], left + limit - self._position))
        out = ready[:, min(count, max(0, left - self._position)) : count]
        self._ready = ready[:, count:].copy()
        self._position += count
        self.done += out.shape[-1]
        return out.reshape(*self._prefix, out.shape[-1])


def _floating(x: Array) -> Array:
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


def _spectra(z: Array) -> tuple[tuple[int, ...], Array]:
    """The dimensions before bins and frames, and ``z`` as [R, F, T], or [R, 2, F, T] where it is real channels."""
    if np.iscomplexobj(z):
        return z.shape[:-2], z.reshape(math.prod(z.shape[:-2]), *z.shape[-2:])
    *prefix, channels, bins, frames = z.shape
    return (*prefix, channels // 2), z.reshape(math.prod(prefix) * channels // 2, 2, bins, frames)


def _pad(spec: STFT, x: Array) -> Array:
    """Extend and pad [..., N]."""
    samples, left = x.shape[-1], spec.pad_left
    extended = extended_length(spec, samples)
    out = np.zeros((*x.shape[:-1], _padded_length(spec, samples)), x.dtype)
    out[..., left : left + samples] = x
    if spec.pad_mode == "reflect":
        right = out.shape[-1] - left - extended
        lacking = max(0, max(left, right) + 1 - extended)
        after = min(right, lacking)
        _mirror_left(out, left - (lacking - after))
        _mirror_right(out, left + extended + after)
    return out


def _mirror_left(padded: Array, first: int) -> None:
    """Fill what is before index ``first`` with the reflection about it."""
    padded[..., :first] = padded[..., first + 1 : 2 * first + 1][..., ::-1]


def _mirror_right(padded: Array, end: int) -> None:
    """Fill what is from index ``end`` on with the reflection about the last sample before it."""
    padded[..., end:] = padded[..., 2 * end - padded.shape[-1] - 1 : end - 1][..., ::-1]


def _phases(spec: STFT) -> int:
    return -(-spec.n_fft // spec.hop)


@lru_cache(maxsize=16)
def _windows(spec: STFT, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Analysis and synthesis windows [n_fft]; scaling, and the envelope far from the ends, are in them.

    Both are for transforms that numpy scales by 1/n_fft: numpy 2 runs those that it doesn't scale in float64,
    which takes 1.6 times as long.
    """
    window = _window(spec)
    envelope = np.resize(_squares(spec).sum(0), spec.n_fft)
    scale = math.sqrt(spec.n_fft) if spec.normalized else 1.0
    synthesis = np.divide(window * scale, envelope, out=np.zeros_like(window), where=envelope > _SILENT)
    windows = (window * spec.n_fft / scale).astype(dtype), synthesis.astype(dtype)
    for made in windows:
        made.flags.writeable = False
    return windows


def _window(spec: STFT) -> Array:
    """The window [n_fft] as the spec names it."""
    if spec.window == "ones":
        return np.ones(spec.n_fft)
    hann: Array = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(spec.n_fft) / spec.n_fft)
    return hann


@lru_cache(maxsize=16)
def _squares(spec: STFT) -> Array:
    """The squared window by hop phase, [phases, hop], zeros after its end."""
    out = np.zeros(_phases(spec) * spec.hop)
    out[: spec.n_fft] = _window(spec) ** 2
    return out.reshape(-1, spec.hop)


def _parallel(work: Callable[[int, int], None], tasks: int, samples: int, threads: int | None) -> None:
    """Run ``work(i, n)`` for i in 0 .. n-1, each i on a thread of its own; worker i does tasks i, i+n, i+2n..."""
    workers = 1 if samples < _FEW else max(1, min(threads or cores(), tasks))
    if workers == 1:
        work(0, 1)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers), [workers] * workers))


def _analyse(spec: STFT, padded: Array, count: int, threads: int | None) -> Array:
    """The first ``count`` frames of [..., M]: [..., n_fft/2+1, count]."""
    window, _ = _windows(spec, padded.dtype)
    rows = padded.reshape(math.prod(padded.shape[:-1]), padded.shape[-1])
    frames = np.lib.stride_tricks.sliding_window_view(rows, spec.n_fft, -1)[:, :: spec.hop]
    z = np.empty((len(rows), count, spec.n_fft // 2 + 1), np.result_type(padded, np.complex64))
    size = max(1, _BATCH // spec.n_fft)
    batches = [(row, start) for row in range(len(rows)) for start in range(0, count, size)]

    def work(worker: int, workers: int) -> None:
        buffer = np.empty((min(size, count), spec.n_fft), padded.dtype)
        for row, start in batches[worker::workers]:
            end = min(start + size, count)
            windowed = np.multiply(frames[row, start:end], window, out=buffer[: end - start])
            np.fft.rfft(windowed, norm="forward", out=z[row, start:end])

    _parallel(work, len(batches), len(rows) * count * spec.n_fft, threads)
    return z.reshape(*padded.shape[:-1], *z.shape[1:]).swapaxes(-1, -2)


def _overlap_add(spec: STFT, z: Array, total: Array, threads: int | None) -> None:
    """Add the frames of ``z`` (as ``_spectra`` gives it) to ``total`` [R, rows, hop], frame t from row t on."""
    _, window = _windows(spec, total.dtype)
    n_fft, hop = spec.n_fft, spec.hop
    bins, count = z.shape[-2:]
    size = max(1, min(_BATCH // n_fft, count))

    def work(worker: int, workers: int) -> None:
        # All bins, also those that are zero: numpy takes nearly twice as long to lengthen short spectra by itself.
        spectra = np.zeros((size, n_fft // 2 + 1), np.result_type(total, np.complex64))
        buffer = np.empty((size, n_fft), total.dtype)
        for row in range(worker, len(z), workers):
            for start in range(0, count, size):
                end = min(start + size, count)
                spectrum, frames = spectra[: end - start], buffer[: end - start]
                if np.iscomplexobj(z):
                    spectrum[:, :bins] = z[row, :, start:end].T
                else:
                    spectrum.real[:, :bins] = z[row, 0, :, start:end].T
                    spectrum.imag[:, :bins] = z[row, 1, :, start:end].T
                np.fft.irfft(spectrum, n_fft, norm="backward", out=frames)
                np.multiply(frames, window, out=frames)
                # The last phase first: every sample then takes its frames in the order of time, whatever the batches.
                for phase in range(_phases(spec) - 1, -1, -1):
                    part = frames[:, phase * hop : (phase + 1) * hop]
                    total[row, start + phase : end + phase, : part.shape[1]] += part

    _parallel(work, len(z), len(z) * count * n_fft, threads)


def _correct(spec: STFT, total: Array, first: int, frames: int) -> None:
    """Give the ends their own envelope: the synthesis window has divided by the one far from the ends.

    ``total`` is [R, rows, hop], beginning with row ``first``; there are ``frames`` frames, frame t from row t on.
    """
    if spec.envelope == "constant":
        return
    squares = _squares(spec)
    last = len(squares) - 1
    stop = first + total.shape[1]
    for row in (*range(first, min(last, stop)), *range(max(frames, last, first), stop)):
        present = squares[max(0, row - frames + 1) : row + 1].sum(0)
        factor = np.divide(squares.sum(0), present, out=np.zeros(spec.hop), where=present > _SILENT)
        total[:, row - first] *= factor.astype(total.dtype)
