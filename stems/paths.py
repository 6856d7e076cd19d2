"""Where stems go: a file name template, filled so that no two songs of one run meet and none leaves the folder."""

import string
import unicodedata
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from ortsep.base.errors import UsageError
from ortsep.stems.manifest import safe_name

TEMPLATE = "{song}/{stem}.{ext}"
JOINED = "stem.mp4"
"""The format, and the extension, of all stems of a song in one file."""
FIELDS = ("song", "stem", "model", "ext")

_MAX_PART_BYTES = 210
"""Of one part of a path: 255 less the room that the temporary name of what is hidden beside a stem takes."""


def output_paths(
    template: str, folder: Path, songs: Sequence[Path], stems: Sequence[str], *, model: str, ext: str
) -> list[dict[str, Path]]:
    """For each song the file of each stem, under ``folder``.

    Fields: song (the file's name without extension), stem, model, ext. Where a song would write what an earlier one of
    this run writes (also when only letter case or Unicode normalisation differ), its name becomes ``name (2)``,
    ``name (3)``, ...: the same songs in the same order give the same paths. Characters that can't be in a file name on
    every system become ``_``, and names too long for a file system are cut.

    Raises UsageError for a template with other fields, without ``{stem}`` for several stems, without ``{song}`` for
    several songs, or that leaves the folder; and where a stem would be written over one of the songs.
    """
    names = Names(template, stems, model=model, ext=ext)
    if len(songs) > 1 and "song" not in names.fields:
        raise UsageError(f"the template {template!r} has no {{song}}, so {len(songs)} songs would meet; add it")
    result = [{stem: folder / name for stem, name in names.of(path).items()} for path in songs]
    own = {_identity(song) for song in songs} - {None}
    for target in (target for targets in result for target in targets.values()):
        if own and _identity(target) in own:
            raise UsageError(f"{target} is one of the songs and would be overwritten; name another folder with -o")
    return result


class Names:
    """Gives one song after the other the relative path of each stem; see ``output_paths``. A name is remembered by 8
    bytes. ``taken``: names that others of the same run gave. Raises UsageError.
    """

    def __init__(
        self, template: str, stems: Sequence[str], *, model: str, ext: str, taken: set[bytes] | None = None
    ) -> None:
        self.fields = _check_template(template)
        self._joined = ext == JOINED
        if self._joined and "stem" in self.fields:
            raise UsageError(f"all stems are in one {JOINED} and the template {template!r} has {{stem}}; leave it out")
        if len(stems) > 1 and "stem" not in self.fields and not self._joined:
            raise UsageError(
                f"the template {template!r} has no {{stem}}, so {len(stems)} stems would be one file; add it"
            )
        self._template, self._stems, self._model, self._ext = template, tuple(stems), model, ext
        self._taken = set() if taken is None else taken
        self._numbers: dict[str, int] = {}  # the last one of each name that came twice: the lower ones are taken

    def of(self, song: Path) -> dict[str, str]:
        """The next song's."""
        number = self._numbers.get(song.stem, 0) + 1
        while True:
            suffix = "" if number == 1 else f" ({number})"
            filled = {
                s: _fill(self._template, safe_name(song.stem), suffix, s, self._model, self._ext) for s in self._stems
            }
            keys = {_key(name) for name in filled.values()}
            if len(keys) < len(self._stems) and not self._joined:
                raise UsageError(f"the template {self._template!r} gives two stems one file; use {TEMPLATE!r}")
            if not keys & self._taken:
                break
            number += 1
        self._taken |= keys
        if number > 1:
            self._numbers[song.stem] = number
        return filled


def _key(name: str) -> bytes:
    """Equal where a file system may not tell two names apart."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from all others whatever it is called; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_template(template: str) -> set[str]:
    try:
        parsed = [(text, field, spec, how) for text, field, spec, how in string.Formatter().parse(template)]
    except ValueError as error:
        raise UsageError(f"the template {template!r} can't be read ({error}); use {TEMPLATE!r}") from None
    fields = [(field, spec, how) for _, field, spec, how in parsed if field is not None]
    for field, spec, how in fields:
        if field not in FIELDS or spec or how:
            raise UsageError(
                f"the template {template!r} has an unknown field; use {{song}}, {{stem}}, {{model}}, {{ext}}"
            )
    literal = "".join(text.replace("\\", "/") + ("" if field is None else "x") for text, field, _, _ in parsed)
    parts = literal.split("/")
    if any(part in ("", ".", "..") or part != safe_name(part) for part in parts):
        raise UsageError(f"the template {template!r} is no relative path of plain names; use {TEMPLATE!r}")
    return {field for field, _, _ in fields}


def _fill(template: str, song: str, suffix: str, stem: str, model: str, ext: str) -> str:
    """The relative path, with the song's name cut where a part of the path would be too long."""
    fields: Mapping[str, str] = {"stem": safe_name(stem), "model": safe_name(model), "ext": ext}
    while True:
        # Separators in names are gone by now, so every "/" here is the template's own.
        parts = template.replace("\\", "/").format(song=song + suffix, **fields).split("/")
        parts = [safe_name(part) for part in parts]
        over = max(len(part.encode("utf-8")) for part in parts) - _MAX_PART_BYTES
        if over <= 0:
            return "/".join(parts)
        if len(song) <= 1:
            raise UsageError(f"the template {template!r} gives names longer than a file system allows; shorten it")
        song = song.encode("utf-8")[:-over].decode("utf-8", "ignore").rstrip(". ") or "_"
