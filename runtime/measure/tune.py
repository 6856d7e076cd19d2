"""Which setting of a session runs a graph fastest here: each tried against ortsep's own, in turns, within a minute."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ortsep.base.decibels import snr
from ortsep.graphs.tuned import Setting

Feeds = Mapping[str, npt.NDArray[Any]]
Run = Callable[[], Sequence[npt.NDArray[Any]]]
Open = Callable[[Path, Setting, Feeds], Run]
"""Loads a graph with a setting; what it gives runs it once on the feeds. Raises whatever keeps it from that."""

GATE = 60.0
"""dB against ortsep's own setting below which another counts as wrong, however fast it is."""
WORTH = 0.95
"""Of the time of ortsep's own setting that another must stay below: what is less may be chance."""
ROUNDS = 5


@dataclass(frozen=True)
class Tried:
    """A setting, what a run took against ortsep's own (the median of neighbouring runs), and why it isn't taken."""

    setting: Setting
    ratio: float | None = None
    snr_db: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Tuning:
    """The setting to be taken, its gain, and all that were tried. ``complete``: all there was time for."""

    best: Setting
    ratio: float
    seconds: float
    tried: tuple[Tried, ...]
    complete: bool


def candidates(providers: Sequence[str], cores: int) -> list[Setting]:
    """What is tried, the likeliest first: every provider, then on the CPU threads, waiting and memory."""
    others = [Setting(provider) for provider in providers if provider != "cpu"]
    threads = [Setting(threads=count) for count in dict.fromkeys((cores, max(1, cores // 2), 1))]
    return [*others, *threads, Setting(spinning=False), Setting(arena=False)]


def open_setting(graph: Path, setting: Setting, feeds: Feeds) -> Run:
    """A session as ortsep makes it, with the setting."""
    from ortsep.graphs.session import Session

    session = Session(graph, provider=setting.provider, setting=setting)
    return lambda: session.run(feeds)


def tune(
    graph: Path,
    feeds: Feeds,
    settings: Sequence[Setting],
    *,
    patience: float = 60.0,
    opener: Open = open_setting,
    clock: Callable[[], float] = time.perf_counter,
    doing: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Try ``settings`` on a graph, none begun after ``patience`` seconds, and say which is worth taking.

    Raises what ortsep's own setting raises.
    """
    began, own = clock(), Setting()
    usual = opener(graph, own, feeds)
    expected = usual()
    tried, usual_times = [], list[float]()
    left = [setting for setting in settings if setting != own]
    while left and clock() - began < patience:
        setting = left.pop(0)
        doing(f"trying {setting} ...")
        tried.append(_tried(setting, graph, feeds, usual, expected, usual_times, opener, clock, began + patience))
    good = [each for each in tried if not each.reason and each.ratio is not None]
    best = min(good, key=lambda each: each.ratio or 1.0, default=Tried(own, 1.0))
    seconds = statistics.median(usual_times) if usual_times else 0.0
    return Tuning(best.setting, best.ratio or 1.0, seconds, tuple(tried), not left)


def _tried(
    setting: Setting,
    graph: Path,
    feeds: Feeds,
    usual: Run,
    expected: Sequence[npt.NDArray[Any]],
    usual_times: list[float],
    opener: Open,
    clock: Callable[[], float],
    end: float,
) -> Tried:
    try:
        run = opener(graph, setting, feeds)
        given = run()
        decibels = min(snr(e, g) if e.shape == g.shape else -999.0 for e, g in zip(expected, given, strict=True))
    except Exception as error:  # a provider may fail in any way
        words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return Tried(setting, reason=f"does not run ({words})")
    ratios: list[float] = []
    while len(ratios) < ROUNDS and (len(ratios) < 2 or clock() < end):
        start = clock()
        usual()
        between = clock()
        run()
        usual_times.append(between - start)
        ratios.append((clock() - between) / max(between - start, 1e-9))
    ratio, reason = statistics.median(ratios), ""
    if not decibels >= GATE:
        reason = f"computes wrongly ({decibels:.0f} dB against ortsep's own setting, {GATE:.0f} are needed)"
    elif ratio > WORTH:
        reason = "is not faster by more than chance" if ratio <= 1 else "is slower"
    return Tried(setting, round(ratio, 3), round(decibels, 1), reason)
