"""Songs whose true stems are known, and what a separation lies between: the mixture itself, and the ideal mask.

A song is a mixture and a folder of stems, as MUSDB lays them out: ``song/mixture.wav``, ``song/vocals.wav``, ... What a
model calls by another name, or gives as one where the folder has several, is found by ``recipe``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ortsep.audio.sources import Source
from ortsep.base.arrays import F32
from ortsep.base.errors import AudioError, FileMissing, UsageError
from ortsep.base.threads import closed
from ortsep.engine.stft import Analyser, Synthesiser
from ortsep.measure.score import seconds
from ortsep.models.spec import STFT

MIXTURE = "mixture"
SUFFIXES = frozenset({".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".mp3", ".m4a"})
BAND = ("drums", "bass", "other", "piano", "guitar")
"""What accompanies vocals in the known sets of stems; the first three are in each."""
PARTS = {
    "drums": ("kick", "snare", "toms", "hihat", "cymbals", "ride", "crash"),
    "cymbals": ("ride", "crash"),
}
"""A stem that is the sum of those of these that are there."""
_SAME = {
    **dict.fromkeys(("accompaniment", "instrumental", "instrum", "inst", "backing"), "no_vocals"),
    **dict.fromkeys(("hh", "hi_hat"), "hihat"),
    **dict.fromkeys(("vocal", "voice"), "vocals"),
    **dict.fromkeys(("mix", "linear_mixture"), MIXTURE),
}


def canonical(name: str) -> str:
    """One spelling of a stem's names.

    >>> canonical("Hi-Hat"), canonical("Instrumental"), canonical("bass")
    ('hihat', 'no_vocals', 'bass')
    """
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return _SAME.get(plain, plain)


@dataclass(frozen=True)
class TrueSong:
    """A mixture, and its true stems by canonical name."""

    name: str
    mixture: Path
    stems: Mapping[str, Path]


@dataclass(frozen=True)
class Recipe:
    """A reference as a sum of files, by canonical name, less another; ``mixture`` is the mixture."""

    plus: tuple[str, ...]
    minus: str = ""

    def __str__(self) -> str:
        return " + ".join(self.plus) + (f" - {self.minus}" if self.minus else "")


def song_in(folder: Path, mixture: Path | None = None) -> TrueSong:
    """The song of a folder of stems; its mixture lies among them unless it is named. Raises FileMissing, UsageError."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        raise FileMissing(f"there is no folder {folder} with the true stems; check the path")
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name = canonical(path.stem)
        if name in files and name != MIXTURE:
            raise UsageError(f"{folder} holds {files[name].name} and {path.name}, which are one stem; take one away")
        if mixture is None or not path.samefile(mixture):
            files.setdefault(name, path)
    whole = mixture or files.get(MIXTURE)
    if whole is None:
        raise FileMissing(f"{folder} holds no mixture (mixture.wav); add it, or name it with --mixture")
    stems = {name: path for name, path in files.items() if name != MIXTURE}
    if not stems:
        raise FileMissing(f"{folder} holds no stems (vocals.wav, ...) to compare with; name the folder that does")
    return TrueSong(folder.name or folder.resolve().name, whole, stems)


def songs_in(folder: Path) -> list[TrueSong]:
    """The song that a folder is, or those that its folders are, by name. Raises FileMissing, UsageError."""
    if not folder.is_dir():
        raise FileMissing(f"there is no folder {folder} of songs; check the path")

    def whole(place: Path) -> bool:
        return any(canonical(p.stem) == MIXTURE and p.suffix.lower() in SUFFIXES for p in place.iterdir())

    if whole(folder):
        return [song_in(folder)]
    found = [song_in(p) for p in sorted(folder.iterdir()) if p.is_dir() and p.name[0] != "." and whole(p)]
    if not found:
        raise FileMissing(
            f"{folder} holds no songs in MUSDB's layout (song/mixture.wav, song/vocals.wav, ...); name the "
            "folder above the songs"
        )
    return found


def read_mapping(texts: Sequence[str]) -> dict[str, Recipe]:
    """``accompaniment=drums+bass+other`` or ``accompaniment=mixture-vocals``, by canonical name. Raises UsageError."""
    result = {}
    for text in texts:
        name, _, rest = text.partition("=")
        added, _, minus = rest.partition("-")
        plus = tuple(canonical(part) for part in added.split("+") if part.strip())
        if not name.strip() or not plus or "-" in minus or "+" in minus:
            raise UsageError(
                f"--stems-from {text} is no mapping; write STEM=FILE+FILE, as accompaniment=drums+bass+other, or "
                "STEM=mixture-FILE"
            )
        result[canonical(name)] = Recipe(plus, canonical(minus) if minus.strip() else "")
    return result


