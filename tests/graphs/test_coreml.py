"""CoreML against the CPU, on a Mac alone: a graph of each domain, with what was found printed, so that the first run
tells all (``pytest -s``)."""

import sys
from pathlib import Path

import pytest
from places import GRAPHS

from ortsep.graphs.model import load_model
from ortsep.measure.doctor import examine, golden_feeds
from ortsep.models.catalogue import BUNDLED

pytestmark = pytest.mark.skipif(sys.platform != "darwin", reason="CoreML is macOS's")
MODELS = [*sorted(GRAPHS.iterdir()), BUNDLED / "drums_mini"]


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_coreml_computes_what_the_cpu_does(folder: Path) -> None:
    """It may be slow, or take no node of a graph; what it takes it must compute rightly."""
    verdict = examine(*_first(folder), judge_speed=False)
    print(f"\n{folder.name}: {verdict}")
    assert verdict.installed and verdict.loads and verdict.runs and verdict.correct, verdict


def _first(folder: Path) -> tuple[Path, str, dict[str, object]]:
    graph, feeds = golden_feeds(load_model(folder))
    return graph, "coreml", feeds
