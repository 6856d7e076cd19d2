"""A server's data and processes: what the routes in ``ortsep.server.app`` call."""

import contextlib
import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.errors import MissingDependency, OrtsepError, OutputError
from ortsep.batch import load
from ortsep.graphs.model import load_model
from ortsep.models.catalogue import Card, catalogue, folder_name, ready_folders
from ortsep.options import takes
from ortsep.report.write import require_report
from ortsep.server.pool import Pool
from ortsep.server.problems import Problem, unprocessable
from ortsep.server.request import SeparationRequest
from ortsep.server.settings import Settings
from ortsep.server.store import Job, Store
from ortsep.server.upload import Upload, suffix

_JANITOR = 30.0
_ANY = 44100
"""Samples, and their rate, of a song that stands for any: which options a model takes doesn't depend on it."""


@dataclass(frozen=True)
class Offer:
    """A model that requests may name; ``card`` is its entry in the catalogue, where it has one."""

    name: str
    stems: tuple[str, ...]
    content: str
    options: tuple[str, ...]
    """Which a request may set of it."""
    card: Card | None

    def document(self) -> dict[str, Any]:
        card = self.card
        more = {} if card is None else {"title": card.title, "advice": card.advice, "licence": card.licence}
        told = {"stems": list(self.stems), "content": self.content, "options": list(self.options)}
        return {"name": self.name, **told, **more}


def offers(settings: Settings) -> tuple[Offer, ...]:
    """The models of a server: those that it was told of, else all that are ready here. Raises what loading raises."""
    if settings.models:
        return tuple(_offer(name) for name in settings.models)
    found: dict[str, Offer] = {}
    for folder in ready_folders().values():
        with contextlib.suppress(OrtsepError):  # one that is broken is not offered
            offer = _offer(str(folder))
            found.setdefault(offer.name, offer)
    return tuple(found.values())


def _offer(reference: str) -> Offer:
    model = load_model(reference)
    folder = Path(reference).name
    card = next((c for c in catalogue().values() if folder_name(c.name) == folder or c.name == reference), None)
    return Offer(card.name if card else folder, model.stems, model.spec.content, takes(model.spec), card)