def recipe(song: TrueSong, stem: str, mapping: Mapping[str, Recipe]) -> Recipe:
    """What the model's ``stem`` is to be compared with: as mapped, a file of its name, or what it is the sum of.

    ``no_vocals`` (also called accompaniment, instrumental) is the sum of the band where all of it is there, else the
    mixture less the vocals, and so on for any ``no_...``. Raises FileMissing with what the folder has.
    """
    name = canonical(stem)
    if name in mapping:
        return _held(song, stem, mapping[name])
    if name in song.stems:
        return Recipe((name,))
    if name == "no_vocals" and all(part in song.stems for part in BAND[:3]):
        return Recipe(tuple(part for part in BAND if part in song.stems))
    if (other := name.removeprefix("no_")) != name and other in song.stems:
        return Recipe((MIXTURE,), other)
    parts = tuple(part for part in PARTS.get(name, ()) if part in song.stems)
    if len(parts) > 1:
        return Recipe(parts)
    raise FileMissing(
        f"{song.name} has no true stem {stem} (it has {', '.join(song.stems)}); add {stem}.wav, say which files make "
        f"it with --stems-from {stem}=FILE+FILE, or leave it out with --only"
    )


def _held(song: TrueSong, stem: str, made: Recipe) -> Recipe:
    for part in (*made.plus, *([made.minus] if made.minus else [])):
        if part not in song.stems and part != MIXTURE:
            raise FileMissing(
                f"{song.name} has no {part} for --stems-from {stem}={made}; it has {', '.join(song.stems)}"
            )
    return made


def alike(song: TrueSong, mixture: Source, part: str, source: Source) -> Source:
    """``source``, the file of a stem. Raises AudioError where its rate, channels or length are not the mixture's."""
    for what, whole, given in (
        ("Hz", mixture.sample_rate, source.sample_rate),
        ("channels", mixture.channels, source.channels),
        ("samples", mixture.samples, source.samples),
    ):
        if whole != given:
            raise AudioError(
                f"{song.stems[part]} has {given} {what} and the mixture {whole}: they are not of one song, or one of "
                "them was converted; take both from one source"
            )
    return source


@dataclass(frozen=True)
class Sum:
    """Sources added up, ``minus`` taken off; all alike in rate, channels and length."""

    plus: tuple[Source, ...]
    minus: Source | None = None

    @property
    def sample_rate(self) -> int:
        return self.plus[0].sample_rate

    @property
    def channels(self) -> int:
        return self.plus[0].channels

    @property
    def samples(self) -> int:
        return self.plus[0].samples

    def blocks(self) -> Iterator[F32]:
        sources = self.plus if self.minus is None else (*self.plus, self.minus)
        parts = [seconds(source) for source in sources]
        try:
            for blocks in zip(*parts, strict=True):
                total: F32 = np.asarray(sum(blocks[: len(self.plus)]), np.float32)
                yield total if self.minus is None else total - blocks[-1]
        finally:
            for part in parts:
                part.close()  # type: ignore[attr-defined]


MASK = STFT(2048, 1024, 1025, pad_left=1024, pad_right=1024, pad_mode="zero", partial=True)
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Ideal:
    """The mixture under the ideal ratio mask of a stem: what a mask on the mixture's STFT can reach at about best.

    |S|^2 / (|S|^2 + |M - S|^2) for each channel by itself, of the stem's and the mixture's STFT of 2048 points and hop
    1024: the mask of power that ``sigsep-mus-oracle`` (IRM, alpha 2) takes, with the rest as the one other source.
    """

    mixture: Source
    stem: Source

    @property
    def sample_rate(self) -> int:
        return self.mixture.sample_rate

    @property
    def channels(self) -> int:
        return self.mixture.channels

    @property
    def samples(self) -> int:
        return self.mixture.samples

    def blocks(self) -> Iterator[F32]:
        whole, part = (Analyser(MASK, self.channels) for _ in range(2))
        made = Synthesiser(MASK, (self.channels,), self.samples)
        with closed(seconds(self.mixture)) as mixture, closed(seconds(self.stem)) as stem:
            for m, s in zip(mixture, stem, strict=True):
                yield made.push(_masked(whole.push(m), part.push(s)))
        yield made.push(_masked(whole.finish(), part.finish()))
        yield made.finish()


def _masked(mixture: np.ndarray, stem: np.ndarray) -> np.ndarray:
    wanted, rest = np.abs(stem) ** 2, np.abs(mixture - stem) ** 2
    masked: np.ndarray = mixture * (wanted / (wanted + rest + np.float32(_EPS)))
    return masked
