"""The songs in a folder, and one line of what else there was."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ortsep.base.errors import FileMissing
from ortsep.base.paths import is_folder

PLAIN = frozenset(
    [
        *(".wav", ".wave", ".w64", ".rf64", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
        *(".flac", ".ogg", ".oga", ".opus", ".mp3"),
    ]
)
"""What libsndfile opens."""
OTHER = frozenset(
    [
        *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".mka", ".webm", ".avi", ".aac", ".wma", ".ac3"),
        *(".eac3", ".dts", ".wv", ".ape", ".tta", ".mp2", ".mpc", ".spx", ".amr", ".dsf"),
    ]
)
"""What ffmpeg opens, where it is installed."""
_LONGEST_NAME = 255
"""Bytes."""
_NAMED = 3
"""So many of what was left out are named, the others counted."""


@dataclass
class Found:
    """What lies in the folders that were named. ``songs`` in order; the rest is told of in ``left_out``."""

    songs: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def gather(words: Sequence[str], output: Path | None, recursive: bool) -> Found:
    """Files as they are named, whatever they are called, and folders as the songs in them, sorted by name.

    Hidden files are none (macOS writes a ._song.wav beside each song on other disks), nor is what lies in ``output``,
    where the stems of an earlier run may be. Raises FileMissing for a folder without songs.
    """
    found = Found()
    for word in words:
        path = Path(word)
        if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
            raise FileMissing(f"there is no file {word}: its name is longer than a file system allows; check the path")
        if not is_folder(word):
            found.songs.append(path)
            continue
        kept, left = _in_folder(path, output, recursive)
        note = _left_out(path, left, recursive)
        if not kept:
            raise FileMissing(f"the folder {path} holds no songs; {note or 'name songs, or another folder'}")
        found.songs.extend(kept)
        if note:
            found.notes.append(f"{path}: {note}")
    return found


def has_songs(folder: Path) -> bool:
    """Whether a folder, itself, holds a song."""
    return any(_is_song(path) for path in folder.iterdir() if path.is_file())


def _is_song(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in PLAIN | OTHER


def _in_folder(folder: Path, output: Path | None, recursive: bool) -> tuple[list[Path], list[Path]]:
    """Songs, and what else is there: other files, and the folders that were not entered."""
    ffmpeg = shutil.which("ffmpeg") is not None
    kept: list[Path] = []
    left: list[Path] = []
    for path in _walk(folder, output, recursive):
        readable = _is_song(path) and (ffmpeg or path.suffix.lower() in PLAIN)
        (kept if readable and path.is_file() else left).append(path)
    return kept, left


def _walk(folder: Path, output: Path | None, recursive: bool) -> Iterator[Path]:
    """What is visible in a folder, by name, files first; folders themselves only where they are not entered."""
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: (p.is_dir(), p.name))
    for path in entries:
        if not path.is_dir():
            yield path
        elif output is not None and output.exists() and path.samefile(output):
            continue
        elif recursive and not path.is_symlink():  # a link may lead back up
            yield from _walk(path, output, recursive)
        else:
            yield path


def _left_out(folder: Path, left: Sequence[Path], recursive: bool) -> str:
    """One line of it, or nothing."""
    folders = [path for path in left if path.is_dir()]
    others = [path for path in left if not path.is_dir()]
    parts = []
    if folders:
        what = "a folder in it was" if len(folders) == 1 else f"{len(folders)} folders in it were"
        them = "it" if len(folders) == 1 else "them"
        how = "links are followed where they are named" if recursive else f"--recursive enters {them}"
        parts.append(f"{what} not entered ({how})")
    if others:
        named = ", ".join(str(path.relative_to(folder)) for path in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        mend = " (ffmpeg would open some of them; install it)" if any(map(_is_song, others)) else ""
        parts.append(f"left out {named}{more}{mend}")
    return "; ".join(parts)
