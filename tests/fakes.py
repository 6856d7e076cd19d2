"""A Separator whose graph is a Python function, for specs that no stored graph has."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from places import GRAPHS

from ortsep.base.cancel import Cancel
from ortsep.engine.domains import DOMAINS
from ortsep.graphs.model import Model
from ortsep.graphs.session import Tensor
from ortsep.models.spec import Chunks, Member, ModelSpec
from ortsep.separator import Separator

Function = Callable[..., Any]
"""Takes a graph's inputs by name, gives its outputs, a tuple of them or one."""

WAVES = ModelSpec("fake", "test", ("a", "b"), 8000, 2, "waveform", "stems", chunks=Chunks(1000))


class FakeSession:
    """Looks like ``ortsep.graphs.session.Session``; ``heard`` are the inputs of every run."""

    provider, reason = "cpu", ""
    metadata: dict[str, str] = {}  # noqa: RUF012  (empty)
    outputs = ()

    def __init__(self, spec: ModelSpec, function: Function) -> None:
        self.inputs = tuple(Tensor(name, ()) for name in DOMAINS[spec.domain].inputs)
        self.heard: list[dict[str, np.ndarray]] = []
        self._function = function

    def run(self, feeds: dict[str, np.ndarray], outputs: Any = None, cancel: Cancel | None = None) -> list[np.ndarray]:
        if cancel is not None:
            cancel.check()
        self.heard.append({name: value.copy() for name, value in feeds.items()})
        results = self._function(**feeds)
        return [np.asarray(r, np.float32) for r in (results if isinstance(results, tuple) else (results,))]


def faked(spec: ModelSpec, function: Function) -> tuple[Separator, FakeSession]:
    separator = Separator(GRAPHS / "plain")
    rows = tuple(range(len(spec.stems)))
    member = Member("fake.onnx", (1.0,) * len(rows), rows)
    separator.model = Model(spec, GRAPHS / "plain", (member,))
    separator._graphs = separator._new_graphs()
    session = FakeSession(spec, function)
    separator._graphs._sessions["fake.onnx", None] = session  # type: ignore[assignment]
    return separator, session


def scaled(*factors: float) -> Function:
    """A waveform graph whose stems are multiples of the mixture."""
    return lambda mix: np.stack([mix * factor for factor in factors], axis=1)


def song(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.8, 0.8, (channels, samples)).astype(np.float32)


def changed(**changes: Any) -> ModelSpec:
    return replace(WAVES, **changes)
