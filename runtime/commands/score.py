"""``ortsep score``: how well models separate songs whose true stems are known, as a table, JSON, CSV or a picture."""

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ortsep.base.whole import whole_file
from ortsep.commands.make import export_first
from ortsep.commands.terminal import screen, shortened, shown
from ortsep.measure.bsseval import metrics
from ortsep.measure.score import Figures
from ortsep.measure.trial import Scores, SongScores, score

COLUMNS = {
    "sdr": "SDR",
    "si_sdr": "SI-SDR",
    "frames_sdr": "frames",
    "bleedless": "bleedless",
    "fullness": "fullness",
    "isr": "ISR",
    "sir": "SIR",
    "sar": "SAR",
}
"""Figures and their heads, in order."""
_NAME = 22
"""Columns of the estimates' names."""
_HEADS = ("song", "seconds", "stem", "reference", "estimate", *COLUMNS, "processing_seconds", "real_time_factor")


@dataclass(frozen=True)
class Scoring:
    """What is scored and what is told, as typed."""

    mixture: Path | None = None
    stems: Path | None = None
    songs: tuple[Path, ...] = ()
    stems_from: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    provider: str = "auto"
    threads: int | None = None
    museval: bool = False
    csv: Path | None = None
    picture: Path | None = None
    as_json: bool = False
    quiet: bool = False


def score_command(models: Sequence[str], settings: Scoring) -> int:
    if settings.museval:
        metrics()
    with contextlib.ExitStack() as files:
        kept = _outputs(settings, files)  # what can't be written is said before the work
        for model in models:
            export_first(model, "bar", settings.quiet)
        found = score(
            models,
            settings.songs or None,
            mixture=settings.mixture,
            stems=settings.stems,
            stems_from=settings.stems_from,
            only=settings.only,
            provider=settings.provider,
            threads=settings.threads,
            museval=settings.museval,
            say=(lambda _: None) if settings.quiet else screen.doing,
        )
        screen.clear()
        for path, write in kept:
            path.write_bytes(write(found))
    if settings.as_json:
        print(json.dumps(found.document(), allow_nan=False))
    else:
        print("\n".join(lines(found)))
    return 0


def _outputs(settings: Scoring, files: contextlib.ExitStack) -> list[tuple[Path, Callable[[Scores], bytes]]]:
    """The files that are to be written, under names for the time being, and what makes each."""
    kept: list[tuple[Path, Callable[[Scores], bytes]]] = []
    if settings.csv is not None:
        path = files.enter_context(whole_file(settings.csv, "name another file with --csv"))
        kept.append((path, lambda found: table_csv(found).encode()))
    if (picture := settings.picture) is not None:
        from ortsep.report.scores import check_picture, draw_scores

        check_picture(picture)
        path = files.enter_context(whole_file(picture, "name another file with --picture"))
        kept.append((path, lambda found: draw_scores(found.document(), picture.suffix.lower().lstrip("."))))
    return kept


def lines(scores: Scores) -> Iterator[str]:
    """The table, 80 columns wide: of one song itself, of several each song's SDR, the means and the medians."""
    several = len(scores.songs) > 1
    if not several:
        yield from _of_song(scores.songs[0])
    else:
        yield from _by_song(scores)
        for how in ("mean", "median"):
            yield from ("", f"{how} over {len(scores.songs)} songs")
            yield from _table(scores.averages(how))
    notes = dict.fromkeys(note for song in scores.songs for note in song.notes)
    if notes:
        yield from ("", *notes)


def _of_song(song: SongScores) -> Iterator[str]:
    yield f"{shown(song.song)}, {song.seconds:.1f} s"
    yield from _efforts(song.efforts, song.seconds)
    yield from _table(song.figures, song.references)


def _efforts(efforts: Mapping[str, Any], seconds: float) -> Iterator[str]:
    for label, e in efforts.items():
        speed = f"{e.seconds:.1f} s, {e.real_time_factor:.3f} of real time, peak {e.peak_mb:.0f} MB, {e.provider}"
        yield f"  {shortened(shown(label), _NAME - 1):<{_NAME}}{speed}"


def _table(figures: Mapping[str, Mapping[str, Figures]], references: Mapping[str, str] | None = None) -> Iterator[str]:
    """A block a stem, a row an estimate."""
    every = [f for estimates in figures.values() for f in estimates.values()]
    columns = [c for c in COLUMNS if c not in ("isr", "sir", "sar") or any(getattr(f, c) is not None for f in every)]
    widths = {c: 10 if len(columns) == 5 else max(7, len(COLUMNS[c]) + 1) for c in columns}
    room = _NAME if len(columns) == 5 else 17
    yield ""
    yield " " * (room + 2) + "".join(f"{COLUMNS[c]:>{widths[c]}}" for c in columns)
    for stem, estimates in figures.items():
        of = (references or {}).get(stem, stem)
        yield f"{shown(stem)}" + (f" (the true one is {of})" if of != stem else "")
        for name, found in estimates.items():
            cells = (f"{_cell(getattr(found, c)):>{widths[c]}}" for c in columns)
            yield f"  {shortened(shown(name), room):<{room}}" + "".join(cells)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _by_song(scores: Scores) -> Iterator[str]:
    """SDR of each song and model, a column a stem; as many stems as fit."""
    stems = list(dict.fromkeys(stem for song in scores.songs for stem in song.figures))
    room = 28
    shortest = max(9, min(14, (80 - room) // len(stems)))
    fit = (80 - room) // shortest
    for part in (stems[at : at + fit] for at in range(0, len(stems), fit)):
        yield f"{'SDR':<{room}}" + "".join(f"{shortened(shown(stem), shortest - 1):>{shortest}}" for stem in part)
        for song in scores.songs:
            one = len(scores.labels) == 1
            if not one:
                yield shortened(shown(song.song), 79)
            for label in song.efforts:
                name = shortened(shown(song.song if one else f"  {label}"), room - 1)
                found = (song.figures[stem].get(label, Figures()) for stem in part)
                yield f"{name:<{room}}" + "".join(f"{_cell(f.sdr):>{shortest}}" for f in found)
    yield ""
    for label in scores.labels:
        efforts = [song.efforts[label] for song in scores.songs]
        length = sum(song.seconds for song in scores.songs)
        took, peak = sum(e.seconds for e in efforts), max(e.peak_mb for e in efforts)
        speed = f"{took:.1f} s, {took / length:.3f} of real time, peak {peak:.0f} MB, {efforts[0].provider}"
        yield f"  {shortened(shown(label), _NAME - 1):<{_NAME}}{speed}"


def table_csv(scores: Scores) -> str:
    """A line for each song, stem and estimate; an undefined figure is an empty field."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow((*_HEADS, "peak_mb", "provider"))
    for song in scores.songs:
        for stem, estimates in song.figures.items():
            for name, found in estimates.items():
                effort = song.efforts.get(name)
                took = () if effort is None else asdict(effort).values()
                place = (song.song, f"{song.seconds:.6f}", stem, song.references[stem], name)
                writer.writerow((*place, *(_plain(v) for v in (*_values(found), *(took or ("",) * 4)))))
    return out.getvalue()


def _values(found: Figures) -> list[float | None]:
    return [getattr(found, column) for column in COLUMNS]


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
