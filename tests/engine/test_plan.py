"""A plan says what a run will do before anything is loaded; the run then does it."""

from typing import Any

import pytest
from fakes import WAVES, changed, faked, scaled, song
from places import GRAPHS

from ortsep.engine.plan import ChunkRun, FrameRun, plan_run
from ortsep.graphs.session import Observer
from ortsep.models.spec import Border, Chunks, Free, Join, Normalization
from ortsep.options import Options
from ortsep.separator import Separator


class Runs(Observer):
    count = 0

    def running(self) -> Any:
        self.count += 1
        return super().running()


SHIFTED: dict[str, Any] = {"overlap": 0.6, "shifts": 2}
CHOICES: dict[str, list[dict[str, Any]]] = {
    **{name: [{}, SHIFTED] for name in ("waves", "hybrid")},
    **{name: [{}, {"overlap": 0.6}, {"chunk": 0.8}] for name in ("complex", "plain")},
    **{name: [{}] for name in ("ratio", "masks")},
    "wiener": [{}, {"chunk": 0.8}, {"niter": 0}],
}


@pytest.mark.parametrize(("name", "options"), [(name, o) for name, choices in CHOICES.items() for o in choices])
@pytest.mark.parametrize("samples", [1, 4000, 4001, 20_480, 50_000])
def test_as_many_runs_as_planned(name: str, samples: int, options: dict[str, Any]) -> None:
    seen = Runs()
    separator = Separator(GRAPHS / name, sample_rate=8000, observer=seen)
    spec, chosen = separator.spec, Options(**options)
    plan = separator.plan(samples, 8000, chosen)
    assert not separator._graphs.loaded
    separator.separate(song(samples), 8000, chosen)
    assert seen.count == plan.runs
    assert plan == plan_run(spec, chosen, samples, tuple(range(len(spec.stems)))), "equal whenever it is made"


def test_a_plan_of_chunks_is_printed() -> None:
    chunks = Chunks(
        4000, parts=4, join=Join("fade", 400), border=Border(fill="reflect", overlapping=True), tail="reflect"
    )
    run = plan_run(changed(chunks=chunks, normalization=Normalization("track")), Options(), 16_000, (0, 1))
    assert isinstance(run, ChunkRun) and run.levels == "track"
    assert str(run).split("\n") == [
        "song: 16000 samples at 8000 Hz (2.00 s), whose track is measured in a pass of its own",
        "chunks: 19 of 4000 samples (0.50 s) every 1000",
        "border: 3000 samples before and 3000 after, reflect",
        "join: fade with fades of 400, tail reflect",
        "runs of each graph: 19",
    ]


def test_a_plan_of_frames_is_printed() -> None:
    run = Separator(GRAPHS / "wiener").plan(80_000, 8000)
    assert isinstance(run, FrameRun)
    assert str(run).split("\n") == [
        "song: 80000 samples at 8000 Hz (10.00 s)",
        "frames: 1251, in blocks of 64 frames, 1 a run, cross-faded over 16",
        "filter: wiener, 1 iterations over 40 frames",
        "runs of each graph: 26",
    ]


@pytest.mark.parametrize(
    ("stems", "options", "rest"),
    [
        (("drums",), {}, False),
        (("drums",), {"rest": True}, True),
        ((), {"residual": True}, True),
        ((), {"two_stems": "drums"}, True),
    ],
)
def test_the_wiener_filter_has_the_sources_that_the_original_has(stems: Any, options: Any, rest: bool) -> None:
    """Open-Unmix's EM is over its targets, and a residual only where one is asked for."""
    run = Separator(GRAPHS / "wiener").plan(80_000, 8000, Options(stems=stems, **options))
    assert isinstance(run, FrameRun) and run.rest == rest


def test_a_plan_of_another_rate_and_of_two_stems() -> None:
    separator, _ = faked(WAVES, scaled(0.5, 0.25))
    run = separator.plan(44_100, 44_100, Options(two_stems="b"))
    assert isinstance(run, ChunkRun)
    assert (run.samples, run.rows) == (8000, (1,))


def test_a_chunk_of_another_length_has_fades_in_proportion() -> None:
    chunks = Chunks(1000, join=Join("fade", 100), takes=Free())
    run = plan_run(changed(chunks=chunks), Options(chunk=0.25), 9000, (0,))
    assert isinstance(run, ChunkRun)
    assert (run.chunks.length, run.chunks.join.fade) == (2000, 200)
