"""Models on songs whose true stems are known: each separation in a process of its own, then the figures of all stems.

Beside the models stand the mixture taken for each stem, below which nobody needs to go, and the ideal ratio mask, above
which no mask gets far.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.audio.sources import FileSource, Source
from ortsep.base.apart import NoAnswer, ask
from ortsep.base.errors import OrtsepError, UsageError
from ortsep.base.whole import scratch
from ortsep.graphs.model import Model, load_model
from ortsep.measure.bsseval import add_museval
from ortsep.measure.score import Figures, average, judge, match
from ortsep.measure.truth import (
    MIXTURE,
    Ideal,
    Recipe,
    Sum,
    TrueSong,
    alike,
    read_mapping,
    recipe,
    song_in,
    songs_in,
)
from ortsep.models.catalogue import folder_name
from ortsep.songs.mixture import counted
from ortsep.songs.record import Files
from ortsep.stems.paths import output_paths

FLOOR, CEILING = MIXTURE, "ideal mask"
"""The estimates that are no model's."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Entrant:
    """A model and what it is called here."""

    label: str
    model: Model


@dataclass(frozen=True)
class Effort:
    """What a separation took: seconds from file to files, their share of the song's, peak MB of its process."""

    seconds: float
    real_time_factor: float
    peak_mb: float
    provider: str


@dataclass(frozen=True)
class SongScores:
    """One song. ``figures`` by stem and estimate: the mixture, each model that has the stem, the ideal mask."""

    song: str
    mixture: Path
    seconds: float
    references: Mapping[str, str]
    """What each stem was compared with."""
    efforts: Mapping[str, Effort]
    figures: Mapping[str, Mapping[str, Figures]]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        return {
            "song": self.song,
            "mixture": str(self.mixture),
            "seconds": round(self.seconds, 6),
            "references": dict(self.references),
            "runs": {label: {k: _rounded(v) for k, v in asdict(e).items()} for label, e in self.efforts.items()},
            "stems": _documents(self.figures),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Scores:
    """All songs, by all models (``labels``)."""

    labels: tuple[str, ...]
    songs: tuple[SongScores, ...]

    def averages(self, how: str) -> dict[str, dict[str, Figures]]:
        """The mean or median (``how``) over the songs by stem and estimate, in the order of the first song that has
        them."""
        found: dict[str, dict[str, list[Figures]]] = {}
        for song in self.songs:
            for stem, estimates in song.figures.items():
                for name, figures in estimates.items():
                    found.setdefault(stem, {}).setdefault(name, []).append(figures)
        return {stem: {name: average(v, how) for name, v in each.items()} for stem, each in found.items()}

    def document(self) -> dict[str, Any]:
        """Everything for JSON: a figure that is undefined is null."""
        return {
            "version": __version__,
            "models": list(self.labels),
            "songs": [song.document() for song in self.songs],
            "mean": _documents(self.averages("mean")),
            "median": _documents(self.averages("median")),
        }


def score(
    models: Sequence[str | Path] | str | Path,
    songs: str | Path | Iterable[str | Path] | None = None,
    *,
    mixture: str | Path | None = None,
    stems: str | Path | None = None,
    stems_from: Sequence[str] = (),
    only: Sequence[str] = (),
    provider: str = "auto",
    threads: int | None = None,
    museval: bool = False,
    say: Say = lambda _: None,
) -> Scores:
    """How well exported ``models`` separate songs whose true stems are known.

    ``songs``: a folder of songs in MUSDB's layout (or one of them, or several such folders); or ``mixture`` and
    ``stems``, a file and the folder of its true stems (``mixture`` may lie among them). ``stems_from``: entries such as
    "accompaniment=drums+bass+other", where a model's stem is not found by its name; ``only`` these stems. ``museval``
    adds its ISR, SIR and SAR, which take long. ``say`` is told what is being done.

    Raises UsageError, FileMissing, ModelError, AudioError, and OrtsepError for a separation that failed.
    """
    true = _songs(songs, mixture, stems)
    entrants = enter([models] if isinstance(models, str | Path) else models)
    wanted = _wanted(entrants, only)
    for entrant in entrants:
        if not set(wanted) & set(entrant.model.stems):
            raise UsageError(f"{entrant.label} has none of {', '.join(wanted)}; leave it out, or --only")
    mapping = read_mapping(stems_from)
    for song in true:  # before anything is computed
        for stem in wanted:
            recipe(song, stem, mapping)
    loading = {"provider": provider, "threads": threads}
    made = [_score_song(song, entrants, wanted, mapping, loading, museval, say) for song in true]
    return Scores(tuple(e.label for e in entrants), tuple(made))


def enter(references: Sequence[str | Path]) -> list[Entrant]:
    """The models, called by their names, or as they were typed where two have one name. Raises UsageError."""
    models = [load_model(reference) for reference in references]
    names = [model.spec.name for model in models]
    labels = [n if names.count(n) == 1 else Path(r).name for n, r in zip(names, references, strict=True)]
    if len(set(labels)) < len(labels):
        labels = [str(reference) for reference in references]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"{label} is named twice; name each model once")
    if reserved := {FLOOR, CEILING} & set(labels):
        raise UsageError(f"no model can be called {reserved.pop()} here; give its path")
    return [Entrant(label, model) for label, model in zip(labels, models, strict=True)]


