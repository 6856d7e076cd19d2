"""A song on its way in: straight to a file, whatever its size; a form's other fields beside it."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from ortsep.server.problems import Problem

SILENCE = 60.0
"""Seconds without a byte after which a client that sends is given up."""
_FIELD = 10_000
"""Bytes that a field of a form may have."""
_FIELDS = 100
Take = Callable[[bytes], None]
"""Takes the song's bytes."""
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")


@dataclass
class Upload:
    """What came: ``fields`` as name and value, the song's ``name`` as its sender calls it, its bytes' ``sha256``."""

    path: Path
    fields: list[tuple[str, str]] = field(default_factory=list)
    name: str = ""
    size: int = 0
    sha256: str = ""


async def receive(request: Request, path: Path, most: int) -> Upload:
    """Write the song of a request to ``path``: a form with one file ``song``, or a body that is the song itself, whose
    name is the query's ``name``.

    Raises Problem 400, 408, 413, 415 and 422; what was written then stays for the caller to remove.
    """
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most + (1 << 20):
        raise _too_large(most)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    upload = Upload(path)
    hashed = hashlib.sha256()
    with path.open("xb") as file:

        def take(part: bytes) -> None:
            upload.size += len(part)
            if upload.size > most:
                raise _too_large(most)
            hashed.update(part)
            file.write(part)

        if kind == b"multipart/form-data":
            await _form(request, upload, options.get(b"boundary", b""), take)
        elif kind in (b"", b"application/octet-stream") or kind.startswith((b"audio/", b"video/")):
            upload.fields = [(k, v) for k, v in request.query_params.multi_items() if k != "name"]
            upload.name = request.query_params.get("name", "")
            async for part in _body(request):
                take(part)
        else:
            raise Problem(415, f"a body of type {kind.decode('latin-1')!r}; send the song itself as audio/*, or a form")
    if not upload.size:
        raise Problem(422, "there is no song in the request; send one as the file 'song' of a form, or as the body")
    upload.sha256 = hashed.hexdigest()
    upload.name = _shown(upload.name)
    return upload


async def _body(request: Request) -> AsyncIterator[bytes]:
    stream = request.stream()
    while True:
        try:
            part = await asyncio.wait_for(anext(stream, None), SILENCE)
        except TimeoutError:
            raise Problem(408, f"no byte of the song came for {SILENCE:.0f} s; send it again") from None
        except ClientDisconnect:
            raise Problem(400, "the connection ended in the middle of the song; send it again") from None
        if part is None:
            return
        yield part


class _Parts:
    """What the parser tells of a form's parts, as it goes along."""

    def __init__(self, upload: Upload, take: Take) -> None:
        self._upload, self._take = upload, take
        self._header, self._value = b"", b""
        self._name, self._file = "", False
        self._text = b""
        self.songs = 0
        self.complete = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._header = self._value = self._text = b""
        self._name, self._file = "", False

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header = self._bounded(self._header + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options or b"filename*" in options:
                self._file = True
                self.songs += 1
                if self._name != "song" or self.songs > 1:
                    raise Problem(422, f"the form has a file {self._name!r}; send one file, called 'song'")
                self._upload.name = options.get(b"filename", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file:
            self._take(data[start:end])
        else:
            self._text = self._bounded(self._text + data[start:end])

    def _end(self) -> None:
        if not self._file:
            self._upload.fields.append((self._name, self._text.decode("utf-8", "replace")))
            if len(self._upload.fields) > _FIELDS:
                raise Problem(413, f"the form has more than {_FIELDS} fields; send fewer")

    def _on_end(self) -> None:
        self.complete = True

    def _bounded(self, value: bytes) -> bytes:
        if len(value) > _FIELD:
            raise Problem(413, f"a field of the form has more than {_FIELD} bytes; shorten it")
        return value


async def _form(request: Request, upload: Upload, boundary: bytes, take: Take) -> None:
    if not boundary or len(boundary) > 200:
        raise Problem(400, "the form's content type has no boundary; send it as multipart/form-data with one")
    parts = _Parts(upload, take)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        async for part in _body(request):
            parser.write(part)
        parser.finalize()
    except MultipartParseError as error:
        raise Problem(400, f"the form can't be read ({error}); send it as multipart/form-data") from None
    if not parts.complete:
        raise Problem(400, "the form ends in the middle; send it again")


def _too_large(most: int) -> Problem:
    return Problem(413, f"the song has more than the {most / 1e6:.0f} MB that this server takes; compress or cut it")


def _shown(name: str) -> str:
    """The sender's name for the song, fit to be shown: one line, no folders, of reasonable length."""
    name = re.split(r"[/\\]", unquote(name) if "%" in name else name)[-1]
    return "".join(c for c in name if c.isprintable())[:200].strip() or "song"


def suffix(name: str) -> str:
    """The extension of a song's name where it is a plain one, in small letters: a decoder may need it."""
    found = _SUFFIX.search(name)
    return found.group().lower() if found else ""
