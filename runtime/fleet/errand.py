"""One song of a long list, wherever it and its stems are: what is done with it is the same on every executor."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ortsep.base.paths import is_url
from ortsep.base.whole import scratch
from ortsep.batch import Job, Task, separate_task
from ortsep.chain import Chain
from ortsep.fleet import remote
from ortsep.separator import Separator
from ortsep.songs import Files, SongReport
from ortsep.songs.provenance import provenance
from ortsep.songs.record import skipped
from ortsep.songs.separate import Seconds

_OF_FILES = ("start", "duration", "downmix", "allow_truncated", "format", "subtype", "rate")


@dataclass(frozen=True)
class Errand:
    """A song, where each of its stems goes, and what its row of the manifest changes. Paths or addresses."""

    song: str
    targets: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def record(self) -> str:
        """Where the record of the finished song lies: beside its first stem."""
        home, _, name = next(iter(self.targets.values())).rpartition("/")
        return f"{home}/.{name}.ortsep.json"

    def folders(self) -> set[Path]:
        """Where something is written on this machine."""
        return {Path(target).parent for target in self.targets.values() if not is_url(target)}

    def changed(self, job: Job) -> Job:
        """The run's job with what this row changes. Raises UsageError for values that can't be meant."""
        if not self.options:
            return job
        files: Files = replace(job.files, **{k: v for k, v in self.options.items() if k in _OF_FILES})
        options = replace(job.options, **{k: v for k, v in self.options.items() if k not in _OF_FILES})
        return replace(job, files=files, options=options)


def run_errand(
    separator: Separator | Chain, job: Job, errand: Errand, progress: Seconds, sink: BinaryIO | None = None
) -> SongReport:
    """Separate one song: fetched where it is elsewhere, its stems delivered where they go elsewhere.

    Raises an OrtsepError, whose ``transient`` says whether trying again may help.
    """
    job = errand.changed(job)
    away, abroad = is_url(errand.song), is_url(next(iter(errand.targets.values())))
    if not away and not abroad:
        targets = {name: Path(target) for name, target in errand.targets.items()}
        return separate_task(separator, job, Task(Path(errand.song), targets), progress, sink)
    with ExitStack() as stack:
        made: dict[str, Any] = {}
        if abroad:
            made = _made(separator, job, errand.song)
            if job.files.skip_existing and _still_right(errand, made):
                return skipped(separator.spec.name, errand.song, errand.targets)
        folder = stack.enter_context(scratch("ortsep-fleet-"))
        song = remote.fetch(errand.song, folder) if away else Path(errand.song)
        if abroad:
            targets = {name: folder / "stems" / Path(target).name for name, target in errand.targets.items()}
        else:
            targets = {name: Path(target) for name, target in errand.targets.items()}
        here = replace(job, files=replace(job.files, skip_existing=False)) if abroad else job
        report = separate_task(separator, here, Task(song, targets), progress, sink)
        if abroad:
            _deliver(errand, targets, made, folder)
        outputs = tuple(replace(stem, path=errand.targets[stem.stem_name]) for stem in report.outputs)
        return replace(report, song=errand.song, outputs=outputs)


def _deliver(errand: Errand, targets: Mapping[str, Path], made: Mapping[str, Any], folder: Path) -> None:
    for target, path in {errand.targets[name]: path for name, path in targets.items()}.items():
        remote.deliver(path, target)
    record = folder / "record.json"
    sizes = {name: path.stat().st_size for name, path in targets.items()}
    record.write_text(json.dumps({"made": made, "sizes": sizes}), encoding="ascii")
    remote.deliver(record, errand.record)


def _made(separator: Separator | Chain, job: Job, song: str) -> dict[str, Any]:
    """All that changes a sample, as JSON reads it back; the song by what its store tells of it, or by its bytes."""
    input_ = remote.identity(song) if is_url(song) else Path(song)
    made = provenance(separator, job.options, job.files.sound(), input_)
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


def _still_right(errand: Errand, made: Mapping[str, Any]) -> bool:
    record = remote.recorded(errand.record)
    sizes = record.get("sizes")
    return record.get("made") == made and isinstance(sizes, dict) and remote.all_there(errand.targets, sizes)
