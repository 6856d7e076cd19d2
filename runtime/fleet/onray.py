"""Songs on a Ray cluster: actors that keep their model loaded, a bounded number of songs on their way, deaths survived.

Ray places the actors and restarts nothing of ours: a song whose process or node dies is given to another actor, and one
that keeps killing its process is set aside.
"""

import contextlib
import hashlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.cache import cache_folder
from ortsep.base.errors import MissingDependency, OrtsepError, ProviderError
from ortsep.base.whole import whole_file
from ortsep.batch import Event, Job, Tell, load
from ortsep.fleet.errand import Errand, run_errand
from ortsep.graphs.model import load_model
from ortsep.models.onnx_file import external_files

_AHEAD = 2
"""Songs that an actor has at a time: the one in work and the next."""
_GROW = 10.0
"""Seconds between two looks at how many processors the cluster has."""


@dataclass(frozen=True)
class Cluster:
    """Where to run. ``address``: "" for the cluster that this machine belongs to or, without one, a new one here;
    ``host:port`` or ``ray://host:port`` otherwise. ``workers``: songs at a time; 0 for as many as there are processors.
    ``tries``: how often a song is begun whose process died or whose failure may pass."""

    address: str = ""
    workers: int = 0
    threads: int = 1
    """Processors of an actor and threads of its graphs."""
    gpus: float = 0.0
    tries: int = 3


