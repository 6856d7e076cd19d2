"""What an audio file's container promises, and what the file really holds: found without decoding.

libsndfile shortens a truncated file without a word, stops at the first link of a chained Ogg, trusts an estimate for an
MP3 without a Xing header (a variable bitrate then loses its end), takes a streamed WAV of size 0 for empty, and tags
for damage or for samples. So the containers are read here first, and the decoder is handed exactly the audio.
"""

from pathlib import Path
from typing import BinaryIO

from ortsep.audio.contents import MOST_JUNK, Contents, read_at, whole
from ortsep.audio.flac import read_flac
from ortsep.audio.foreign import format_of, read_foreign
from ortsep.audio.mpeg import read_mpeg
from ortsep.audio.ogg import read_ogg
from ortsep.audio.riff import read_au, read_chunks
from ortsep.audio.tags import between_tags

_FORMS = {b"RIFF": (b"WAVE",), b"RIFX": (b"WAVE",), b"RF64": (b"WAVE",), b"FORM": (b"AIFF", b"AIFC")}
"""What stands 8 bytes behind the magic of a container that holds other things too."""
_W64 = bytes.fromhex("2e91cf11a5d628db04c10000")
_FIRST_BYTES = frozenset(b"RFfOc.r")
_HEAD = 600
"""Bytes by which a format is told: three packets of a transport stream."""


def examine(path: Path) -> Contents:
    """Read a file's container. Never raises for its contents, only OSError; what it can't tell is ``other``."""
    with path.open("rb", buffering=1 << 16) as file:
        begin, end = between_tags(file, file.seek(0, 2))
        found = _read(file, begin, end)
        if found is not None:
            return found
        junk = _magic_further_on(read_at(file, begin, min(MOST_JUNK, end - begin)))
        if junk is not None and (found := _read(file, begin + junk, end)) is not None:
            return found
        return read_mpeg(file, begin, end, MOST_JUNK) or whole("other", begin, end)


def _read(file: BinaryIO, begin: int, end: int) -> Contents | None:
    """The contents of what begins exactly at ``begin``; None where that is no audio that is known."""
    head = read_at(file, begin, min(_HEAD, end - begin))
    magic = head[:4]
    if _begins(head):
        if magic == b"fLaC":
            return read_flac(file, begin, end)
        if magic == b"OggS":
            return read_ogg(file, begin, end)
        return read_au(file, begin, end) if magic == b".snd" else read_chunks(file, begin, end)
    if (found := read_mpeg(file, begin, end, 1)) is not None:
        return found
    return read_foreign(file, begin, end) if format_of(head) else None


def _begins(head: bytes) -> bool:
    """Whether ``head`` begins a file of a format that libsndfile reads and that is told by its magic."""
    magic = head[:4]
    if magic in _FORMS:
        return head[8:12] in _FORMS[magic]
    if magic == b"fLaC":
        return head[4:5] in (b"\0", b"\x80") and head[5:8] == b"\0\0\x22"
    if magic == b"OggS":
        return head[4:5] == b"\0" and head[5:6] in (b"\x02", b"\x06")
    if magic == b".snd":
        return len(head) >= 24 and int.from_bytes(head[4:8]) >= 24 and 0 < int.from_bytes(head[12:16]) < 40
    return head.startswith((b"caff\0\x01\0", b"riff" + _W64))


def _magic_further_on(window: bytes) -> int | None:
    """Where in ``window`` the first magic stands that begins a file; None for none."""
    found = (at for at in range(1, len(window) - 3) if window[at] in _FIRST_BYTES and _begins(window[at : at + 64]))
    return next(found, None)
