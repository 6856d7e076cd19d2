"""The process that separates: it decodes, runs models and writes stems, one job at a time, for ``ortsep.server.pool``.

A song that crashes a decoder, or a graph that takes all memory, costs this process and its job, not the server.
"""

import contextlib
import json
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ortsep.audio.song import open_song
from ortsep.base import heap, interrupt
from ortsep.base.errors import AudioError, OrtsepError
from ortsep.base.memory import resident
from ortsep.batch import Job, Task, load, separate_task
from ortsep.chain import Chain
from ortsep.separator import Separator
from ortsep.server.pictures import pictures
from ortsep.server.request import SeparationRequest
from ortsep.songs import places

_KEPT = 4
"""Models that stay loaded in one process, where memory allows."""
NO_MEMORY = "memory ran out while the song was separated; take a smaller model, or a part of the song"
RESULT = "pictures.json"
PAGE = "report.html"


@dataclass(frozen=True)
class Limits:
    """What one process may take: ``memory`` in bytes, ``timeout`` and ``length`` (of a song) in seconds."""

    provider: str
    threads: int
    memory: int
    timeout: float
    length: float


@dataclass(frozen=True)
class Order:
    """One job as the process gets it: files are ``folder/file``, stems go to ``folder/stems``."""

    id: str
    folder: Path
    file: str
    request: Mapping[str, Any]


class Loaded:
    """Separators that stay loaded; the one that was used least recently leaves first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[tuple[str, ...], Separator | Chain] = OrderedDict()

    def get(self, models: tuple[str, ...]) -> Separator | Chain:
        if models in self._kept:
            self._kept.move_to_end(models)
            return self._kept[models]
        while self._kept and (len(self._kept) >= _KEPT or resident() > self._limits.memory // 3):
            self._kept.popitem(last=False)
        loading: Any = {"provider": self._limits.provider, "threads": self._limits.threads}
        self._kept[models] = load(models, loading)
        return self._kept[models]

    def forget(self) -> None:
        self._kept.clear()


def work(connection: Connection, limits: Limits) -> None:
    """Take orders until there is none: ("progress", done, total), then ("done", document) or ("failed", sentence).

    Ends when the server is gone. ``"cancel"`` ends the order in work.
    """
    interrupt.end_promptly(0.5)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server hears Ctrl-C too and ends its processes
    heap.give_back()
    _bound_memory(limits.memory)
    orders: SimpleQueue[Order | None] = SimpleQueue()
    running: list[Separator | Chain] = []

    def listen() -> None:
        with contextlib.suppress(EOFError, OSError):
            while (said := connection.recv()) is not None:
                if said == "cancel":
                    for separator in list(running):
                        separator.cancel()
                else:
                    orders.put(said)
        interrupt.leave()

    threading.Thread(target=listen, name="ortsep-orders", daemon=True).start()
    loaded = Loaded(limits)
    with contextlib.suppress(KeyboardInterrupt, OSError):
        while (order := orders.get()) is not None:
            try:
                document, drawing = _separate(order, limits, loaded, running, connection)
                connection.send(("done", document))
                drawing()
            except OrtsepError as error:
                connection.send(("failed", str(error).replace(f"{order.folder}/{order.file}", "the song")))
            except MemoryError:
                loaded.forget()
                connection.send(("failed", NO_MEMORY))
            except Exception as error:
                connection.send(("failed", f"unexpected {type(error).__name__}: {error}; report it"))
    interrupt.leave()


def _separate(
    order: Order, limits: Limits, loaded: Loaded, running: list[Separator | Chain], connection: Connection
) -> tuple[dict[str, Any], Callable[[], None]]:
    """The job's answer, and what is left to do when it has been told: drawing, for which nobody's stems should wait."""
    request = SeparationRequest.model_validate(order.request)
    options, files = request.options(), request.files(order.folder)
    song = order.folder / order.file
    _refuse_long(song, request, limits)
    separator = loaded.get((request.model or "", *request.then))
    (targets,) = places(separator, [song], files, options)
    page = order.folder / PAGE if request.report else None
    job = Job((), {}, options, files, limits.timeout)
    with _among(running, separator):
        report = separate_task(separator, job, Task(song, targets, page), partial(_told, connection))
    document = report.document()
    document["stems"] = {name: path.name for name, path in targets.items()}
    document.pop("outputs", None)
    document.pop("report", None)
    document["report"] = page is not None
    part = {name: getattr(files, name) for name in ("start", "duration", "downmix", "allow_truncated")}
    return document, partial(_draw, order.folder, song, targets, part)


def _draw(folder: Path, song: Path, targets: Mapping[str, Path], part: Mapping[str, Any]) -> None:
    """Leave the pictures in the job's folder, whole; nothing where the job is removed meanwhile."""
    with contextlib.suppress(OSError, OrtsepError):
        unfinished = folder / f".{RESULT}"
        unfinished.write_text(json.dumps(pictures(song, targets, **part)), encoding="ascii")
        unfinished.replace(folder / RESULT)


def _told(connection: Connection, done: float, total: float) -> None:
    connection.send(("progress", done, total))


@contextlib.contextmanager
def _among(running: list[Separator | Chain], separator: Separator | Chain) -> Iterator[None]:
    running.append(separator)
    try:
        yield
    finally:
        running.remove(separator)


def _refuse_long(path: Path, request: SeparationRequest, limits: Limits) -> None:
    song = open_song(path, allow_truncated=request.allow_truncated, downmix=request.downmix, start=request.start)
    if song.samples is None:
        return  # nobody knows before it is decoded; then the time limit holds
    seconds = song.samples / song.sample_rate
    if request.duration is not None:
        seconds = min(seconds, request.duration)
    if seconds > limits.length:
        raise AudioError(
            f"the song has {seconds:.0f} s and this server takes up to {limits.length:.0f}; send a part of it, or set "
            "duration"
        )


def _bound_memory(limit: int) -> None:
    """More than ``limit`` bytes is a MemoryError, for this process and each decoder that it starts (Linux)."""
    if sys.platform != "linux":
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
