"""The tags of a song: what its file says that the song is called, by whom, and its pictures.

``ortsep.stems.tags`` has the names. Whether there are any is known without mutagen; what they say needs it.
"""

import base64
import contextlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import soundfile

from ortsep.audio.sndfile import Spliced
from ortsep.audio.tags import between_tags
from ortsep.stems.tags import FREE_MP4, ID3, MP4, PAIRED_MP4, Picture, Tags, Text, paired

_OF_THE_SOUND = ("replaygain_", "r128_", "itunnorm", "itunsmpb", "acoustid_fingerprint", "encod", "length", "itunpgap")
"""What tells of the mixture's own samples or their coding, and would be untrue of a stem."""
_APE = {
    **{"year": "date", "track": "tracknumber", "disc": "discnumber", "album artist": "albumartist"},
    **{"publisher": "organization", "label": "organization"},
}
_ASF = {
    **{"title": "title", "author": "artist", "copyright": "copyright", "description": "comment"},
    **{"wm/albumtitle": "album", "wm/albumartist": "albumartist", "wm/composer": "composer", "wm/genre": "genre"},
    **{"wm/year": "date", "wm/tracknumber": "tracknumber", "wm/partofset": "discnumber", "wm/isrc": "isrc"},
    **{
        "wm/beatsperminute": "bpm",
        "wm/initialkey": "initialkey",
        "wm/lyrics": "lyrics",
        "wm/publisher": "organization",
    },
}
_INFO = ("title", "artist", "album", "date", "tracknumber", "genre", "comment", "copyright")
"""What libsndfile reads of a WAV's LIST INFO and of AIFF's text chunks, which mutagen does not."""
_ID3_CHUNK = re.compile(rb"(id3 |ID3 )....ID3", re.DOTALL)
_HEAD = 1 << 20
"""Bytes at either end of a file that are looked through."""
_LEFT_OUT = "the song has tags and its stems have none"


def song_tags(path: str | Path) -> tuple[Tags, tuple[str, ...]]:
    """The tags of the song ``path``, and what to say of it: that mutagen is missing, or that they can't be read."""
    try:
        import mutagen
    except ImportError:
        missing = f"{_LEFT_OUT}: pip install 'ortsep[tags]' (mutagen) carries them over"
        return Tags(), (missing,) if has_tags(path) else ()
    try:
        file = mutagen.File(path)
        if file is None or not (file.tags or getattr(file, "pictures", ())):
            return Tags(_clean(_of_libsndfile(path).items())), ()
        return Tags(paired(_clean(_text(file))), tuple(_pictures(file))), ()
    except Exception as error:  # of a parser of others, on whatever bytes there are: the samples are sound
        return Tags(), (f"{_LEFT_OUT}: they can't be read ({str(error) or type(error).__name__})",)


def has_tags(path: str | Path) -> bool:
    """Whether there is anything to carry over, as far as this can be told without mutagen."""
    if _of_libsndfile(path):
        return True
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, 2)
            begin, end = between_tags(file, size)
            file.seek(max(0, size - _HEAD))
            tail = file.read()
            file.seek(0)
            head = file.read(_HEAD)
    except OSError:
        return False
    ends = head + tail
    chunk = head[:4] in (b"RIFF", b"RF64", b"FORM") and _ID3_CHUNK.search(ends) is not None
    return (begin, end) != (0, size) or chunk or (head[4:8] == b"ftyp" and b"ilst" in ends)


def _of_libsndfile(path: str | Path) -> dict[str, tuple[str, ...]]:
    # Opened here: a name that is no Unicode can't be told to libsndfile, nor a seek before the beginning to a file.
    problems, path = contextlib.suppress(soundfile.SoundFileError, OSError), Path(path)
    with problems, Spliced(path, ((0, path.stat().st_size),)) as raw, soundfile.SoundFile(raw) as file:
        return {name: (value,) for name, value in file.copy_metadata().items() if name in _INFO and value}
    return {}


def _clean(pairs: Iterable[tuple[str, Iterable[str]]]) -> Text:
    """Names in small letters with their values, without what tells of the samples, and without empty ones."""
    found: dict[str, list[str]] = {}
    for name, values in pairs:
        name = name.strip().lower()
        plain = name.isascii() and name.isprintable() and "=" not in name and name != "metadata_block_picture"
        if plain and name and not name.startswith(_OF_THE_SOUND):
            found.setdefault(name, []).extend(v.rstrip("\0") for v in values if v.strip("\0 "))
    return {name: tuple(values) for name, values in found.items() if values}


