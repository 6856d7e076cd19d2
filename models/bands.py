"""A spectrum stacked of several bands, each at its own rate: what UVR's VR networks hear. Part of a spec.

The bands have the same frames a second. The highest is the song at its rate, each lower one is the band above it,
resampled. Of each band's STFT some bins count; they are stacked from the lowest band up, and rows left over are zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from ortsep.models.decode import check

Channels = Literal["left_right", "mid_side", "mid_side_b2", "mid_side_c", "stereo_n"]

MATRICES: Mapping[str, tuple[tuple[float, float], tuple[float, float]]] = MappingProxyType(
    {
        "left_right": ((1.0, 0.0), (0.0, 1.0)),
        "mid_side": ((0.5, 0.5), (1.0, -1.0)),
        "mid_side_b2": ((0.5, 1.0), (1.0, -0.5)),
        "mid_side_c": ((1.0, 0.25), (-0.25, 1.0)),
        "stereo_n": ((1.0 / 0.9375, 0.25 / 0.9375), (0.25 / 0.9375, 1.0 / 0.9375)),
    }
)
"""The two channels that a network hears, as rows, from left and right (UVR, spec_utils.py)."""


@dataclass(frozen=True)
class Band:
    """One band: its STFT (a periodic Hann window, centred, zeros outside the song), and the bins that count.

    On the way back it is multiplied with ramps: ``rise``, two bins, the upper where it has risen to one; ``fall``, two
    bins, the upper where it has fallen to zero. Both are empty where the band reaches to the end.
    """

    rate: int
    hop: int
    n_fft: int
    start: int
    stop: int
    """Bins from ``start`` to below ``stop`` count."""
    rise: tuple[int, ...] = ()
    fall: tuple[int, ...] = ()
    channels: Channels = "left_right"

    def __post_init__(self) -> None:
        bins = self.n_fft // 2 + 1
        check(1000 <= self.rate <= 768_000, f"a band of {self.rate} Hz")
        check(2 <= self.n_fft <= 1 << 16 and self.n_fft % 2 == 0, f"a band's n_fft {self.n_fft}")
        check(1 <= self.hop <= self.n_fft <= 64 * self.hop, f"a band's hop {self.hop} of n_fft {self.n_fft}")
        check(0 <= self.start < self.stop <= bins, f"a band's bins {self.start} to {self.stop}")
        check(len(self.rise) in (0, 2) and len(self.fall) in (0, 2), f"ramps {self.rise}, {self.fall}")
        if self.rise:
            check(0 <= self.rise[1] <= self.rise[0] <= bins - 2, f"a rise over the bins {self.rise}")
        if self.fall:
            check(1 <= self.fall[0] < self.fall[1] <= bins, f"a fall over the bins {self.fall}")


@dataclass(frozen=True)
class Bands:
    """The bands of a network, and how their spectrum goes through it in windows of frames.

    What the graph hears is divided by the greatest magnitude of the whole song's stacked spectrum; it gives masks. A
    window's first and last ``context`` frames are heard and give nothing; windows follow without overlap.
    """

    layout: str
    """UVR's name of it."""
    bands: tuple[Band, ...]
    """From the lowest up."""
    bins: int
    """Rows of the stacked spectrum."""
    prefilter: tuple[int, ...] = ()
    """Rows between which the spectrum falls to zero before the network hears it; empty where it doesn't."""
    steep: bool = False
    """It falls as for UVR's old networks of several bands, by so many dB a row that the first ones are nearly gone, and
    doesn't reach zero."""
    window: int = 512
    """Frames the graph is given by default."""
    context: int = 128
    multiple: int = 16
    """The graph takes multiples of this many frames."""
    aggression: int = 5
    """UVR's, in percent: what the mask's exponent is made of by default."""
    inverted: bool = False
    """For vocals, and instruments that are taken out one by one: the exponent is the greater, the less the
    aggression."""

    def __post_init__(self) -> None:
        check(1 <= len(self.bands) <= 8, f"{len(self.bands)} bands")
        rows = sum(band.stop - band.start for band in self.bands)
        check(rows <= self.bins <= 1 << 15, f"{self.bins} rows for {rows} bins")
        top = self.bands[-1]
        for lower, upper in zip(self.bands, self.bands[1:], strict=False):
            check(lower.rate * upper.hop == upper.rate * lower.hop, f"bands of {lower.rate} and {upper.rate} Hz")
            check(lower.rate <= upper.rate, "bands that don't rise")
            check(bool(lower.fall) and bool(upper.rise), "bands without ramps between them")
        check(not self.bands[0].rise and not top.fall, "ramps at the ends")
        check(len(self.prefilter) in (0, 2), f"prefilter {self.prefilter}")
        if self.prefilter:
            first, last = self.prefilter
            check(1 <= first <= self.bins and 0 <= last <= self.bins + 1, f"prefilter {self.prefilter}")
            check(first <= last, f"prefilter {self.prefilter}")
        check(1 <= self.multiple <= 1 << 10 and 0 <= self.context <= 1 << 14, f"context {self.context}")
        check(self.takes(self.window), f"windows of {self.window} frames with {self.context} of context on both sides")
        check(-50 <= self.aggression <= 100, f"aggression {self.aggression}")

    def takes(self, window: int) -> bool:
        """Whether the graph can be given windows of so many frames."""
        return 2 * self.context < window <= 1 << 16 and window % self.multiple == 0

    @property
    def rate(self) -> int:
        """Of the highest band: the song's."""
        return self.bands[-1].rate

    @property
    def hop(self) -> int:
        return self.bands[-1].hop

    @property
    def split(self) -> int:
        """The row where the masks' exponent changes."""
        return self.bands[0].stop

    @property
    def mirrored(self) -> int:
        """Bins below the highest one of the highest band that UVR's ``high_end_process`` fills."""
        top = self.bands[-1]
        return max(0, top.n_fft // 2 - top.stop + (self.prefilter[1] - self.prefilter[0] if self.prefilter else 0))
