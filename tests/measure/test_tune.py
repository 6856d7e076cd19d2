"""Tuning with settings that are slow, wrong or fail, on a clock of its own; and what becomes of what it kept."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import GRAPHS
from typer.testing import CliRunner

from ortsep.base.errors import UsageError
from ortsep.cli import app
from ortsep.graphs import providers, tuned
from ortsep.graphs.providers import choose_provider
from ortsep.graphs.session import Observer, Session
from ortsep.graphs.tuned import Setting, machine, read_tuned, write_tuned
from ortsep.measure.tune import Tuning, candidates, open_setting, tune
from ortsep.separator import Separator

WAVES = GRAPHS / "waves" / "waves.onnx"
FEEDS = {"mix": np.random.default_rng(0).standard_normal((1, 2, 4000)).astype(np.float32)}
FAST, SLOW, WRONG, BROKEN = (Setting(threads=k) for k in (2, 3, 4, 5))
TOOK = {Setting(): 1.0, FAST: 0.5, SLOW: 2.0, WRONG: 0.1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Bench:
    """Settings that take what ``TOOK`` says, by a clock that only they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.opened: list[Setting] = []

    def open(self, graph: Path, setting: Setting, feeds: Any) -> Any:
        self.opened.append(setting)
        if setting == BROKEN:
            raise RuntimeError("no such device\nand more")

        def run() -> list[np.ndarray]:
            self.now += TOOK[setting]
            return [FEEDS["mix"] * (1.01 if setting == WRONG else 1.0)]

        return run


def tuning(settings: list[Setting], patience: float = 1000.0) -> Tuning:
    bench = Bench()
    return tune(WAVES, FEEDS, settings, patience=patience, opener=bench.open, clock=lambda: bench.now)


def test_the_fastest_that_is_right_is_taken() -> None:
    found = tuning([BROKEN, SLOW, WRONG, FAST])
    assert (found.best, found.ratio, found.seconds, found.complete) == (FAST, 0.5, 1.0, True)
    reasons = {each.setting: each.reason for each in found.tried}
    assert reasons[BROKEN] == "does not run (no such device)"
    assert reasons[SLOW] == "is slower"
    assert reasons[WRONG].startswith("computes wrongly (40 dB")
    assert reasons[FAST] == ""


def test_a_gain_that_may_be_chance_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TOOK, FAST, 0.97)
    found = tuning([FAST])
    assert (found.best, found.ratio) == (Setting(), 1.0)
    assert found.tried[0].reason == "is not faster by more than chance"


def test_nothing_is_begun_after_its_time() -> None:
    found = tuning([SLOW, FAST], patience=3.0)
    assert [each.setting for each in found.tried] == [SLOW]
    assert (found.best, found.complete) == (Setting(), False)


def test_what_is_tried() -> None:
    made = candidates(["cpu", "openvino"], 8)
    assert made[0] == Setting("openvino")
    assert [each.threads for each in made if each.threads] == [8, 4, 1]
    assert Setting(spinning=False) in made and Setting(arena=False) in made
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("setting", [Setting(), Setting(threads=1, spinning=False), Setting(arena=False)])
def test_real_sessions_with_a_setting_give_the_same(setting: Setting) -> None:
    np.testing.assert_array_equal(
        open_setting(WAVES, setting, FEEDS)()[0], Session(WAVES, provider="cpu").run(FEEDS)[0]
    )


class Options(Observer):
    """The options that a session was made with."""

    def opening(self, options: Any) -> None:
        self.given = options


def opened(**settings: Any) -> Any:
    seen = Options()
    Session(WAVES, observer=seen, **settings)
    return seen.given


def test_auto_goes_by_it_and_nothing_else_does() -> None:
    assert opened().intra_op_num_threads == 0
    assert write_tuned(WAVES, providers.versions(), Setting(threads=1, spinning=False, arena=False))
    given = opened()
    assert given.intra_op_num_threads == 1
    assert given.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert given.enable_cpu_mem_arena is False
    assert opened(threads=2).intra_op_num_threads == 2, "who names threads gets them"
    given = opened(provider="cpu")
    assert given.intra_op_num_threads == 0 and given.enable_cpu_mem_arena is True


def test_it_is_of_this_machine_and_this_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    write_tuned(WAVES, "onnxruntime-1", Setting(threads=1))
    assert read_tuned(WAVES, lambda: "onnxruntime-1") == Setting(threads=1)
    assert read_tuned(WAVES, lambda: "onnxruntime-2") is None
    monkeypatch.setattr(tuned, "machine", lambda: "another")
    assert read_tuned(WAVES, lambda: "onnxruntime-1") is None
    assert len(machine()) == 12


@pytest.mark.parametrize("text", ["", "{", "[]", '{"provider": 1}', '{"threads": 0}', '{"more": 1}', '{"arena": 2}'])
def test_a_damaged_file_is_as_none(text: str, cache: Path) -> None:
    write_tuned(WAVES, "1", Setting())
    (file,) = (cache / "doctor").glob("*.tuned.*")
    file.write_text(text, encoding="utf-8")
    assert read_tuned(WAVES, lambda: "1") is None


def test_a_provider_that_is_gone_is_not_taken() -> None:
    write_tuned(WAVES, providers.versions(), Setting("openvino"))
    assert choose_provider("auto", WAVES).provider == "cpu"
    assert choose_provider("auto", GRAPHS / "plain" / "plain.onnx").provider == "cpu"


@pytest.fixture
def fake_gain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ortsep.measure.tune.open_setting", None)
    bench = Bench()
    monkeypatch.setattr(
        "ortsep.measure.tune.tune",
        lambda graph, feeds, settings, doing: tune(graph, feeds, [FAST], opener=bench.open, clock=lambda: bench.now),
    )
    yield


def test_the_command_keeps_it_and_says_what_it_gained(fake_gain: None) -> None:
    done = CliRunner().invoke(app, ["doctor", str(WAVES), "--tune"])
    assert done.exit_code == 0, done.output
    assert "cpu, 2 threads" in done.stdout and "0.50 of the time" in done.stdout
    assert opened().intra_op_num_threads == 2
    document = json.loads(CliRunner().invoke(app, ["doctor", str(WAVES), "--tune", "--json"]).stdout)
    assert document["best"] == {"provider": "cpu", "threads": 2, "spinning": True, "arena": True}
    assert (document["ratio"], document["kept"], document["complete"]) == (0.5, True, True)
    assert Separator(WAVES).separate(FEEDS["mix"][0]).keys() == {"drums", "vocals"}


def test_the_command_needs_a_model() -> None:
    done = CliRunner().invoke(app, ["doctor", "--tune"])
    assert isinstance(done.exception, UsageError)
    assert "needs a model" in str(done.exception)
