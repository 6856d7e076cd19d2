"""Which setting runs a model fastest here: each tried against ortsep's own, in turns, within a minute or so.

At first every setting is looked at once: does it run, is it equal, and is it not clearly slower? Those that are left
then run in turns with ortsep's own, for as long as there is time, and a ratio counts that is the median of at least
three neighbouring runs.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from ortsep.base.arrays import F32
from ortsep.base.decibels import PERFECT, in_words, snr
from ortsep.graphs.tuned import EXACT, Setting

BUDGET = 60.0
"""Seconds."""
LOOKING = 0.6
"""Of these, until when another setting may be looked at for the first time."""
CLEAR = 1.15
"""Of the time of ortsep's own setting at one look, from where a setting is slower without doubt."""
WORTH = 0.95
"""Of that time, below which a setting is worth taking: what is less may be chance."""
ROUNDS, ENOUGH = 5, 3
"""Runs of each that are wanted, and that do."""


class Side(Protocol):
    """A model as one setting runs it."""

    def first(self) -> F32:
        """What it gives; the run that warms it up."""

    def run(self) -> float:
        """Seconds of one more run."""

    def close(self) -> None: ...


Open = Callable[[Setting], Side]
"""Raises whatever keeps a setting from running."""


@dataclass(frozen=True)
class Tried:
    """A setting, what a run took against ortsep's own (the median of neighbouring runs), and why it isn't taken."""

    setting: Setting
    ratio: float | None = None
    snr_db: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Raced:
    """The setting to be taken, its time of that of ortsep's own, and all that were tried.

    ``seconds``: the median of a run of ortsep's own. ``untried``: those that there was no time for.
    """

    best: Setting
    ratio: float
    snr_db: float
    seconds: float
    tried: tuple[Tried, ...]
    untried: tuple[Setting, ...] = ()


@dataclass
class _Runner:
    setting: Setting
    side: Side
    snr_db: float
    ratios: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def tried(self, reason: str = "") -> Tried:
        return Tried(self.setting, round(self.ratio, 3) if self.ratios else None, round(self.snr_db, 1), reason)


def race(
    settings: Sequence[Setting],
    opening: Open,
    *,
    budget: float = BUDGET,
    room: Callable[[], int] = lambda: 3,
    clock: Callable[[], float] = time.perf_counter,
    doing: Callable[[str], None] = lambda _: None,
) -> Raced:
    """Try ``settings`` within about ``budget`` seconds, and say which is worth taking.

    ``room``: how many may be kept loaded beside ortsep's own. Raises what ortsep's own setting raises.
    """
    with _closing(opening(Setting())) as own:
        return _Race(own, opening, budget, room, clock, doing).through([s for s in settings if s != Setting()])


class _Race:
    def __init__(
        self,
        own: Side,
        opening: Open,
        budget: float,
        room: Callable[[], int],
        clock: Callable[[], float],
        doing: Callable[[str], None],
    ) -> None:
        self._own, self._opening, self._budget, self._room = own, opening, budget, room
        self._clock, self._tell, self._began = clock, doing, clock()
        self._usual: list[float] = []
        self._runners: list[_Runner] = []
        self._tried: dict[Setting, Tried] = {}

    def through(self, settings: Sequence[Setting]) -> Raced:
        try:
            self._doing("ortsep's own setting")
            expected, left = self._own.first(), list(settings)
            self._usual.append(self._own.run())
            while left and self._time_for_a_look():
                self._look(left.pop(0), expected)
            self._rounds()
            for runner in list(self._runners):
                self._end(runner)
        finally:
            for runner in self._runners:
                runner.side.close()
        good = [each for each in self._tried.values() if not each.reason and each.ratio is not None]
        best = min(good, key=lambda each: each.ratio or 1.0, default=Tried(Setting(), 1.0, PERFECT))
        tried = tuple(self._tried[setting] for setting in settings if setting in self._tried)
        seconds = statistics.median(self._usual)
        return Raced(best.setting, best.ratio or 1.0, best.snr_db or 0.0, seconds, tried, tuple(left))

    def _time_for_a_look(self) -> bool:
        """A look is three runs at least: a first one, one of ortsep's own and one more."""
        spent = self._spent()
        return spent < LOOKING * self._budget and spent + 3 * self._usual[-1] <= self._budget

    def _spent(self) -> float:
        return self._clock() - self._began

    def _doing(self, what: str) -> None:
        self._tell(f"trying {what} ... {self._spent():.0f} of {self._budget:.0f} s")

    def _look(self, setting: Setting, expected: F32) -> None:
        """Whether it runs, is equal, and not clearly slower."""
        self._doing(str(setting))
        try:
            side = self._opening(setting)
        except Exception as error:  # a provider may fail in any way
            self._tried[setting] = Tried(setting, reason=_failure(error))
            return
        self._runners.append(runner := _Runner(setting, side, -PERFECT))
        try:
            given = side.first()
            runner.snr_db = snr(expected, given) if expected.shape == given.shape else -PERFECT
            if not runner.snr_db >= EXACT:
                self._drop(
                    runner,
                    f"is not equal ({in_words(runner.snr_db, 0)} against ortsep's own, {EXACT:.0f} dB are asked)",
                )
                return
            self._usual.append(self._own.run())
            runner.ratios.append(side.run() / max(self._usual[-1], 1e-9))
        except Exception as error:
            self._drop(runner, _failure(error))
            return
        if runner.ratio > CLEAR:
            self._drop(runner, "is slower")
        while len(self._runners) > max(1, self._room()):
            self._drop(max(self._runners, key=lambda each: each.ratio), "is slower than the others were")

    def _rounds(self) -> None:
        """Turns of all that are left, the order reversed each time, while there is time for another."""
        took = 0.0
        while waiting := [each for each in self._runners if len(each.ratios) < ROUNDS]:
            if self._spent() + took > self._budget:
                return
            began = self._clock()
            self._doing(" and ".join(str(each.setting) for each in waiting))
            self._usual.append(self._own.run())
            for runner in waiting if len(self._usual) % 2 else waiting[::-1]:
                try:
                    runner.ratios.append(runner.side.run() / max(self._usual[-1], 1e-9))
                except Exception as error:
                    self._drop(runner, _failure(error))
                    continue
                if len(runner.ratios) >= ENOUGH and runner.ratio > 1.0:
                    self._end(runner)
            took = self._clock() - began

    def _end(self, runner: _Runner) -> None:
        """Say what came of one."""
        if len(runner.ratios) < ENOUGH:
            self._drop(runner, f"ran {len(runner.ratios)} times only, which may be chance")
        elif runner.ratio > WORTH:
            self._drop(runner, "is not faster by more than chance" if runner.ratio <= 1 else "is slower")
        else:
            self._drop(runner, "")

    def _drop(self, runner: _Runner, reason: str) -> None:
        self._tried[runner.setting] = runner.tried(reason)
        self._runners.remove(runner)
        runner.side.close()


@contextmanager
def _closing(side: Side) -> Iterator[Side]:
    try:
        yield side
    finally:
        side.close()


def _failure(error: Exception) -> str:
    words = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return f"does not run ({words})"