def _text(file: Any) -> Iterator[tuple[str, Iterable[str]]]:
    from mutagen.apev2 import APEv2
    from mutagen.asf import ASFTags
    from mutagen.id3 import ID3 as Id3
    from mutagen.mp4 import MP4Tags

    tags = file.tags
    if isinstance(tags, Id3):
        yield from _of_id3(tags)
    elif isinstance(tags, MP4Tags):
        yield from _of_mp4(tags)
    elif isinstance(tags, APEv2):
        yield from ((_APE.get(key.lower(), key), list(value)) for key, value in tags.items() if value.kind == 0)
    elif isinstance(tags, ASFTags):
        for key, value in tags:
            if key != "WM/Picture":
                yield _ASF.get(key.lower(), key.removeprefix("WM/")), [str(value)]
    elif tags is not None:
        yield from ((key, [value]) for key, value in tags)


def _of_id3(tags: Any) -> Iterator[tuple[str, Iterable[str]]]:
    names = {frame: name for name, frame in ID3.items()}
    for frame in tags.values():
        kind = frame.FrameID
        if kind == "TCON":
            yield "genre", frame.genres
        elif kind in names:
            yield names[kind], [str(text) for text in frame.text]
        elif kind == "TXXX":
            yield frame.desc, [str(text) for text in frame.text]
        elif kind == "COMM" and not frame.desc:
            yield "comment", [str(text) for text in frame.text]
        elif kind == "USLT":
            yield "lyrics", [str(frame.text)]
        elif kind == "UFID" and frame.owner == "http://musicbrainz.org":
            yield "musicbrainz_trackid", [frame.data.decode("ascii", "replace")]


def _of_mp4(tags: Any) -> Iterator[tuple[str, Iterable[str]]]:
    names = {atom: name for name, atom in MP4.items()}
    for atom, value in tags.items():
        if atom.startswith(FREE_MP4):
            yield atom.removeprefix(FREE_MP4), [bytes(part).decode("utf-8", "replace") for part in value]
        elif atom in PAIRED_MP4:
            yield names[atom], [f"{number}/{total}" if total else str(number) for number, total in value]
        elif atom in names:
            parts = value if isinstance(value, list) else [value]
            yield names[atom], [str(int(part) if isinstance(part, bool) else part) for part in parts]


def _pictures(file: Any) -> Iterator[Picture]:
    from mutagen.flac import Picture as Block

    blocks = list(getattr(file, "pictures", ()))
    tags = file.tags if isinstance(file.tags, Mapping) or hasattr(file.tags, "values") else {}
    if hasattr(tags, "getall"):  # ID3
        yield from (Picture(frame.data, frame.mime, int(frame.type), frame.desc) for frame in tags.getall("APIC"))
        return
    for key, value in tags.items() if hasattr(tags, "items") else []:
        name = key.lower()
        if name == "covr":
            yield from (Picture(bytes(c), "image/png" if c.imageformat == 14 else "image/jpeg") for c in value)
        elif name.startswith("cover art"):
            data = value.value.partition(b"\0")[2]
            yield Picture(data, _mime(data), 4 if "back" in name else 3)
        elif name == "wm/picture":
            yield from (_of_asf(part.value) for part in value)
        elif name == "metadata_block_picture":
            blocks += [Block(base64.b64decode(part)) for part in value]
    yield from (Picture(block.data, block.mime, block.type, block.desc) for block in blocks)


def _of_asf(value: bytes) -> Picture:
    """A WM/Picture: kind, size of the data, type and description in UTF-16 that end in a zero, data (Microsoft)."""
    kind, size = struct.unpack("<bI", value[:5])
    texts, at = list[str](), 5
    while len(texts) < 2:
        end = next(k for k in range(at, len(value), 2) if value[k : k + 2] == b"\0\0")
        texts.append(value[at:end].decode("utf-16-le", "replace"))
        at = end + 2
    return Picture(value[at : at + size], texts[0], kind, texts[1])


def _mime(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
