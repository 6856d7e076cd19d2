"""Drawing an ``Overview``: waveform and spectrogram as SVG text for a page, with matplotlib (extra ``report``).

Colours are the page's own: what is drawn in ``_INK`` and ``_TONE`` becomes ``var(--ink)`` and ``var(--tone)``, so that
one picture serves a light and a dark page. Every picture has its plots between the same two fractions of its width.
"""

import io
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ortsep.base.decibels import levels, ratio
from ortsep.base.errors import MissingDependency
from ortsep.report.overview import Overview

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEFT, RIGHT = 0.052, 0.982
"""Where the time axis begins and ends, of a picture's width."""
RANGE = 80.0
"""dB from the lightest to the darkest colour."""
COLOURS = "magma"
_SIZE = (11.0, 2.9)
"""Inches, at 72 points each."""
_INK, _TONE = "#010203", "#030201"
_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
_FLOOR = 1e-20
_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)


def require_matplotlib() -> None:
    """Import what draws. Raises MissingDependency with the way to install it."""
    with _quiet():
        try:
            import matplotlib.backends.backend_svg
            import matplotlib.figure
            import matplotlib.style  # noqa: F401
        except ImportError as error:
            raise MissingDependency(
                f"a report is drawn with matplotlib and that can't be imported ({error}); "
                "run: pip install 'ortsep[report]'"
            ) from error


@dataclass(frozen=True)
class Scale:
    """What all pictures of a page share: full deflection of the waveform (linear), loudest colour (dB)."""

    peak: float
    top: float


def common_scale(overviews: Sequence[Overview]) -> Scale:
    """The scale that fits all of ``overviews``; for silence that of full scale."""
    peak = max(o.peak for o in overviews)
    loudest = max(float(o.power.max()) for o in overviews)
    top = 5.0 * math.ceil(ratio(loudest, 1.0) / 5.0) if loudest > _FLOOR else 0.0
    return Scale(peak or 1.0, top)


def colour_stops(count: int = 9) -> list[str]:
    """CSS colours of the spectrograms, quietest to loudest."""
    import matplotlib

    colours = matplotlib.colormaps[COLOURS](np.linspace(0.0, 1.0, count))
    return ["#" + "".join(f"{round(255 * part):02x}" for part in colour[:3]) for colour in colours]


def draw(overview: Overview, scale: Scale, label: str, prefix: str) -> str:
    """Waveform above spectrogram as an ``<svg>`` element. ``prefix`` keeps its ids apart from other pictures'."""
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    text = io.StringIO()
    # A user's matplotlibrc (LaTeX, fonts, dark styles) must not change the page.
    with _quiet(), matplotlib.style.context("default"):
        figure = Figure(figsize=_SIZE)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        width = RIGHT - LEFT
        wave = figure.add_axes((LEFT, 0.70, width, 0.29))
        spectrum = figure.add_axes((LEFT, 0.085, width, 0.595), sharex=wave)
        _draw_wave(wave, overview, scale)
        _draw_spectrum(spectrum, overview, scale)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), label, prefix)


def _draw_wave(axes: "Axes", overview: Overview, scale: Scale) -> None:
    edges = np.linspace(0.0, overview.seconds, len(overview.low) + 1)

    def steps(values: "np.typing.NDArray[np.floating]") -> "np.typing.NDArray[np.floating]":
        return np.append(values, values[-1])

    peaks, rms = (steps(overview.low), steps(overview.high)), steps(overview.rms_line)
    axes.fill_between(edges, *peaks, step="post", facecolor=_TONE, edgecolor=_TONE, alpha=0.4, linewidth=0.5)
    axes.fill_between(edges, -rms, rms, step="post", facecolor=_TONE, linewidth=0.0)
    axes.set_xlim(0.0, overview.seconds)
    axes.set_ylim(-1.05 * scale.peak, 1.05 * scale.peak)
    axes.set_yticks([-scale.peak, 0.0, scale.peak], [f"{-scale.peak:.2g}", "0", f"{scale.peak:.2g}"])
    _finish(axes)
    axes.tick_params(bottom=False, labelbottom=False)


def _draw_spectrum(axes: "Axes", overview: Overview, scale: Scale) -> None:
    # Whole decibels look the same and take half the bytes.
    shades = np.rint(levels(overview.power, _FLOOR))
    lowest, highest = np.log2(overview.frequencies[[0, -1]])
    axes.imshow(
        shades,
        origin="lower",
        aspect="auto",
        interpolation="none",
        extent=(0.0, overview.seconds, lowest, highest),
        cmap=COLOURS,
        vmin=scale.top - RANGE,
        vmax=scale.top,
    )
    ticks = [f for f in _TICKS if f <= overview.sample_rate / 2]
    axes.set_yticks(np.log2(ticks), [f"{f // 1000} kHz" if f >= 1000 else f"{f} Hz" for f in ticks])
    times = time_ticks(overview.seconds)
    axes.set_xticks(times, [clock(t, times[1] if len(times) > 1 else 1.0) for t in times])
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.patch.set_visible(False)
    axes.tick_params(colors=_INK, labelsize=7, length=3, width=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_INK)
        spine.set_linewidth(0.6)


def time_ticks(seconds: float) -> list[float]:
    """At most eleven round times from 0 to ``seconds``."""
    step = next((s for s in _STEPS if seconds <= 10 * s), 3600 * math.ceil(seconds / 36_000))
    return [k * step for k in range(int(seconds / step + 1e-9) + 1)]


def clock(seconds: float, step: float = 1.0) -> str:
    """A time as 1:05, 1:02:03 or, for steps below a second, 0:00.25."""
    digits = 0 if step >= 1.0 else min(3, math.ceil(-math.log10(step)))
    whole, part = divmod(round(seconds * 10**digits), 10**digits)
    minutes, s = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"
    return text + (f".{part:0{digits}d}" if digits else "")


def _inline(svg: str, label: str, prefix: str) -> str:
    """matplotlib's file as an element for a page: named for readers, sized by the page, with ids and colours of its."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = svg.replace(_INK, "var(--ink)").replace(_TONE, "var(--tone)")
    size = re.search(r'viewBox="[^"]*"', svg)
    assert size is not None
    head = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} role="img" aria-label="{escape(label)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, svg, count=1).strip()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep matplotlib's remarks on its font cache off stderr, which may be a program's."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
