"""``ortsep bench``: speed and memory here, beside the original where its package is installed."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base import apart
from ortsep.base.errors import MissingDependency, UsageError
from ortsep.base.whole import scratch
from ortsep.commands.terminal import screen
from ortsep.graphs.model import load_model
from ortsep.measure.bench import measure, noise_song
from ortsep.songs.mixture import counted

COLUMNS = {"cold_start": 2, "first_stems": 2, "seconds": 2, "real_time_factor": 3, "peak_mb": 0}
"""Of the table, with their digits."""


def bench_command(
    reference: str,
    song: Path | None,
    seconds: float,
    runs: int,
    against: str | None,
    weights: str | None,
    *,
    as_json: bool,
) -> int:
    if against not in (None, "original", "torch"):
        raise UsageError(f"there is nothing to compare with called {against!r}; write --against original")
    if not 0.1 <= seconds <= 86400:  # NaN too
        raise UsageError(f"{seconds:g} s of audio can't be measured; give --seconds from 0.1 to 86400")
    if against is not None:
        _require_original()
    model = load_model(reference)
    target = str(model.folder if len(model.members) > 1 else model.file(model.members[0]))
    with scratch("ortsep-bench") as folder:
        if song is None:
            song = folder / "noise.wav"
            noise_song(song, seconds, model.spec.sample_rate)
        else:
            found = counted(song)
            seconds = found.samples / found.sample_rate
        ours = apart.command("ortsep.measure.bench", target, song, folder, "{}")
        others = {}
        if against is not None:
            source = model.spec.weights.source if model.spec.weights.random else weights or ""
            others["original"] = apart.command("ortsep.export.reference", model.spec.entry, source, song, folder)
        result = measure(ours, others, runs, seconds, _Told(runs, ["ortsep", *others]))
    screen.clear()
    document = {"version": __version__, "model": model.spec.name, "size_mb": round(model.size() / 1e6, 1), **result}
    if as_json:
        print(json.dumps(document))
    else:
        _table(document)
    return 0


class _Told:
    """Says each run's figures, and meanwhile what is being measured."""

    def __init__(self, runs: int, sides: Sequence[str]) -> None:
        self._next = iter([f"run {n + 1}/{runs} {side}" for n in range(runs) for side in sides])
        screen.doing(f"{next(self._next)}: separating ...")

    def __call__(self, text: str) -> None:
        screen.say(text)
        run = next(self._next, "")
        screen.doing(f"{run}: separating ..." if run else "counting operations ...")


def _require_original() -> None:
    """Raise MissingDependency before anything is measured where the frameworks to compare with are not installed."""
    lacking = [name for name in ("torch", "onnx") if find_spec(name) is None]
    if lacking:
        raise MissingDependency(
            f"--against original needs {' and '.join(lacking)}, which the lean runtime leaves out; "
            "pip install 'ortsep[export]'"
        )


def _table(document: dict[str, Any]) -> None:
    print(f"{document['model']}, {document['seconds']:.0f} s of audio, medians of {document['runs']} interleaved runs")
    heads = ("cold start s", "first stems s", "file to files s", "of real time", "peak MB", "graphs alone s")
    print(" " * 12 + "".join(f"{head:>17}" for head in heads))
    for side, m in document["medians"].items():
        row = "".join(f"{m[key]:>17.{digits}f}" for key, digits in COLUMNS.items())
        print(f"{side:<12}{row}" + (f"{m['graphs']:>17.2f}" if m["graphs"] is not None else ""))
    for side, r in document["ratios"].items():
        print(f"ortsep / {side}: time {r['time']:.2f}, peak memory {r['peak']:.2f}", end=", ")
        print(f"cold start {r['cold_start']:.2f}, first stems {r['first_stems']:.2f}")
    stream = document["stream"]
    heard = "all of the song" if stream["whole"] else f"{stream['heard']:.1f} s of the song"
    print(f"stream: the first stems {stream['latency']:.2f} s behind the first block, of {heard}")
    if (shares := document["shares"]) is not None:
        reached = f"{shares['graphs']:.0%} in the graphs, {shares['end_to_end']:.0%} from file to files"
        print(f"{document['gflop']:.0f} GFLOP of products and convolutions; matrix products alone", end=" ")
        print(f"reach {document['ceiling']:.0f} GFLOP/s here: {reached}")
