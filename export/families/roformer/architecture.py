"""The architecture of BS- and Mel-Band RoFormers: what their constructors are told, and what parameters that makes.

"Music Source Separation with Band-Split RoPE Transformer" (Lu et al. 2023) and "Mel-Band RoFormer for Music Source
Separation" (Wang et al. 2023), in the implementation that lucidrains wrote and MSST trains. The two kinds differ in the
bands (adjoining, or overlapping triangles of a mel filter bank), in where the norms stand, and in a hidden layer.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Shape = tuple[int, ...]
State = dict[str, npt.NDArray[Any]]
Kind = Literal["bs", "mel"]
Band = tuple[int, int]
"""Its first bin, and the one behind its last."""

BS_BANDS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)
"""Bins of each band in every BS-RoFormer that was published, for 1025 bins."""
THETA = 10000.0


@dataclass(frozen=True)
class Architecture:
    """One network. S stems, C channels, F = n_fft / 2 + 1 bins."""

    kind: Kind
    dim: int
    depth: int
    bands: tuple[Band, ...]
    stems: int = 1
    channels: int = 2
    heads: int = 8
    dim_head: int = 64
    feed: int = 0
    """Width of the feed-forward layers; 4 * dim for 0."""
    time_depth: int = 1
    freq_depth: int = 1
    mask_layers: int = 1
    """Hidden layers of a mask's MLP: mask_estimator_depth - 1 in the one kind, mask_estimator_depth in the other."""
    mask_hidden: int = 0
    """Their width; 4 * dim for 0."""
    n_fft: int = 2048
    hop: int = 441
    normalized: bool = False
    zero_dc: bool = True
    """The stems' lowest bin is silenced."""
    skip: bool = False
    """Each layer also hears the sum of what the layers before gave."""

    @property
    def bins(self) -> int:
        return self.n_fft // 2 + 1

    @property
    def width(self) -> tuple[int, ...]:
        """Real numbers of each band: bins, channels, real and imaginary part."""
        return tuple(2 * self.channels * (stop - start) for start, stop in self.bands)

    @property
    def feed_width(self) -> int:
        return self.feed or 4 * self.dim

    @property
    def mask_width(self) -> int:
        return self.mask_hidden or 4 * self.dim

    @property
    def normed(self) -> bool:
        """A norm behind every transformer, and none before the masks; otherwise the other way round."""
        return self.kind == "mel"


def adjoining(widths: tuple[int, ...]) -> tuple[Band, ...]:
    """Bands of so many bins, one above the other."""
    return tuple((int(a), int(b)) for a, b in pairwise(np.cumsum((0, *widths))))


def mel_bands(count: int, n_fft: int, sample_rate: int) -> tuple[Band, ...]:
    """The bins where each of ``count`` triangles of a mel filter bank is above zero; the outermost bins belong to one.

    The mel scale is Slaney's (Auditory Toolbox, as librosa has it by default): 200/3 Hz a mel up to 1 kHz, from there
    27 mels for a factor of 6.4.
    """
    step, knee = 200.0 / 3, 1000.0
    log_step = np.log(6.4) / 27.0
    top = sample_rate / 2
    highest = knee / step + np.log(top / knee) / log_step if top >= knee else top / step
    mels = np.linspace(0.0, highest, count + 2)
    edges = np.where(mels < knee / step, mels * step, knee * np.exp(log_step * (mels - knee / step)))
    frequencies = np.linspace(0.0, top, n_fft // 2 + 1)
    bands = []
    for i in range(count):
        rising = (frequencies - edges[i]) / (edges[i + 1] - edges[i])
        falling = (edges[i + 2] - frequencies) / (edges[i + 2] - edges[i + 1])
        inside = np.flatnonzero(np.minimum(rising, falling) > 0)
        start = 0 if i == 0 else int(inside[0])
        stop = len(frequencies) if i == count - 1 else int(inside[-1]) + 1
        bands.append((start, stop))
    return tuple(bands)


def uses(arch: Architecture) -> npt.NDArray[np.int64]:
    """In how many bands each bin lies: [F]."""
    count = np.zeros(arch.bins, np.int64)
    for start, stop in arch.bands:
        count[start:stop] += 1
    return count


def rotary_frequencies(dim_head: int) -> npt.NDArray[np.float64]:
    """Of rotary-embedding-torch, never learned: [dim_head / 2]."""
    frequencies: npt.NDArray[np.float64] = THETA ** (-np.arange(0, dim_head, 2) / dim_head)
    return frequencies


# -- what a network of an architecture holds --------------------------------------------------------------------------


def transformers(arch: Architecture) -> Iterator[tuple[str, bool, int]]:
    """Name, whether over time, and depth of every transformer, in the order in which they run."""
    for i in range(arch.depth):
        yield f"layers.{i}.0", True, arch.time_depth
        yield f"layers.{i}.1", False, arch.freq_depth


def parameters(arch: Architecture) -> dict[str, Shape]:
    """Names and shapes of everything that the network needs."""
    return dict(_parameters(arch))


def _parameters(a: Architecture) -> Iterator[tuple[str, Shape]]:
    inner = a.heads * a.dim_head
    for name, _, depth in transformers(a):
        for k in range(depth):
            attention, feed = f"{name}.layers.{k}.0", f"{name}.layers.{k}.1.net"
            yield f"{attention}.rotary_embed.freqs", (a.dim_head // 2,)
            yield f"{attention}.norm.gamma", (a.dim,)
            yield f"{attention}.to_qkv.weight", (3 * inner, a.dim)
            yield from _linear(f"{attention}.to_gates", a.heads, a.dim)
            yield f"{attention}.to_out.0.weight", (a.dim, inner)
            yield f"{feed}.0.gamma", (a.dim,)
            yield from _linear(f"{feed}.1", a.feed_width, a.dim)
            yield from _linear(f"{feed}.4", a.dim, a.feed_width)
        if a.normed:
            yield f"{name}.norm.gamma", (a.dim,)
    if not a.normed:
        yield "final_norm.gamma", (a.dim,)
    for b, width in enumerate(a.width):
        yield f"band_split.to_features.{b}.0.gamma", (width,)
        yield from _linear(f"band_split.to_features.{b}.1", a.dim, width)
    for stem in range(a.stems):
        for b, width in enumerate(a.width):
            sizes = (a.dim, *(a.mask_width,) * a.mask_layers, 2 * width)
            for k in range(a.mask_layers + 1):
                yield from _linear(f"mask_estimators.{stem}.to_freqs.{b}.0.{2 * k}", sizes[k + 1], sizes[k])


def _linear(name: str, outs: int, ins: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outs, ins)
    yield f"{name}.bias", (outs,)


def parameter_count(arch: Architecture) -> int:
    """Without the rotary frequencies, which are computed."""
    return sum(int(np.prod(s)) for name, s in _parameters(arch) if not name.endswith("freqs"))


def random_state(arch: Architecture, seed: int) -> State:
    """Seeded values for everything in ``parameters``, such that no branch hides and activations stay in range.

    Weights have deviation 1/sqrt(fan_in), norms' scales are 0.7 to 1.3; rotary frequencies are the right ones.
    """
    state = {}
    for name, shape in parameters(arch).items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if name.endswith("rotary_embed.freqs"):
            values = rotary_frequencies(arch.dim_head).astype(np.float32)
        elif len(shape) > 1:
            values = rng.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
        elif name.endswith("gamma"):
            values = rng.uniform(0.7, 1.3, shape).astype(np.float32)
        else:
            values = rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        state[name] = values
    return state
