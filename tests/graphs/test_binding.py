"""Bound memory: the same numbers as a plain run, in arrays that the next run leaves alone."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from places import GRAPHS

from ortsep.base.cancel import Cancel
from ortsep.base.errors import Cancelled, ModelError
from ortsep.graphs import session as sessions
from ortsep.graphs.binding import Bound, bindable
from ortsep.graphs.model import load_model
from ortsep.graphs.session import Session
from ortsep.measure.doctor import PROBE, golden_feeds, open_session, probe_feeds

CPU = "CPUExecutionProvider"


@pytest.fixture
def probe() -> Path:
    """A graph of fixed shapes: x [1, 4, 64, 64] to y."""
    return PROBE


def feeds(seed: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((1, 4, 64, 64)).astype(np.float32)}


@pytest.fixture
def bound(probe: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that binds its memory, as it would on CUDA; here the device is the CPU."""
    monkeypatch.setattr(sessions, "BOUND", ("cpu",))
    return Session(probe, provider="cpu")


def test_bound_runs_equal_plain_ones(probe: Path, bound: Session) -> None:
    plain = open_session(probe, CPU, {}, None)
    kept = [(plain.run(None, feeds(k))[0], bound.run(feeds(k))[0]) for k in range(3)]
    assert bound._bound and all(np.array_equal(a, b) for a, b in kept)
    transposed = {"x": feeds(0)["x"].transpose(0, 1, 3, 2)}
    assert np.array_equal(plain.run(None, transposed)[0], bound.run(transposed)[0])


def test_buffers_are_allocated_once(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = onnxruntime.OrtValue.ortvalue_from_shape_and_type

    def count(*arguments: Any) -> Any:
        made.append(arguments[0])
        return real(*arguments)

    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", staticmethod(count))
    monkeypatch.setattr(sessions, "BOUND", ("cpu",))
    session = Session(probe, provider="cpu")
    for seed in range(5):
        session.run(feeds(seed))
    assert made == [[1, 4, 64, 64], [1, 4, 64, 64]]


def test_a_graph_of_free_shapes_is_not_bound(monkeypatch: pytest.MonkeyPatch, probe: Path) -> None:
    graph, example = golden_feeds(load_model(GRAPHS / "complex"))
    assert not bindable(open_session(graph, CPU, {}, None)) and bindable(open_session(probe, CPU, {}, None))
    monkeypatch.setattr(sessions, "BOUND", ("cpu",))
    session = Session(graph, provider="cpu")
    assert session.run(example) and not session._bound


@pytest.mark.parametrize(
    "wrong",
    [
        {"x": np.zeros((1, 4, 64, 63), np.float32)},
        {"x": np.zeros((1, 4, 64, 64))},
        {"z": np.zeros((1, 4, 64, 64), np.float32)},
        {},
    ],
    ids=["shape", "type", "name", "none"],
)
def test_other_inputs_are_refused(wrong: Mapping[str, np.ndarray], bound: Session) -> None:
    with pytest.raises(ModelError, match=r"probe\.onnx failed on"):
        bound.run(wrong)  # type: ignore[arg-type]


def test_a_bound_run_can_be_cancelled(bound: Session) -> None:
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled):
        bound.run(probe_feeds(), cancel=cancel)
    assert np.isfinite(bound.run(probe_feeds())[0]).all()


def test_threads_share_a_bound_session_one_at_a_time(probe: Path, bound: Session) -> None:
    plain = open_session(probe, CPU, {}, None)
    expected = [plain.run(None, feeds(k))[0] for k in range(4)]
    wrong: list[int] = []

    def work(k: int) -> None:
        wrong.extend(k for _ in range(20) if not np.array_equal(bound.run(feeds(k))[0], expected[k]))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_only_the_outputs_that_are_wanted_are_bound() -> None:
    graph, example = golden_feeds(load_model(GRAPHS / "hybrid"))
    session = open_session(graph, CPU, {}, None)
    if not bindable(session):
        pytest.skip("the hybrid test graph has free shapes")
    names = [t.name for t in session.get_outputs()]
    (only,) = Bound(session, "cpu", names[1:2]).run(example, None)
    assert np.array_equal(only, session.run(names[1:2], example)[0])
