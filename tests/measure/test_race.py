"""Settings that are slow, wrong, fail or come late, raced on a clock of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ortsep.base.arrays import F32
from ortsep.graphs.tuned import EXACT, Setting
from ortsep.measure.race import CLEAR, ROUNDS, Raced, race

FAST, SLOW, WRONG, BROKEN, BREAKS, INEXACT = (Setting(threads=k) for k in range(2, 8))
STEMS: F32 = np.random.default_rng(0).standard_normal((2, 2, 400)).astype(np.float32)


class Bench:
    """Sides that take what ``took`` says a run, by a clock that only they move."""

    def __init__(self, **took: float) -> None:
        self.now = 0.0
        self.open: list[Setting] = []
        self.most = 0
        self.runs: list[Setting] = []
        self.took = {Setting(): 1.0, FAST: 0.5, SLOW: 2.0, WRONG: 0.1, BREAKS: 0.5, INEXACT: 0.5}

    def side(self, setting: Setting) -> Any:
        if setting == BROKEN:
            raise RuntimeError("no such device\nand more")
        self.open.append(setting)
        self.most = max(self.most, len(self.open))
        return _Side(self, setting)


class _Side:
    def __init__(self, bench: Bench, setting: Setting) -> None:
        self.bench, self.setting = bench, setting

    def first(self) -> F32:
        self.run()
        return STEMS * np.float32({WRONG: 1.01, INEXACT: 1 + 1e-4}.get(self.setting, 1.0))

    def run(self) -> float:
        self.bench.now += self.bench.took[self.setting]
        self.bench.runs.append(self.setting)
        if self.setting == BREAKS and self.bench.runs.count(BREAKS) > 3:
            raise RuntimeError("signal 11")
        return self.bench.took[self.setting]

    def close(self) -> None:
        self.bench.open.remove(self.setting)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    assert made.open == [], "every side was closed"


def raced(bench: Bench, settings: list[Setting], budget: float = 1000.0, room: int = 3) -> Raced:
    return race(settings, bench.side, budget=budget, room=lambda: room, clock=lambda: bench.now)


def test_the_fastest_that_is_equal_is_taken(bench: Bench) -> None:
    found = raced(bench, [BROKEN, SLOW, WRONG, INEXACT, FAST])
    assert (found.best, found.ratio, found.seconds, found.untried) == (FAST, 0.5, 1.0, ())
    reasons = {each.setting: each.reason for each in found.tried}
    assert reasons[BROKEN] == "does not run (no such device)"
    assert reasons[SLOW] == "is slower" and bench.runs.count(SLOW) == 2, "one look is enough"
    assert reasons[WRONG] == f"is not equal (40 dB against ortsep's own, {EXACT:.0f} dB are asked)"
    assert reasons[INEXACT].startswith("is not equal (80 dB"), "twice as fast, and no float32"
    assert reasons[FAST] == "" and found.snr_db == 999.0


def test_what_fails_in_the_middle_is_not_taken(bench: Bench) -> None:
    found = raced(bench, [BREAKS])
    assert found.best == Setting() and found.tried[0].reason == "does not run (signal 11)"


@pytest.mark.parametrize(("took", "said"), [(0.97, "is not faster by more than chance"), (CLEAR - 0.01, "is slower")])
def test_a_gain_that_may_be_chance_is_none(bench: Bench, took: float, said: str) -> None:
    bench.took[FAST] = took
    found = raced(bench, [FAST])
    assert (found.best, found.ratio, found.tried[0].reason) == (Setting(), 1.0, said)


def test_runs_take_turns_and_end(bench: Bench) -> None:
    other = Setting(arena=False)
    bench.took[other] = 0.9
    raced(bench, [FAST, other])
    assert bench.runs.count(FAST) == bench.runs.count(other) == ROUNDS + 1
    turns = bench.runs[-3 * (ROUNDS - 1) :]
    assert [each for k, each in enumerate(turns) if k % 3 == 0] == [Setting()] * (ROUNDS - 1)
    assert {tuple(turns[1:3]), tuple(turns[4:6])} == {(FAST, other), (other, FAST)}, "not always in the same order"


def test_nothing_is_looked_at_too_late_to_be_measured(bench: Bench) -> None:
    """Own takes 2 s, the look at SLOW 5 more: of 10 s too many to look at another."""
    found = raced(bench, [SLOW, FAST], budget=10.0)
    assert [each.setting for each in found.tried] == [SLOW]
    assert (found.best, found.untried) == (Setting(), (FAST,))


def test_a_model_that_is_slow_is_not_begun_for_nothing(bench: Bench) -> None:
    found = raced(bench, [FAST], budget=4.0)
    assert found.untried == (FAST,) and bench.runs == [Setting()] * 2, "2 s are gone, and a look takes 3"


def test_what_ran_once_or_twice_proves_nothing(bench: Bench) -> None:
    found = raced(bench, [FAST], budget=5.0)
    assert found.best == Setting() and found.tried[0].reason == "ran 2 times only, which may be chance"
    assert bench.now <= 6.0


def test_no_more_are_kept_loaded_than_there_is_room_for(bench: Bench) -> None:
    several = [Setting(blocks=k) for k in range(2, 8)]
    bench.took |= {each: 0.5 + 0.01 * k for k, each in enumerate(several)}
    found = raced(bench, several, room=2)
    assert found.best == several[0] and bench.most == 4, "ortsep's own, two, and the one that is looked at"
    assert found.tried[-1].reason == "is slower than the others were"


def test_ortseps_own_setting_has_to_run() -> None:
    with pytest.raises(ValueError, match="no model"):
        race([FAST], lambda setting: (_ for _ in ()).throw(ValueError("no model")))


def test_an_interruption_leaves_no_side_open(bench: Bench) -> None:
    def doing(text: str) -> None:
        if "3 threads" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        race([FAST, SLOW], bench.side, budget=1000.0, clock=lambda: bench.now, doing=doing)