@dataclass(frozen=True)
class Weights:
    """The files of a model by name with their hashes, and the folder in which the driver has them."""

    reference: str
    folder: str
    files: Mapping[str, str]

    @classmethod
    def of(cls, reference: str) -> "Weights":
        """Of a model as typed, without a stem behind ``@``."""
        model = load_model(reference)
        graphs = [model.file(member) for member in model.members]
        beside = [p for name in ("stems.txt", "spec.json") if (p := model.folder / name).exists()]
        paths = {path.name: path for graph in graphs for path in (graph, *external_files(graph))}
        paths |= {path.name: path for path in beside}
        return cls(reference, str(model.folder), {name: _sha256(path) for name, path in sorted(paths.items())})

    def read(self) -> dict[str, bytes]:
        """All files, for the object store."""
        return {name: (Path(self.folder) / name).read_bytes() for name in self.files}

    def here(self, contents: Any) -> str:
        """A folder of this machine that holds just these files: the driver's where it is shared, else one in the cache,
        filled from the object store. Raises OutputError."""
        if _right(Path(self.folder), self.files):
            return self.folder
        key = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:24]
        folder = cache_folder() / "fleet" / key / Path(self.folder).name
        if not _right(folder, self.files):
            import ray

            for name, data in ray.get(contents).items():
                with whole_file(folder / name, alone=False) as partial:
                    partial.write_bytes(data)
        return str(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _right(folder: Path, files: Mapping[str, str]) -> bool:
    with contextlib.suppress(OSError):
        return all(_sha256(folder / name) == digest for name, digest in files.items())
    return False


class Hands:
    """What one actor does: loads the models once, then takes one song after the other."""

    def __init__(self, job: Job, weights: list[tuple[Weights, Any]]) -> None:
        self._job = job
        self._separator: Any = None
        self._weights = weights

    def ready(self) -> str:
        """Load the models; gives this worker's version of ortsep. Raises what loading raises."""
        if self._separator is None:
            models = []
            for typed, (weights, contents) in zip(self._job.models, self._weights, strict=True):
                _, at, feed = typed.partition("@")
                models.append(f"{weights.here(contents[0])}{at}{feed}")
            self._separator = load(models, self._job.loading)
        return __version__

    def separate(self, errand: Errand) -> Any:
        """The song's report, or the error that it ended with."""
        try:
            return run_errand(self._separator, self._job, errand, lambda done, total: None)
        except OrtsepError as error:
            return error


def in_ray(job: Job, errands: Iterable[Errand], cluster: Cluster, tell: Tell) -> None:
    """Separate ``errands`` on a cluster, telling "started", "finished" and "failed" of each by its number.

    They are drawn from the iterable as actors become free. Raises MissingDependency, ProviderError where the cluster
    can't be reached or has another Python or ortsep, and the errors of loading the models.
    """
    ray = _joined(cluster)
    weights = [Weights.of(model.partition("@")[0]) for model in job.models]
    given = [(w, [ray.put(w.read())]) for w in weights]  # in a list, so that Ray hands the reference on unread
    shared = replace(job, loading={**job.loading, "threads": cluster.threads})
    crew = _Crew(ray, cluster, shared, given, enumerate(errands), tell)
    try:
        crew.run()
    finally:
        crew.end()


def _joined(cluster: Cluster) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of each cluster, unless it may not
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingDependency("--on ray needs Ray, which isn't installed: pip install 'ortsep[fleet]'") from error
    if ray.is_initialized():
        return ray
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "ignore_reinit_error": True}
    try:
        if cluster.address:
            ray.init(address=cluster.address, **quiet)
        else:
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:
                ray.init(include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises whatever its parts raise
        where = cluster.address or "on this machine"
        why = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ProviderError(
            f"the Ray cluster {where} can't be joined ({why}); check that it runs, and its version"
        ) from error
    return ray


@dataclass
class _Song:
    number: int
    errand: Errand
    tries: int = 0


class _Crew:
    """The actors, what each of them has, and the songs that wait for another try."""

    def __init__(
        self, ray: Any, cluster: Cluster, job: Job, weights: Any, errands: Iterator[tuple[int, Errand]], tell: Tell
    ) -> None:
        self._ray, self._cluster, self._tell = ray, cluster, tell
        need = {"num_cpus": cluster.threads, "num_gpus": cluster.gpus, "max_restarts": 0, "max_task_retries": 0}
        self._remote = ray.remote(**need)(Hands)
        self._given = (job, weights)
        self._errands = errands
        self._again: deque[_Song] = deque()
        self._arriving: dict[Any, Any] = {}
        self._working: dict[Any, tuple[Any, _Song]] = {}
        self._hands: list[Any] = []
        self._looked = 0.0
        self._failures = 0

    def run(self) -> None:
        """Until every song has ended."""
        self._grow()
        self._feed()
        while self._working or self._again or (self._arriving and not self._drained):
            waiting = [*self._working, *self._arriving]
            ready, _ = self._ray.wait(waiting, num_returns=1, timeout=1.0)
            for reference in ready:
                if reference in self._arriving:
                    self._arrived(reference)
                else:
                    self._ended(reference)
            self._grow()
            self._feed()

    _drained = False

    def _wanted(self) -> int:
        if self._cluster.workers:
            return self._cluster.workers
        now = time.monotonic()
        if now - self._looked >= _GROW or not self._looked:
            self._looked = now
            self._size = max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._cluster.threads)
        return self._size

    def _grow(self) -> None:
        """As many actors as are wanted; those that died are replaced here too."""
        while len(self._hands) + len(self._arriving) < self._wanted() and not (self._drained and not self._again):
            hands = self._remote.remote(*self._given)
            self._arriving[hands.ready.remote()] = hands

    def _arrived(self, reference: Any) -> None:
        hands = self._arriving.pop(reference)
        try:
            version = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, OrtsepError) else _unexpected(error)) from error
        except self._ray.exceptions.RayError as error:
            self._failures += 1
            if self._failures > 3 * self._cluster.tries and not self._hands:
                raise ProviderError(
                    f"no worker of the cluster comes up ({type(error).__name__}); look at its logs"
                ) from error
            return
        if version != __version__:
            raise ProviderError(f"a worker has ortsep {version} and this is {__version__}; install the same everywhere")
        self._hands.append(hands)

    def _feed(self) -> None:
        for hands in self._hands:
            while sum(1 for owner, _ in self._working.values() if owner is hands) < _AHEAD:
                song = self._next()
                if song is None:
                    return
                song.tries += 1
                self._working[hands.separate.remote(song.errand)] = (hands, song)
                if song.tries == 1:
                    self._tell(Event(song.number, "started"))

    def _next(self) -> _Song | None:
        if self._again:
            return self._again.popleft()
        for number, errand in self._errands:
            return _Song(number, errand)
        self._drained = True
        return None

    def _ended(self, reference: Any) -> None:
        hands, song = self._working[reference]
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._died(hands, error)
            return
        del self._working[reference]
        if isinstance(result, OrtsepError):
            if result.transient:
                self._retry(song, result)
            else:
                self._tell(Event(song.number, "failed", result))
        else:
            self._tell(Event(song.number, "finished", result))

    def _died(self, hands: Any, error: Exception) -> None:
        """An actor is gone: the song in its hands has cost a try, the next one that it had has not been begun."""
        if hands in self._hands:
            self._hands.remove(hands)
        self._looked = 0.0
        its = [reference for reference, (owner, _) in self._working.items() if owner is hands]
        finished, _ = self._ray.wait(its, num_returns=len(its), timeout=0)
        begun = False
        for reference in its:
            song = self._working[reference][1]
            try:
                if reference in finished:
                    self._ray.get(reference)
                    continue  # it ended before; its turn comes
            except self._ray.exceptions.RayError:
                pass
            del self._working[reference]
            if begun:
                song.tries -= 1
                self._again.append(song)
                continue
            begun = True
            said = f"{song.errand.song}: its process died {song.tries} times ({type(error).__name__}); it is set aside"
            self._retry(song, OrtsepError(f"{said}, the song or the memory may be at fault"))

    def _retry(self, song: _Song, error: OrtsepError) -> None:
        if song.tries >= self._cluster.tries:
            self._tell(Event(song.number, "failed", error))
        else:
            self._again.append(song)

    def end(self) -> None:
        """Let all actors go."""
        for hands in [*self._hands, *self._arriving.values()]:
            with contextlib.suppress(Exception):
                self._ray.kill(hands)


def _unexpected(error: Exception) -> OrtsepError:
    return OrtsepError(f"a worker failed while it loaded the model ({str(error).splitlines()[-1][:200]})")
