"""ISR, SIR and SAR by ``museval`` (BSS Eval v4), where it is installed: its filters are its own."""

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ortsep.audio.sources import Source
from ortsep.base.arrays import F64
from ortsep.base.errors import MissingDependency, OrtsepError
from ortsep.base.threads import closed
from ortsep.measure.score import Figures


@cache
def metrics() -> ModuleType:
    """museval's module of metrics alone: the package around it wants a data set's tools. Raises MissingDependency."""
    found = importlib.util.find_spec("museval")
    try:
        if found is None or found.origin is None:
            raise ImportError("there is no museval")
        spec = importlib.util.spec_from_file_location("ortsep_museval", Path(found.origin).with_name("metrics.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        raise MissingDependency(
            f"ISR, SIR and SAR are museval's and that can't be imported ({error}); pip install 'ortsep[score]'"
        ) from error
    return module


def add_museval(
    judged: Mapping[str, Figures], references: Mapping[str, Source], estimates: Mapping[str, Source]
) -> dict[str, Figures]:
    """The figures with museval's medians over seconds added, for stems of which neither side is silent.

    museval holds all of them in memory. Raises MissingDependency, and OrtsepError where it fails.
    """
    stems = [stem for stem, figures in judged.items() if figures.frames_sdr is not None]
    if not stems:
        return dict(judged)
    window = estimates[stems[0]].sample_rate
    true, given = (np.stack([_whole(side[stem]) for stem in stems]) for side in (references, estimates))
    try:
        found = metrics().bss_eval(true, given, window=window, hop=window, compute_permutation=False)
    except (ValueError, ArithmeticError, AttributeError, np.linalg.LinAlgError) as error:
        raise OrtsepError(f"museval gave up ({error}); leave --museval out for these stems") from error
    medians = [np.nanmedian(figure, axis=1) for figure in found[1:4]]
    result = dict(judged)
    for row, stem in enumerate(stems):
        isr, sir, sar = (float(v[row]) if np.isfinite(v[row]) else None for v in medians)
        result[stem] = replace(result[stem], isr=isr, sir=sir, sar=sar)
    return result


def _whole(source: Source) -> F64:
    """A source as museval takes it: [N, C] in float64."""
    with closed(source.blocks()) as blocks:
        return np.concatenate(list(blocks), axis=1).T.astype(np.float64)
