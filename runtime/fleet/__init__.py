"""Ten thousand songs: lists of them, places anywhere, and Ray. The only room that knows ray (extra ``fleet``).

>>> from ortsep.fleet import separate
>>> separate("drums_mini", ["a.wav", "s3://music/b.flac"], "s3://music/stems", on="ray")       # doctest: +SKIP
Tally(done=2, skipped=0, failed=0, seconds=421.3, status=0)
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ortsep.base.errors import UsageError
from ortsep.batch import Job, load
from ortsep.fleet.lists import OPTIONS, Row, Shard
from ortsep.fleet.onray import Cluster
from ortsep.fleet.run import Order, Tally, Told, run
from ortsep.options import Options
from ortsep.songs import Files

__all__ = ["Cluster", "Shard", "Tally", "separate"]


def separate(
    model: str | Iterable[str],
    songs: Iterable[str | Path | Mapping[str, Any]],
    output: str | Path,
    *,
    on: Cluster | str | None = None,
    jobs: int = 1,
    shard: str | None = None,
    told: Told | None = None,
    provider: str = "auto",
    threads: int | None = None,
    timeout: float | None = None,
    report_to: str | Path | None = None,
    **options: Any,
) -> Tally:
    """Separate a list of songs into ``output``, a folder or an address of fsspec.

    ``model``: one, or a chain of them. ``songs``: paths, addresses, or mappings with ``path`` and options of their own;
    they are drawn as they are needed. ``on``: "ray", "ray:HOST:PORT" or a Cluster; without it ``jobs`` processes here.
    ``told`` is called with number, song and SongReport or error of each. ``options`` are fields of Options and Files.

    Raises UsageError, ModelError, FileMissing, ProviderError, MissingDependency; what is wrong with one song is told
    and counted.
    """
    models = (model,) if isinstance(model, str) else tuple(model)
    of_files = {field.name for field in fields(Files)}
    files = Files(output=str(output), **{k: v for k, v in options.items() if k in of_files})
    chosen = Options(**{k: v for k, v in options.items() if k not in of_files})
    job = Job(models, {"provider": provider, "threads": threads}, chosen, files, timeout)
    if isinstance(on, str):
        kind, _, address = on.partition(":")
        if kind != "ray":
            raise UsageError(f"on={on!r} is no cluster that ortsep knows; say 'ray' or 'ray:HOST:PORT'")
        on = Cluster(on if address.startswith("//") else address, threads=threads or 1)
    part = None if shard is None else Shard.parse(shard)
    order = Order(shard=part, cluster=on, jobs=jobs, results=None if report_to is None else Path(report_to))
    return run(load(models, job.loading), job, order, map(_row, songs), told or (lambda number, song, outcome: None))


def _row(song: str | Path | Mapping[str, Any]) -> Row:
    if not isinstance(song, Mapping):
        return Row(str(song))
    own = {name: value for name, value in song.items() if name in OPTIONS and value is not None}
    more = {name: value for name, value in song.items() if name != "path" and name not in OPTIONS}
    if "path" not in song:
        raise UsageError(f"a song without a path: {dict(song)!r}; give it one")
    return Row(str(song["path"]), own, more)