def _songs(
    songs: str | Path | Iterable[str | Path] | None, mixture: str | Path | None, stems: str | Path | None
) -> list[TrueSong]:
    if (songs is None) == (stems is None):
        raise UsageError("name the songs: --stems FOLDER with --mixture FILE, or --songs FOLDER in MUSDB's layout")
    if songs is None:
        assert stems is not None
        return [song_in(Path(stems), None if mixture is None else counted(mixture).song.path)]
    if mixture is not None:
        raise UsageError("--mixture goes with --stems; in --songs each song's folder has its own")
    folders = [songs] if isinstance(songs, str | Path) else songs
    return [song for folder in folders for song in songs_in(Path(folder))]


def _wanted(entrants: Sequence[Entrant], only: Sequence[str]) -> list[str]:
    """The stems to be scored, in the order of the models'. Raises UsageError for one that none of them has."""
    stems = dict.fromkeys(stem for e in entrants for stem in e.model.stems)
    for name in only:
        if name not in stems:
            raise UsageError(f"no model here has a stem {name!r}; they have {', '.join(stems)}")
    return [stem for stem in stems if not only or stem in only]


def _score_song(
    song: TrueSong,
    entrants: Sequence[Entrant],
    wanted: Sequence[str],
    mapping: Mapping[str, Recipe],
    loading: Mapping[str, Any],
    museval: bool,
    say: Say,
) -> SongScores:
    mixture = counted(song.mixture)
    recipes = {stem: recipe(song, stem, mapping) for stem in wanted}
    references = _references(song, mixture, recipes)
    efforts, estimates = dict[str, Effort](), {stem: dict[str, Source]({FLOOR: mixture}) for stem in wanted}
    with scratch("ortsep-score") as folder:
        for number, entrant in enumerate(entrants):
            say(f"{song.name}: separating with {entrant.label} ...")
            efforts[entrant.label], files = _separated(entrant, song, folder / str(number), loading)
            for stem, path in files.items():
                if stem in estimates:
                    estimates[stem][entrant.label] = counted(path)
        for stem, reference in references.items():
            estimates[stem][CEILING] = Ideal(mixture, reference)
        matches = {}
        for stem, reference in references.items():
            say(f"{song.name}: comparing {stem} ...")
            matches[stem] = match(reference, estimates[stem])
        figures: dict[str, dict[str, Figures]] = {stem: {} for stem in wanted}
        for name in (FLOOR, *efforts, CEILING):
            own = {stem: m[name] for stem, m in matches.items() if name in m}
            judged = judge(own, mixture.samples, mixture.sample_rate)
            if museval and name != FLOOR:
                say(f"{song.name}: museval of {name} ...")
                judged = add_museval(judged, references, {s: estimates[s][name] for s in judged})
            for stem, of_stem in judged.items():
                figures[stem][name] = of_stem
    silent = [stem for stem in wanted if figures[stem][FLOOR].sdr is None]
    notes = [f"{song.name}: the true {stem} is silent, so its figures are undefined" for stem in silent]
    notes += [f"{e.label} has random weights: its stems are noise" for e in entrants if e.model.spec.weights.random]
    length = mixture.samples / mixture.sample_rate
    told = {stem: str(made) for stem, made in recipes.items()}
    return SongScores(song.name, song.mixture, length, told, efforts, figures, tuple(notes))


def _references(song: TrueSong, mixture: FileSource, recipes: Mapping[str, Recipe]) -> dict[str, Source]:
    """The true stems as sources. Raises AudioError for one that is not of the mixture's rate, channels and length."""
    parts: dict[str, Source] = {MIXTURE: mixture}

    def part(name: str) -> Source:
        if name not in parts:
            parts[name] = alike(song, mixture, name, counted(song.stems[name]))
        return parts[name]

    return {
        stem: Sum(tuple(part(p) for p in made.plus), part(made.minus) if made.minus else None)
        for stem, made in recipes.items()
    }


def _separated(
    entrant: Entrant, song: TrueSong, folder: Path, loading: Mapping[str, Any]
) -> tuple[Effort, dict[str, Path]]:
    """Separate in a process of its own, and tell what it took and where the stems are."""
    model, files = entrant.model, Files(output=folder)
    target = model.folder if len(model.members) > 1 else model.file(model.members[0])
    try:
        took = ask("ortsep.measure.bench", target, song.mixture, folder, json.dumps(dict(loading)))
    except NoAnswer as error:
        raise OrtsepError(f"separating {song.name} with {entrant.label} failed: {error}") from error
    length = counted(song.mixture)
    share = took["seconds"] * length.sample_rate / length.samples
    effort = Effort(took["seconds"], share, took["peak_mb"], took["backend"])
    name = folder_name(model.spec.name)
    return effort, output_paths(files.template, folder, [song.mixture], model.stems, model=name, ext="wav")[0]


def _documents(figures: Mapping[str, Mapping[str, Figures]]) -> dict[str, Any]:
    return {stem: {name: f.document() for name, f in each.items()} for stem, each in figures.items()}


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
