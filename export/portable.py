"""The portable form of a graph, made when it is asked for: the same of operators of the ONNX standard alone, in the
cache, for providers that leave ONNX Runtime's own operators to the CPU."""

from collections.abc import Callable
from pathlib import Path

import onnx

from ortsep.base.errors import ModelError
from ortsep.export.graph.builder import all_nodes
from ortsep.export.graph.files import save_model
from ortsep.export.passes import optimize
from ortsep.export.passes.standard import standard_attention, standard_rotary
from ortsep.graphs.portable import make_room, portable_path, used

STANDARD = ("", "ai.onnx")


def own_operators(model: onnx.ModelProto) -> list[str]:
    """The operators of a graph that are not in the ONNX standard."""
    return sorted({f"{n.domain}.{n.op_type}" for n in all_nodes(model.graph.node) if n.domain not in STANDARD})


def portable_form(graph: Path, say: Callable[[str], None] = lambda _: None) -> Path | None:
    """The file of a graph's portable form, made unless it is there; None where the graph is portable as it is.

    Its metadata are the graph's. Raises ModelError for operators that have no standard form here, OutputError where
    the cache can't be written.
    """
    path = portable_path(graph)
    if path.exists():
        return used(path)
    model = onnx.load(str(graph))
    if not own_operators(model):
        return None
    say(f"making a portable form of {graph.name} ...")
    made, _ = optimize(model, [standard_rotary, standard_attention])
    if own_operators(made) and any(node.op_type == "Scan" for node in made.graph.node):
        raise ModelError(f"{graph.name} has operators of ONNX Runtime's own in a loop; export it again with --portable")
    if left := own_operators(made):
        raise ModelError(
            f"{graph.name} has no portable form: nothing of the ONNX standard takes the place of {left[0]}"
        )
    make_room(made.ByteSize() if made.ByteSize() < 1 << 31 else graph.stat().st_size)
    save_model(made, path)
    return path
