"""General passes: rewriting any ONNX graph to an equal but cheaper one.

A pass is a function of an ``Editor`` that returns how many places it changed, with its algebra and what it gains in its
docstring. ``optimize`` runs them all in order; one that finds nothing leaves the model as it was, to the byte. What
each requires and ensures stands in ``contract``, and is checked where ``ORTSEP_CHECK_PASSES`` is set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from ortsep.base.errors import ModelError
from ortsep.export.passes.attention import fuse_attention, split_projections
from ortsep.export.passes.clean import drop_dead, drop_expand, fold_constants, fuse_gelu, simplify_moves
from ortsep.export.passes.contract import OLDEST, Pass, check_before, check_behind, checking
from ortsep.export.passes.convs import crop_transposed, fold_affine, shuffle_transposed, split_glu
from ortsep.export.passes.editor import Editor
from ortsep.export.passes.layout import cancel_transposes, unfold_rows
from ortsep.export.passes.norms import expansion_norm, step_means, step_norm
from ortsep.export.passes.standard import standard_attention, standard_rotary


@dataclass(frozen=True)
class PassReport:
    """What one pass did: places changed, and nodes before and after."""

    name: str
    changed: int
    before: int
    after: int


def passes(portable: bool = False) -> tuple[Pass, ...]:
    """All passes in their order; ``portable`` makes no operator that is not in the ONNX standard, and replaces those of
    ONNX Runtime's own that it knows."""
    return (
        drop_dead,
        fold_constants,
        fuse_gelu,
        expansion_norm,
        step_norm,
        step_means,
        *((standard_rotary, standard_attention, split_projections) if portable else (fuse_attention,)),
        unfold_rows,
        split_glu,
        fold_affine,
        crop_transposed,
        shuffle_transposed,
        drop_expand,
        simplify_moves,
        cancel_transposes,
        simplify_moves,
        fold_constants,
    )


def apply(model: onnx.ModelProto, one: Pass) -> tuple[onnx.ModelProto, int]:
    """Run one pass. Returns a new model and the number of places changed, or the same model and 0.

    Raises BrokenPass for a broken contract, where contracts are checked.
    """
    given = check_before(one, model) if checking() else None
    editor = Editor(model)
    changed = one(editor)
    if not changed:
        return model, 0
    made = editor.finish()
    if given is not None:
        check_behind(one, given, made)
    return made, changed


def optimize(
    model: onnx.ModelProto, chosen: Sequence[Pass] | None = None, *, portable: bool = False
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Rewrite a model with all passes, or the chosen ones. The given model is not changed.

    Raises ModelError for an opset below 13.
    """
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST:
        raise ModelError(
            f"this graph is of opset {opset} and the passes need {OLDEST}; convert it with onnx.version_converter first"
        )
    reports = []
    for one in passes(portable) if chosen is None else chosen:
        before = len(model.graph.node)
        model, changed = apply(model, one)
        reports.append(PassReport(one.__name__, changed, before, len(model.graph.node)))
    if any(report.changed for report in reports):
        del model.graph.value_info[:]
    return model, reports
