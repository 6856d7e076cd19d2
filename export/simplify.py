"""onnxsim as a stage of its own, kept only where it gains: fewer nodes or less time, and all of the accuracy.

onnxsim folds what is constant once shapes are known, in C++; our passes come before and behind it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from ortsep.base.decibels import in_words, snr
from ortsep.base.errors import MissingDependency
from ortsep.export.graph.precision import measure_time, open_graph
from ortsep.export.passes import optimize

FASTER = 0.97
"""Share of the time from which fewer seconds are more than chance."""
SLOWER = 1.03


@dataclass(frozen=True)
class Simplified:
    """What onnxsim made of a graph: nodes before and behind, the worst SNR over the outputs in dB, the ratio of the
    times, and whether that was kept."""

    before: int
    after: int
    db: float
    ratio: float
    kept: bool

    def __str__(self) -> str:
        verdict = "kept" if self.kept else "left out, since it gains nothing"
        return (
            f"onnxsim: {self.before} -> {self.after} nodes, {in_words(self.db)}, "
            f"{self.ratio:.2f} of the time: {verdict}"
        )


def simplify(
    model: onnx.ModelProto,
    inputs: Mapping[str, Any],
    *,
    gate: float,
    portable: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[onnx.ModelProto, Simplified]:
    """``model`` simplified, or as it is, and what was found on ``inputs``. The given model is not changed.

    ``gate``: dB that must be kept. A graph that onnxsim can't read is left as it is. Raises MissingDependency.
    """
    try:
        import onnxsim
    except ImportError as error:
        raise MissingDependency("--simplify needs onnxsim; pip install onnxsim, or leave it out") from error
    nodes = len(model.graph.node)
    try:
        made, sound = onnxsim.simplify(model)
        made, _ = optimize(made, portable=portable)
        other = open_graph(made)
    except Exception as error:  # a program of others on any graph: what it can't do costs nothing
        say(f"onnxsim can't simplify this graph ({(str(error).splitlines() or [''])[0][:120]}); it stays as it is")
        return model, Simplified(nodes, nodes, 999.0, 1.0, False)
    given = open_graph(model)
    reference, result = given(inputs), other(inputs)
    db = min(snr(reference[name], result[name]) for name in reference)
    ratio = measure_time("onnxsim", given, other, inputs).ratio
    fewer = len(made.graph.node) < nodes and ratio <= SLOWER
    same = Counter(n.op_type for n in made.graph.node) == Counter(n.op_type for n in model.graph.node)  # time is chance
    kept = bool(sound) and db >= gate and not same and (fewer or ratio < FASTER)
    found = Simplified(nodes, len(made.graph.node), db, ratio, kept)
    say(str(found))
    if not kept:
        return model, found
    del made.metadata_props[:]
    made.metadata_props.extend(model.metadata_props)
    return made, found