class Service:
    """The jobs of one data folder. Raises OutputError where another server has it, or it can't be written."""

    def __init__(self, settings: Settings, ended: Callable[[Job, str], None]) -> None:
        self.settings = settings
        self.offers = offers(settings)
        self._incoming, self._jobs = settings.data / "incoming", settings.data / "jobs"
        try:
            for folder in (settings.data, self._incoming, self._jobs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"{settings.data} can't be written ({error.strerror}); name another with --data"
            ) from error
        self._lock = _locked(settings.data / "lock")
        self.store = Store(settings.data / "jobs.sqlite")
        self.store.recover()
        self._sweep()
        self.pool = Pool(self.store, settings, self._jobs, ended)
        self._stopped = threading.Event()
        self._janitor = threading.Thread(target=self._clean, name="ortsep-janitor", daemon=True)

    def start(self) -> None:
        self.pool.start()
        self._janitor.start()

    def stop(self) -> None:
        """In good order: running jobs wait again, and all processes have ended."""
        self._stopped.set()
        self.pool.stop()
        self.store.close()
        self._lock.close()

    @contextlib.contextmanager
    def arriving(self, id_: str) -> Iterator[Path]:
        """A folder for a song on its way; removed at the end, where it did not become a job."""
        folder = self._incoming / id_
        try:
            folder.mkdir(mode=0o700)
            yield folder
        except OSError as error:
            raise Problem(
                507, f"the song can't be stored ({error.strerror or error}); tell who runs this server"
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def full(self) -> bool:
        return self.store.counts()["queued"] >= self.settings.max_queue

    def checked(self, request: SeparationRequest) -> SeparationRequest:
        """The request with its model named. Raises Problem 404 and 422 for what no job could do."""
        if not self.offers:
            raise Problem(503, "this server has no model; export one with: ortsep export NAME")
        name = request.model or self.offers[0].name
        for wanted in (name, *(then.partition("@")[0] for then in request.then)):
            if not any(offer.name == wanted for offer in self.offers):
                known = ", ".join(offer.name for offer in self.offers)
                raise Problem(404, f"this server has no model {wanted!r}; it has {known}")
        request = request.model_copy(update={"model": name})
        try:
            separator = load((name, *request.then), {"provider": "cpu", "threads": 1})
            separator.names(request.options())
            separator.plan(_ANY, _ANY, request.options())
            request.files(self._jobs)
            if request.report:
                require_report()
        except MissingDependency as error:
            raise Problem(501, str(error)) from error
        except OrtsepError as error:
            raise unprocessable(error) from error
        return request

    def add(self, id_: str, upload: Upload, request: SeparationRequest, key: str | None) -> tuple[Job, bool]:
        """Make a job of a song that has come; gives it, and whether it is new. Raises Problem 409 and 422."""
        print_ = fingerprint(upload.sha256, request)
        if key is not None and (known := self.store.by_key(key)) is not None:
            return _same(known, print_), False
        file = f"song{suffix(upload.name)}"
        folder = self._jobs / id_
        upload.path.rename(upload.path.with_name(file))
        upload.path.parent.rename(folder)
        job = self.store.add(id_, upload.name, file, request.model_dump(mode="json"), print_, key)
        if job.id != id_:  # another request with this key was quicker
            shutil.rmtree(folder, ignore_errors=True)
            known = self.store.by_key(key or "")
            return (job if known is None else _same(known, print_)), False
        self.pool.wake()
        return job, True

    def get(self, id_: str) -> Job:
        """Raises Problem 404."""
        job = self.store.get(id_)
        if job is None:
            raise Problem(404, "there is no such separation; it may have been deleted, or kept no longer")
        return job

    def delete(self, id_: str) -> None:
        """End a job at once and remove its files. Raises Problem 404."""
        before = self.store.cancel(self.get(id_).id)
        if before == "running":
            self.pool.cancel(id_)
            return
        self.store.remove(id_)
        shutil.rmtree(self._jobs / id_, ignore_errors=True)

    def file(self, id_: str, name: str) -> Path:
        """A file of a finished job: a stem by its name or its file's name. Raises Problem 404 and 409."""
        job = self.finished(id_)
        stems: Mapping[str, str] = (job.result or {})["stems"]
        found = stems.get(name) or next((file for file in stems.values() if file == name), None)
        if found is None:
            raise Problem(404, f"this separation has no stem {name[:80]!r}; it has {', '.join(stems)}")
        return self._jobs / id_ / "stems" / found

    def stems(self, id_: str) -> dict[str, Path]:
        """All stem files of a finished job, by file name."""
        job = self.finished(id_)
        return {file: self._jobs / id_ / "stems" / file for file in (job.result or {})["stems"].values()}

    def beside(self, id_: str, name: str) -> Path:
        """Another file that a job made. Raises Problem 404 where it made none."""
        path = self._jobs / self.finished(id_).id / name
        if not path.is_file():
            raise Problem(404, f"this separation has no {name}; ask for it when you send the song")
        return path

    def has(self, job: Job, name: str) -> bool:
        """Whether a file of this name lies beside a job's song."""
        return (self._jobs / job.id / name).is_file()

    def song(self, id_: str) -> Path:
        job = self.get(id_)
        return self._jobs / job.id / job.file

    def finished(self, id_: str) -> Job:
        """Raises Problem 404, and 409 where the job is not done."""
        job = self.get(id_)
        if job.state != "done":
            raise Problem(409, job.error or f"this separation is {job.state}; its stems are there when it is done")
        return job

    def document(self, job: Job) -> dict[str, Any]:
        """What a client is told of a job."""
        base = f"/v1/separations/{job.id}"
        known: dict[str, Any] = {
            "id": job.id,
            "state": job.state,
            "song": job.song,
            "model": job.request["model"],
            "request": {k: v for k, v in job.request.items() if v not in (None, [], False)},
            "created": job.created,
            "started": job.started,
            "finished": job.finished,
            "links": {"self": base, "events": f"{base}/events"},
        }
        if job.state == "queued":
            known["place"] = self.store.place(job.id)
        if job.state == "running" and (progress := self.pool.progress(job.id)) is not None:
            left = progress.left()
            known["progress"] = {"done": round(progress.done, 3), "total": round(progress.total, 3)}
            known["progress"]["left"] = None if left is None else round(left, 1)
        if job.error is not None:
            known["error"] = job.error
        if job.result is not None:
            report = dict(job.result)
            report["stems"] = {name: f"{base}/stems/{file}" for name, file in report["stems"].items()}
            known["result"] = {"version": __version__, **report, "song": job.song}
            known["links"] |= {"archive": f"{base}/archive", "pictures": f"{base}/pictures", "song": f"{base}/song"}
            if report.get("report"):
                known["links"]["report"] = f"{base}/report"
        return known

    def _sweep(self) -> None:
        """What an earlier process left: songs that had not come whole, and files of jobs that are gone."""
        for folder in self._incoming.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
        known = self.store.ids()
        for folder in self._jobs.iterdir():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
        for job in self.store.newest(1 << 30):
            if job.state == "cancelled" or not (self._jobs / job.id).is_dir():
                self.store.remove(job.id)
                shutil.rmtree(self._jobs / job.id, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what was kept long enough."""
        while not self._stopped.wait(min(_JANITOR, self.settings.keep / 4)):
            for id_ in self.store.ended_before(time.time() - self.settings.keep):
                self.store.remove(id_)
                shutil.rmtree(self._jobs / id_, ignore_errors=True)


def fingerprint(sha256: str, request: SeparationRequest) -> str:
    """What tells two requests apart: the song's bytes and what is asked for."""
    text = json.dumps([sha256, request.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _same(known: tuple[Job, str], print_: str) -> Job:
    job, theirs = known
    if theirs != print_:
        raise Problem(422, "this Idempotency-Key came before, with another song or other options; take a new one")
    return job


def _locked(path: Path) -> Any:
    """The data folder's lock, held while the file is open. Raises OutputError where another process has it."""
    file = path.open("a")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: the database refuses the second writer, later
        pass
    except OSError:
        file.close()
        raise OutputError(f"another server uses {path.parent}; end it, or name another folder with --data") from None
    return file
