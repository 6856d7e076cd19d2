"""A long list of songs from its words to its results: named, shared out, separated, written down."""

import contextlib
import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from ortsep.base.errors import FileMissing, OrtsepError, UsageError
from ortsep.base.paths import is_url
from ortsep.batch import Event, Job, in_processes
from ortsep.chain import Chain
from ortsep.fleet import remote
from ortsep.fleet.errand import Errand, run_errand
from ortsep.fleet.lists import Row, Shard, read_manifest
from ortsep.fleet.onray import Cluster, in_ray
from ortsep.fleet.results import Results
from ortsep.models.catalogue import folder_name
from ortsep.separator import Separator
from ortsep.songs import SongReport
from ortsep.songs.separate import suited
from ortsep.stems.paths import Names

Told = Callable[[int, str, SongReport | OrtsepError], None]
"""Number, song and outcome of each song that has ended."""


@dataclass(frozen=True)
class Order:
    """Which songs, and how. ``words`` are paths, addresses, and addresses with wildcards; ``manifest`` a list of more.
    ``cluster``: None for this machine, with ``jobs`` processes."""

    words: tuple[str, ...] = ()
    manifest: str | None = None
    shard: Shard | None = None
    cluster: Cluster | None = None
    jobs: int = 1
    results: Path | None = None


@dataclass
class Tally:
    """How many songs have ended how; ``seconds`` of audio separated; the status of the first that failed."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0
    status: int = 0


def rows(order: Order, endings: tuple[str, ...], gather: Callable[[Sequence[str]], Iterable[Path]]) -> Iterator[Row]:
    """The songs in their order, one at a time. ``gather`` finds the songs in local folders.

    Raises FileMissing, UsageError, RemoteError, MissingDependency.
    """
    for word in order.words:
        if is_url(word):
            yield from (Row(song) for song in remote.globbed(word, endings))
        else:
            yield from (Row(str(path)) for path in gather([word]))
    if order.manifest is not None:
        yield from read_manifest(order.manifest)


def errands(found: Iterable[Row], separator: Separator | Chain, job: Job, shard: Shard | None) -> Iterator[Errand]:
    """Rows as errands: every song of the list gets its place, ours are kept. Raises UsageError for a song that comes
    twice with the same options, or a row that asks for what the model hasn't."""
    base = str(job.files.output)
    places: dict[tuple[Any, ...], Names] = {}
    seen: set[bytes] = set()

    def placed() -> Iterator[tuple[Row, Errand]]:
        for row in found:
            changed = Errand(row.song, {"": ""}, row.options).changed(job)
            print_ = _digest(f"{row.song}\n{sorted(row.options.items())}")
            if print_ in seen:
                raise UsageError(f"{row.song} is in the list twice; remove one")
            seen.add(print_)
            names = separator.names(suited(separator, changed.options, changed.files))
            key = (names, changed.files.format)
            if key not in places:
                model = folder_name(separator.spec.name)
                places[key] = Names(changed.files.template, names, model=model, ext=changed.files.format, taken=taken)
            files = places[key].of(Path(_name(row.song)))
            yield row, Errand(row.song, {s: _under(base, f) for s, f in files.items()}, row.options, row.more)

    taken: set[bytes] = set()
    for number, (_, errand) in enumerate(placed()):
        if shard is None or number % shard.count == shard.index - 1:
            yield errand


def run(separator: Separator | Chain, job: Job, order: Order, found: Iterable[Row], told: Told) -> Tally:
    """Separate all of it. Raises what ends the whole run; a song that fails is told of and counted."""
    tally = Tally()
    waiting: dict[int, Errand] = {}

    def drawn() -> Iterator[Errand]:
        for number, errand in enumerate(errands(found, separator, job, order.shard)):
            waiting[number] = errand
            yield errand

    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone(str(job.files.output), order.shard))
        results = stack.enter_context(Results(order.results)) if order.results else None

        def tell(event: Event) -> None:
            if event.kind not in ("finished", "failed"):
                return
            errand = waiting.pop(event.task)
            _count(tally, event.value)
            if results is not None:
                results.add(errand.song, event.value, errand.more)
            told(event.task, errand.song, event.value)

        source = drawn()
        first = next(source, None)
        if first is None:
            raise FileMissing("the list holds no songs; name some, or another manifest or --shard")
        if order.cluster is not None:
            in_ray(job, chain([first], source), order.cluster, tell)
        else:
            in_processes(job, chain([first], source), order.jobs, tell, run_errand)
    return tally


def _count(tally: Tally, outcome: SongReport | OrtsepError) -> None:
    if isinstance(outcome, OrtsepError):
        tally.failed += 1
        tally.status = tally.status or outcome.status
    elif outcome.skipped:
        tally.skipped += 1
    else:
        tally.done += 1
        tally.seconds += outcome.seconds


def _digest(text: str) -> bytes:
    return hashlib.blake2b(unicodedata.normalize("NFC", text).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _name(song: str) -> str:
    return PurePosixPath(song.split("?")[0]).name if is_url(song) else song


def _under(base: str, file: str) -> str:
    return f"{base.rstrip('/')}/{file}" if is_url(base) else str(Path(base) / file)


@contextlib.contextmanager
def _alone(base: str, shard: Shard | None) -> Iterator[None]:
    """Two runs over one local folder would make the same songs: the second is refused; different shards may share it.

    Raises UsageError.
    """
    if is_url(base):
        yield
        return
    try:
        import fcntl
    except ImportError:  # Windows: whole files refuse each other one by one
        yield
        return
    folder = Path(base)
    folder.mkdir(parents=True, exist_ok=True)
    own = f".ortsep-run-{shard.index}-of-{shard.count}.lock" if shard else ".ortsep-run.lock"
    with (folder / ".ortsep-run.lock").open("a") as all_, (folder / own).open("a") as ours:
        try:
            fcntl.flock(all_, (fcntl.LOCK_SH if shard else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if shard:
                fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(f"another run fills {base}; wait for it, name another -o, or share by --shard") from None
        yield
