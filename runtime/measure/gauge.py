"""What graphs take of a run: the seconds in which one is under way, and the operations in them."""

import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.graphs.session import Observer

MOST_EVENTS = 1_000_000
"""What ONNX Runtime's record holds; it leaves out what comes after."""


class GraphTime(Observer):
    """Counts the ``seconds`` in which at least one graph runs, in whatever thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._under_way, self._since = 0, 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._lock:
            if self._under_way == 0:
                self._since = time.perf_counter()
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if self._under_way == 0:
                    self.seconds += time.perf_counter() - self._since


class Operations(Observer):
    """Has ONNX Runtime record in ``folder`` what the sessions run that it is given to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: list[Any] = []

    def opening(self, options: Any) -> None:
        options.enable_profiling = True
        options.profile_file_prefix = str(self._folder / f"graph{len(self._opened)}")
        # A weight that was packed for its kernel is missing from the record.
        options.add_session_config_entry("session.disable_prepacking", "1")

    def opened(self, session: Any) -> None:
        self._opened.append(session)

    def count(self) -> float:
        """End the records and tell their floating-point operations (``operations``); NaN where one is not whole."""
        return sum(operations(Path(session.end_profiling())) for session in self._opened)


def operations(record: Path) -> float:
    """Floating-point operations of the products and convolutions in a profile of ONNX Runtime, two a multiply-add.

    What is not counted (norms, activations, copies) is what keeps a graph from the ceiling. NaN where a record is full.
    """
    total, events = 0, 0
    with record.open(encoding="utf-8") as lines:
        for line in lines:
            events += 1
            if '"op_name"' not in line or '"output_type_shape"' not in line:
                continue
            made = json.loads(line.strip().rstrip(","))["args"]
            count = _COUNTS.get(made["op_name"])
            if count is not None:
                taken, given = ([next(iter(s.values())) for s in made[f"{side}_type_shape"]] for side in _SIDES)
                total += 2 * count(taken, given)
    return float("nan") if events >= MOST_EVENTS else float(total)


_SIDES = ("input", "output")
Shapes = Sequence[Sequence[int]]


def _product(taken: Shapes, given: Shapes) -> int:
    """However either factor is transposed, the first's last two axes are the result's rows and what is summed over."""
    first, result = taken[0], given[0]
    if len(first) == 1 or len(result) < 2:
        return math.prod(result) * first[-1]
    return math.prod(result) * (first[-1] * first[-2] // result[-2] if result[-2] else 0)


def _convolution(taken: Shapes, given: Shapes) -> int:
    return math.prod(given[0]) * math.prod(taken[1][1:])


def _transposed(taken: Shapes, given: Shapes) -> int:
    return math.prod(taken[0]) * math.prod(taken[1][1:])


def _recurrent(taken: Shapes, given: Shapes) -> int:
    steps, batch, features = taken[0]
    directions, gates, units = taken[2]
    return steps * batch * directions * gates * (features + units)


def _attention(taken: Shapes, given: Shapes) -> int:
    """Queries by keys, and that by values as wide."""
    return 2 * math.prod(taken[0]) * taken[1][-2]


_COUNTS: dict[str, Callable[[Shapes, Shapes], int]] = {
    **dict.fromkeys(("MatMul", "FusedMatMul", "Gemm", "FusedGemm"), _product),
    **dict.fromkeys(("MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), _product),
    **dict.fromkeys(("Conv", "FusedConv"), _convolution),
    "ConvTranspose": _transposed,
    **dict.fromkeys(("LSTM", "GRU"), _recurrent),
    **dict.fromkeys(("MultiHeadAttention", "Attention"), _attention),
}


def ceiling(size: int = 2048, runs: int = 6) -> float:
    """Median GFLOP/s of numpy's float32 matrix product on all cores: what there is to be reached."""
    a, b = (np.random.default_rng(s).standard_normal((size, size)).astype(np.float32) for s in (0, 1))
    rates = []
    for _ in range(runs):
        began = time.perf_counter()
        a @ b
        rates.append(2 * size**3 / (time.perf_counter() - began) / 1e9)
    return statistics.median(rates)
