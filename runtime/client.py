"""A server of ``ortsep serve`` from Python: ``Client(address).separate("song.mp3", output="stems")``. Extra ``client``.

>>> from ortsep.client import Client
>>> with Client("http://127.0.0.1:8000") as client:                     # doctest: +SKIP
...     answer = client.separate("song.mp3", "drums_mini", output="stems", progress=print)
>>> answer["stems"]["kick"]                                              # doctest: +SKIP
'stems/kick.wav'
"""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from ortsep.base.errors import FileMissing, MissingDependency, OrtsepError, OutputError
from ortsep.base.whole import partial_path
from ortsep.songs import TimedOut

if TYPE_CHECKING:
    import httpx

Seconds = Callable[[float, float], None]
"""Progress: seconds of audio done and in all."""
_LOOK = 0.25
_BASE = "/v1/separations"


class ServerError(OrtsepError, RuntimeError):
    """What a server refused or could not do, in its own sentence; ``code`` is HTTP's status, 0 where there is none."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """One server at ``address``; ``token`` where it wants one; ``patience`` in seconds for any single answer.

    Raises MissingDependency without httpx.
    """

    def __init__(self, address: str, token: str = "", patience: float = 60.0) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependency(
                "ortsep.client needs httpx, which isn't installed: pip install 'ortsep[client]'"
            ) from error
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http: httpx.Client = httpx.Client(base_url=address, headers=headers, timeout=patience)
        self._failures: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL)
        self._address = address

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The server's models: name, stems, content, and title, advice and licence where it knows them."""
        found: list[dict[str, Any]] = self._json("GET", "/v1/models")["models"]
        return found

    def separate(
        self,
        song: str | Path,
        model: str = "",
        *,
        output: str | Path | None = None,
        progress: Seconds | None = None,
        timeout: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send a song, wait for its stems, and put them into the folder ``output``, each complete or not at all.

        ``options`` are those of ``ortsep run``. Gives the server's answer (version, model, backend, stems,
        wiener_filter, processing_time, warnings, ...); ``stems`` maps names to files below ``output`` or, without it,
        to addresses on the server, which keeps them for a while. With ``output`` the job is removed there afterwards.

        After ``timeout`` seconds, and where the caller is interrupted, the job is cancelled. Raises FileMissing,
        ServerError, TimedOut and OutputError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        id_ = self.submit(song, model, **options)
        try:
            document = self.wait(id_, progress=progress, until=deadline)
            result: dict[str, Any] = document["result"]
            if output is not None:
                files = {name: self.fetch(link, Path(output)) for name, link in result["stems"].items()}
                result = {**result, "stems": {name: str(path) for name, path in files.items()}}
        except BaseException:
            self.cancel(id_)
            raise
        if output is not None:
            self.cancel(id_)
        return result

    def submit(self, song: str | Path, model: str = "", *, key: str = "", **options: Any) -> str:
        """Send a song and come back at once with its job's identifier. Sent again with the same ``key``, it is the same
        job."""
        path = Path(song)
        fields = {"model": model, **{name: _text(value) for name, value in options.items() if value is not None}}
        try:
            file: BinaryIO = path.open("rb")
        except OSError as error:
            raise FileMissing(f"the song {path} can't be opened ({error.strerror}); name one that is there") from error
        with file:
            send = {
                "data": fields,
                "files": {"song": (path.name, file)},
                "headers": {"idempotency-key": key or uuid.uuid4().hex},
            }
            return str(self._json("POST", _BASE, **send)["id"])

    def status(self, id_: str) -> dict[str, Any]:
        """How a job stands: state, place in the queue, progress, result or error."""
        return self._json("GET", f"{_BASE}/{id_}")

    def wait(self, id_: str, *, progress: Seconds | None = None, until: float | None = None) -> dict[str, Any]:
        """Wait for a job's end, until the moment ``until`` (of ``time.monotonic``). Raises ServerError, TimedOut."""
        while True:
            document = self.status(id_)
            if progress is not None and "progress" in document:
                progress(document["progress"]["done"], document["progress"]["total"])
            if document["state"] == "done":
                return document
            if document["state"] in ("failed", "cancelled"):
                raise ServerError(document.get("error") or "the separation was cancelled on the server")
            if until is not None and time.monotonic() > until:
                raise TimedOut("the server took longer than it was given; allow more time or a faster model")
            time.sleep(_LOOK)

    def cancel(self, id_: str) -> None:
        """End a job and remove its files; one that is gone already is fine."""
        with contextlib.suppress(ServerError):
            self._answer("DELETE", f"{_BASE}/{id_}")

    def fetch(self, link: str, folder: Path) -> Path:
        """One file of the server into ``folder``, complete or not at all. Raises ServerError, OutputError."""
        path = folder / link.rsplit("/", 1)[-1]
        partial = partial_path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                for part in self._stream(link):
                    file.write(part)
            partial.replace(path)
        except OSError as error:
            if isinstance(error, OrtsepError):
                raise
            raise OutputError(f"{path} can't be written ({error.strerror}); name another folder") from error
        finally:
            partial.unlink(missing_ok=True)
        return path

    def _stream(self, link: str) -> Iterator[bytes]:
        try:
            with self._http.stream("GET", link) as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise _refused(answer)
                yield from answer.iter_bytes(1 << 18)
        except self._failures as error:
            raise ServerError(f"{self._address} broke off ({error}); ask for the stems again") from error

    def _answer(self, method: str, path: str, **more: Any) -> "httpx.Response":
        try:
            answer = self._http.request(method, path, **more)
        except self._failures as error:
            raise ServerError(f"{self._address} doesn't answer ({error}); is ortsep serve running there?") from error
        if answer.status_code >= 400:
            raise _refused(answer)
        return answer

    def _json(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = self._answer(method, path, **more)
        try:
            document: dict[str, Any] = answer.json()
        except ValueError as error:
            raise ServerError(
                f"{self._address} is no ortsep server: its answer is no JSON; check the address"
            ) from error
        return document


def _refused(answer: "httpx.Response") -> ServerError:
    try:
        said = str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        said = f"the server answered {answer.status_code}; is it ortsep's?"
    return ServerError(said, answer.status_code)


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return [str(part) for part in value]
    return str(value)


__all__ = ["Client", "ServerError"]
