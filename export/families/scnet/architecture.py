"""SCNet's architecture: the sizes of a network, how frequencies are split and joined, and what parameters one has.

"SCNet: Sparse Compression Network for Music Source Separation" (Tong et al. 2024), in the implementation of starrytong
and MSST (``models/scnet``), whose names for arguments and parameters these are.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
State = dict[str, npt.NDArray[Any]]
BANDS = 3
"""Low, middle and high: the sparser the higher."""
EPS = 1e-5
"""Of every norm: torch's default."""


@dataclass(frozen=True)
class Band:
    """One band of one level: bins [start, stop) of the level above become ``rows`` rows."""

    start: int
    stop: int
    stride: int
    kernel: int
    pads: tuple[int, int]
    """Zeros below and above the band."""
    rows: int

    @property
    def crop(self) -> int:
        """Bins that the transposed convolution of the way back gives too many at the beginning."""
        return abs(self.grown - (self.stop - self.start)) // 2

    @property
    def grown(self) -> int:
        """Bins that the transposed convolution gives."""
        return (self.rows - 1) * self.stride + self.kernel


@dataclass(frozen=True)
class Architecture:
    """The constructor's arguments, and the frames of a chunk."""

    sources: int = 4
    dims: tuple[int, ...] = (4, 32, 64, 128)
    band_SR: tuple[float, ...] = (0.175, 0.392, 0.433)
    band_stride: tuple[int, ...] = (1, 4, 16)
    band_kernel: tuple[int, ...] = (3, 4, 16)
    conv_depths: tuple[int, ...] = (3, 2, 1)
    compress: int = 4
    conv_kernel: int = 3
    num_dplayer: int = 6
    expand: int = 1
    nfft: int = 4096
    hop_size: int = 1024
    normalized: bool = True
    chunk: int = 485100
    """Samples."""

    @property
    def bins(self) -> int:
        return self.nfft // 2 + 1

    @property
    def frames(self) -> int:
        """Of a chunk; even, since the network transforms them once more."""
        return self.padded(self.chunk) // self.hop_size + 1

    def padded(self, samples: int) -> int:
        """Length with the network's own zeros: at least one, to a hop, and until the number of frames is even."""
        hops = samples // self.hop_size + 1
        return (hops + (hops + 1) % 2) * self.hop_size

    def hidden(self, channels: int) -> int:
        """Channels inside a convolution module."""
        return int(channels / self.compress)

    def levels(self) -> list[list[Band]]:
        """The bands of each level of the encoder."""
        levels, bins = [], self.bins
        for _ in self.dims[1:]:
            low, middle = self.band_SR[:2]
            ends = (0, math.ceil(bins * low), math.ceil(bins * (low + middle)), bins)
            bands = [self._band(b, ends[b], ends[b + 1]) for b in range(BANDS)]
            levels.append(bands)
            bins = sum(band.rows for band in bands)
        return levels

    def _band(self, band: int, start: int, stop: int) -> Band:
        stride, kernel, length = self.band_stride[band], self.band_kernel[band], stop - start
        total = kernel - stride if stride == 1 else -length % stride
        rows = (length + total - kernel) // stride + 1
        return Band(start, stop, stride, kernel, (total // 2, total - total // 2), rows)


# -- what a network of an architecture holds --------------------------------------------------------------------------


def parameters(arch: Architecture) -> dict[str, Shape]:
    """Names and shapes of everything that the network needs."""
    return dict(_parameters(arch))


def _parameters(a: Architecture) -> Iterator[tuple[str, Shape]]:
    def layer(name: str, shape: Shape, outs: int = 0) -> Iterator[tuple[str, Shape]]:
        yield f"{name}.weight", shape
        yield f"{name}.bias", (outs or shape[0],)

    def module(name: str, c: int, depth: int) -> Iterator[tuple[str, Shape]]:
        h, k = a.hidden(c), a.conv_kernel
        for i in range(depth):
            n = f"{name}.layers.{i}"
            yield from layer(f"{n}.0", (c,))
            yield from layer(f"{n}.1", (2 * h, c, k))
            yield from layer(f"{n}.3", (h, 1, k))
            yield from layer(f"{n}.4", (h,))
            yield from layer(f"{n}.6", (c, h, 1))

    for i, (inside, c) in enumerate(zip(a.dims, a.dims[1:], strict=False)):
        for b in range(BANDS):
            yield from layer(f"encoder.{i}.SDlayer.convs.{b}", (c, inside, a.band_kernel[b], 1))
        for b in range(BANDS):
            yield from module(f"encoder.{i}.conv_modules.{b}", c, a.conv_depths[b])
        yield from layer(f"encoder.{i}.globalconv", (c, c, 3, 3))
    for i in range(a.num_dplayer):
        c = a.dims[-1] * (1 + i % 2)
        h = c * a.expand
        for path in range(2):
            name = f"separation_net.dp_modules.{i}"
            for way in ("", "_reverse"):
                yield f"{name}.lstm_layers.{path}.weight_ih_l0{way}", (4 * h, c)
                yield f"{name}.lstm_layers.{path}.weight_hh_l0{way}", (4 * h, h)
                yield f"{name}.lstm_layers.{path}.bias_ih_l0{way}", (4 * h,)
                yield f"{name}.lstm_layers.{path}.bias_hh_l0{way}", (4 * h,)
            yield from layer(f"{name}.linear_layers.{path}", (c, 2 * h))
            yield from layer(f"{name}.norm_layers.{path}", (c,))
    for i in range(len(a.dims) - 1):
        level = len(a.dims) - 2 - i
        c, outs = a.dims[level + 1], a.dims[level] * (1 if level else a.sources)
        yield from layer(f"decoder.{i}.0.conv", (2 * c, 2 * c, 3, 3))
        for b in range(BANDS):
            yield from layer(f"decoder.{i}.1.convtrs.{b}", (c, outs, a.band_kernel[b], 1), outs)


def parameter_count(arch: Architecture) -> int:
    """As ``sum(p.numel() for p in model.parameters())`` counts."""
    return sum(int(np.prod(shape)) for _, shape in _parameters(arch))


def random_state(arch: Architecture, seed: int) -> State:
    """Seeded values for everything in ``parameters``, such that no branch hides and activations stay in range.

    Weights have deviation 1/sqrt(fan_in), those of LSTMs 1.5 of that, norms' scales are 0.5 to 1.2, vectors else -0.3
    to 0.3.
    """
    state = {}
    for name, shape in parameters(arch).items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(shape) > 1:
            fan_in = shape[0] if ".convtrs." in name else int(np.prod(shape[1:]))
            gain = np.float32((1.5 if "_l0" in name else 1.0) / math.sqrt(fan_in))
            state[name] = rng.standard_normal(shape, np.float32) * gain
        else:
            low, high = (0.5, 1.2) if name.endswith(".weight") else (-0.3, 0.3)
            state[name] = rng.uniform(low, high, shape).astype(np.float32)
    return state
