"""What a song is called and who made it, and its pictures: written into stems of every format that can hold them.

The names are those of Vorbis comments in small letters (xiph.org's proposal, and what MusicBrainz Picard added to it);
the tables say what ID3v2.4 and MP4 call them. A name in no table goes into the free fields of these formats. The same
tags give the same bytes. Needs mutagen, the extra ``tags``.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Text = dict[str, tuple[str, ...]]
HOLD = ("wav", "flac", "ogg", "mp3", "stem.mp4")
"""The formats of stems that hold tags."""
ID3 = {
    **{"title": "TIT2", "artist": "TPE1", "album": "TALB", "albumartist": "TPE2", "composer": "TCOM"},
    **{"conductor": "TPE3", "lyricist": "TEXT", "remixer": "TPE4", "genre": "TCON", "date": "TDRC"},
    **{"originaldate": "TDOR", "tracknumber": "TRCK", "discnumber": "TPOS", "bpm": "TBPM", "initialkey": "TKEY"},
    **{"isrc": "TSRC", "copyright": "TCOP", "organization": "TPUB", "grouping": "TIT1", "subtitle": "TIT3"},
    **{"discsubtitle": "TSST", "language": "TLAN", "media": "TMED", "mood": "TMOO", "compilation": "TCMP"},
    **{"titlesort": "TSOT", "artistsort": "TSOP", "albumsort": "TSOA", "albumartistsort": "TSO2"},
    "composersort": "TSOC",
}
MP4 = {
    **{"title": "©nam", "artist": "©ART", "album": "©alb", "albumartist": "aART", "composer": "©wrt"},
    **{"genre": "©gen", "date": "©day", "tracknumber": "trkn", "discnumber": "disk", "bpm": "tmpo"},
    **{"compilation": "cpil", "copyright": "cprt", "comment": "©cmt", "lyrics": "©lyr", "grouping": "©grp"},
    **{"titlesort": "sonm", "artistsort": "soar", "albumsort": "soal", "albumartistsort": "soaa"},
    "composersort": "soco",
}
FREE_MP4 = "----:com.apple.iTunes:"
PAIRED_MP4 = ("trkn", "disk")
"""Atoms of a number and a total; other formats write ``3/12`` or two fields."""
_WHOLE_MP4 = {"tmpo": 0xFFFF, "cpil": 1}
"""Atoms of a whole number, and the greatest."""
TOTALS = {"tracknumber": ("tracktotal", "totaltracks"), "discnumber": ("disctotal", "totaldiscs")}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


@dataclass(frozen=True)
class Picture:
    """A picture in its own format; ``kind`` counts as ID3 does, 3 is the front cover."""

    data: bytes = field(repr=False)
    mime: str
    kind: int = 3
    description: str = ""


@dataclass(frozen=True)
class Tags:
    """Values by name, and pictures; true where there are any. Numbers of many are written ``3/12``."""

    text: Text = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.text or self.pictures)


def write_tags(path: Path, format: str, tags: Tags) -> list[str]:
    """Put ``tags`` into the finished stem ``path`` of one of the formats ``HOLD``. Gives what could not be put in.

    Raises OSError.
    """
    if not tags:
        return []
    from mutagen import MutagenError

    left: list[str] = []
    try:
        if format == "wav":
            left = _append_id3(path, _id3(tags))
        elif format == "mp3":
            _id3(tags).save(path, v1=0, v2_version=4, padding=_no_padding)
        elif format in ("flac", "ogg"):
            _write_vorbis(path, format, tags)
        else:
            left = _write_mp4(path, tags)
    except MutagenError as error:
        cause = error.args[0] if error.args else error  # mutagen wraps what the system says
        raise cause if isinstance(cause, OSError) else OSError(f"tags: {error}") from error
    return [f"not all tags of the song are in {format}: {what}" for what in left]


def _no_padding(_: object) -> int:
    return 0


def _id3(tags: Tags) -> Any:
    from mutagen import id3

    made = id3.ID3()
    for name, values in tags.text.items():
        if name == "comment":
            made.add(id3.COMM(encoding=3, lang="XXX", desc="", text=list(values)))
        elif name == "lyrics":
            made.add(id3.USLT(encoding=3, lang="XXX", desc="", text="\n\n".join(values)))
        elif name in ID3:
            made.add(getattr(id3, ID3[name])(encoding=3, text=list(values)))
        else:
            made.add(id3.TXXX(encoding=3, desc=name.upper(), text=list(values)))
    for number, picture in enumerate(tags.pictures):
        # A tag holds one picture of a kind and description.
        description = picture.description + " " * number
        made.add(id3.APIC(encoding=3, mime=picture.mime, type=picture.kind, desc=description, data=picture.data))
    return made


def _append_id3(path: Path, id3: Any) -> list[str]:
    """A chunk ``id3 `` behind the samples of a RIFF or RF64 file, and the file's size put right.

    RF64 (EBU Tech 3306) keeps the size in the chunk ds64, which stands first.
    """
    from io import BytesIO

    body = BytesIO()
    id3.save(body, v1=0, v2_version=4, padding=_no_padding)
    data = body.getvalue()
    with path.open("r+b") as file:
        kind = file.read(4)
        end = file.seek(0, 2)
        if kind != b"RF64" and end + len(data) + 10 > 1 << 32:
            return ["they would take the WAV beyond 4 GiB"]
        file.write(b"\0" * (end % 2) + b"id3 " + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2))
        size = file.tell() - 8
        file.seek(20 if kind == b"RF64" else 4)
        file.write(struct.pack("<Q" if kind == b"RF64" else "<I", size))
    return []


def _write_vorbis(path: Path, format: str, tags: Tags) -> None:
    from mutagen.flac import FLAC
    from mutagen.flac import Picture as Block
    from mutagen.oggvorbis import OggVorbis

    file = FLAC(path) if format == "flac" else OggVorbis(path)
    if file.tags is None:
        file.add_tags()
    for name, values in tags.text.items():
        number, _, total = values[0].partition("/") if name in TOTALS else ("", "", "")
        if total:
            file[name], file[TOTALS[name][0]] = [number], [total]
        else:
            file[name] = list(values)
    for picture in tags.pictures:
        block = Block()
        block.data, block.mime, block.type, block.desc = picture.data, picture.mime, picture.kind, picture.description
        if format == "flac":
            file.add_picture(block)
        else:
            coded = base64.b64encode(block.write()).decode("ascii")
            file["metadata_block_picture"] = [*file.get("metadata_block_picture", []), coded]
    file.save(padding=_no_padding)


def _write_mp4(path: Path, tags: Tags) -> list[str]:
    from mutagen import mp4

    file, left = mp4.MP4(path), []
    if file.tags is None:
        file.add_tags()
    for name, values in tags.text.items():
        atom = MP4.get(name, FREE_MP4 + name.upper())
        whole = _numbers(values[0])
        if atom.startswith("----"):
            file[atom] = [value.encode("utf-8") for value in values]
        elif atom in PAIRED_MP4:
            if whole is None:
                left.append(f"{name} {values[0]!r} is no number")
            else:
                file[atom] = [whole]
        elif atom in _WHOLE_MP4:
            number = round(_float(values[0]))
            file[atom] = bool(number) if atom == "cpil" else [min(max(0, number), _WHOLE_MP4[atom])]
        else:
            file[atom] = list(values)
    formats = {_PNG: mp4.MP4Cover.FORMAT_PNG, _JPEG: mp4.MP4Cover.FORMAT_JPEG}
    covers = []
    for picture in tags.pictures:
        kind = next((code for magic, code in formats.items() if picture.data.startswith(magic)), None)
        if kind is None:
            left.append(f"of pictures MP4 takes PNG and JPEG, not {picture.mime}")
        else:
            covers.append(mp4.MP4Cover(picture.data, kind))
    if covers:
        file["covr"] = covers
    file.save(padding=_no_padding)
    return left


def _numbers(value: str) -> tuple[int, int] | None:
    """``3/12`` as a pair, with 0 for a total that isn't told; None for what is no number below 65536."""
    parts = [part.strip() for part in value.split("/")]
    if len(parts) > 2 or not all(part.isdecimal() and len(part) <= 5 and int(part) < 65536 for part in parts):
        return None
    return int(parts[0]), int(parts[1]) if len(parts) == 2 else 0


def _float(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        return 0.0
    return number if abs(number) < 1e6 else 0.0


def paired(text: Mapping[str, tuple[str, ...]]) -> Text:
    """Text whose totals, where they are fields of their own, are put behind their numbers: ``3/12``."""
    joined = dict(text)
    for name, totals in TOTALS.items():
        total = next((joined[key] for key in totals if key in joined), None)
        for key in totals:
            joined.pop(key, None)
        if total and name in joined and "/" not in joined[name][0]:
            joined[name] = (f"{joined[name][0]}/{total[0]}",)
    return joined
