"""The text of a song's report: HTML complete in itself but for the stems' audio, from figures and pictures.

Whatever comes from outside (names, warnings, a model's spec) is escaped here.
"""

import html
import math
import os
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ortsep import __version__
from ortsep.base.decibels import level, ratio
from ortsep.graphs.providers import runtime_packages
from ortsep.models.catalogue import catalogue
from ortsep.models.spec import ModelSpec
from ortsep.options import Options
from ortsep.report.overview import Overview
from ortsep.report.pictures import LEFT, RANGE, RIGHT, clock
from ortsep.songs.null import DEEPEST
from ortsep.songs.record import Files, SongReport

_TEMPLATE = Path(__file__).with_name("page.html")
_SCRIPT = Path(__file__).with_name("page.js")
_TONES = ("#3b78e7", "#e0662b", "#2f9e58", "#c93a7c", "#7a58d6", "#14919b", "#a98600", "#64748b")
_INK = "var(--ink)"
_REDISTRIBUTABLE = {True: "may be redistributed", False: "may not be redistributed", None: "redistribution not stated"}


@dataclass(frozen=True)
class Signal:
    """The mixture or a stem: what is known of it, its picture (an ``<svg>``) and its file, where there is one to play.

    The signal is that file from ``begins`` (seconds) on, times ``gain``.
    """

    name: str
    overview: Overview
    picture: str
    file: Path | None = None
    begins: float = 0.0
    gain: float = 1.0


def render(
    folder: Path,
    report: SongReport,
    mixture: Signal,
    stems: Sequence[Signal],
    models: Sequence[ModelSpec],
    options: Options,
    files: Files,
    *,
    null_db: float | None,
    top: float,
    colours: Sequence[str],
) -> str:
    """The page to be put into ``folder``, from which its links go. ``top`` (dB) has the last of ``colours``."""
    tones = [_INK, *(_TONES[k % len(_TONES)] for k in range(len(stems)))]
    signals = list(zip([mixture, *stems], tones, strict=True))
    whole = mixture.overview
    text = string.Template(_TEMPLATE.read_text(encoding="utf-8"))
    return text.substitute(
        version=_e(__version__),
        title=_e(Path(report.song).name),
        summary=_summary(report, whole, len(stems)),
        warnings=_warnings(report.warnings),
        levels="\n".join(_level(signal, whole, tone) for signal, tone in signals),
        null=_null(null_db, files.format),
        notes=_notes(report.gain),
        seconds=f"{whole.seconds:.6f}",
        rate=str(whole.sample_rate),
        script=_SCRIPT.read_text(encoding="utf-8"),
        left=f"{100 * LEFT:g}",
        right=f"{100 * (1 - RIGHT):g}",
        colours=", ".join(colours),
        bottom=_signed(top - RANGE, 0),
        top=_signed(top, 0),
        signals="\n".join(_section(signal, whole, tone, folder) for signal, tone in signals),
        models="\n".join(_model(spec) for spec in models),
        run=_run(report, options, files, whole),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _signed(value: float, digits: int = 1) -> str:
    """A number with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def decibels(amplitude: float) -> str:
    """An amplitude of full scale 1 in dB, ``−∞`` for silence."""
    return _signed(level(amplitude)) if amplitude > 0 else "−∞"


def _share(part: Overview, mixture: Overview) -> float | None:
    """Energy as a part of the mixture's; None where that is silent."""
    return part.energy / mixture.energy if mixture.energy > 0 else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else "&lt; 0.1 %"


def label(name: str, overview: Overview) -> str:
    """What a picture shows, for those who don't see it."""
    levels = f"peak {decibels(overview.peak)} dBFS, RMS {decibels(overview.rms)} dBFS"
    return f"Waveform and spectrogram of {name}: {levels}, {_duration(overview)} long"


def _level(signal: Signal, mixture: Overview, tone: str) -> str:
    overview = signal.overview
    share = _share(overview, mixture)
    relative = "–" if not share else f"{_signed(ratio(overview.energy, mixture.energy))} dB"
    width = 100 * min(1.0, share or 0.0)
    return (
        f'<tr style="--tone: {tone}"><th scope="row"><span class="dot"></span>{_e(signal.name)}</th>'
        f'<td class="number">{decibels(overview.peak)} dBFS</td><td class="number">{decibels(overview.rms)} dBFS</td>'
        f'<td class="number">{relative}</td><td class="number">{_percent(share)}</td>'
        f'<td class="bar"><span style="width: {width:.2f}%"></span></td></tr>'
    )


def _section(signal: Signal, mixture: Overview, tone: str, folder: Path) -> str:
    name, overview, whole = _e(signal.name), signal.overview, signal.overview is mixture
    figures = [f"peak {decibels(overview.peak)} dBFS", f"RMS {decibels(overview.rms)} dBFS"]
    buttons = audio = ""
    if signal.file is not None:
        url = link(signal.file, folder)
        if not whole:
            figures.append(f"{_percent(_share(overview, mixture))} of the mixture's energy")
        figures.append(f'<a href="{url}">{_e(signal.file.name)}</a>')
        buttons = "".join(
            f'<button type="button" class="{kind.lower()}" aria-pressed="false" aria-label="{kind} {name}" hidden>'
            f"{kind}</button>"
            for kind in (("Solo",) if whole else ("Mute", "Solo"))
        )
        buttons += '<span class="failed" role="status" hidden>this browser can\'t play the file</span>'
        audio = f'<audio controls preload="metadata" src="{url}" aria-label="Play {name}"></audio>'
    place = ' id="mixture"' if whole else ""
    return (
        f'<section class="card stem"{place} data-begins="{signal.begins:g}" data-gain="{signal.gain:.6g}" '
        f'style="--tone: {tone}">'
        f'<header><h2><span class="dot"></span>{name}</h2>{buttons}'
        f'<span class="quiet">{" · ".join(figures)}</span></header>{audio}<div class="scroll"><div class="plot">'
        f'{signal.picture}<div class="seek"><i class="head" hidden></i></div></div></div></section>'
    )


def link(file: Path, folder: Path) -> str:
    """A relative URL, its bytes percent-encoded: any name that a file can have."""
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))


def _summary(report: SongReport, mixture: Overview, stems: int) -> str:
    parts = [
        f"{stems} stem{'s' if stems != 1 else ''} by {report.model}",
        f"{_duration(mixture)}, {mixture.sample_rate / 1000:g} kHz, {_channels(mixture.channels)}",
    ]
    return _e(" · ".join(parts + _speed(report)))


def _duration(overview: Overview) -> str:
    return clock(math.floor(overview.seconds)) if overview.seconds >= 10 else f"{overview.seconds:.3g} s"


def _speed(report: SongReport) -> list[str]:
    if not report.processing_time:
        return []
    factor = report.real_time_factor
    times = f" ({1 / factor:.1f} times real time)" if factor else ""
    return [f"separated in {report.processing_time:.1f} s on {report.provider}{times}"]


def _channels(count: int) -> str:
    return {1: "mono", 2: "stereo"}.get(count, f"{count} channels")


def _warnings(warnings: Iterable[str]) -> str:
    items = "".join(f"<li>{_e(warning)}</li>" for warning in warnings)
    return f'<section class="card warnings" aria-label="Notes and warnings"><ul>{items}</ul></section>' if items else ""


def _null(null_db: float | None, format: str) -> str:
    what = "Mixture less the sum of these stems"
    if null_db is None:
        return f"{what}: not measured of {_e(format)}, which is lossy."
    if null_db >= DEEPEST:
        return f"{what}: <strong>nothing at all</strong> is left."
    where = "below" if null_db >= 0 else "above"
    return f"{what}: what is left lies <strong>{abs(null_db):.1f} dB {where}</strong> the mixture."


def _notes(gain: float) -> str:
    text = "Energy and share are of the mixture's; stems that are alike or opposed don't add up to 100 %."
    if gain != 1.0:
        text += f" The mixture is shown with the stems' gain of {decibels(gain)} dB."
    return _e(text)


def _rows(facts: Mapping[str, Any]) -> Iterator[str]:
    """Terms and values of a description list; a value that is not str is escaped text already."""
    for term, value in facts.items():
        if value not in (None, "", (), []):
            yield f"<dt>{_e(term)}</dt><dd>{value if isinstance(value, _Markup) else _e(value)}</dd>"


class _Markup(str):
    """Text that is HTML already."""


def _anchor(url: str) -> str:
    return _Markup(f'<a href="{_e(url)}">{_e(url)}</a>') if url.startswith(("https://", "http://")) else url


def _model(spec: ModelSpec) -> str:
    card = catalogue().get(spec.entry)
    weights = spec.weights
    licence = weights.licence or (card.licence if card else "") or "not stated"
    may = _REDISTRIBUTABLE[weights.redistributable]
    facts = {
        "What it is": card.title if card else "",
        "Advice": card.advice if card else "",
        "Homepage": _anchor(card.homepage) if card else "",
        f"Licence of the {'official ' if weights.random else ''}weights": f"{licence} ({may})",
        "Weights": "random: the stems are noise" if weights.random else _anchor(weights.source),
        "sha256": weights.sha256,
        "Stems": ", ".join(spec.names),
        "Hears": f"{spec.content}, {spec.sample_rate / 1000:g} kHz, {_channels(spec.channels)}",
        "Bandwidth": f"up to {spec.bandwidth / 1000:g} kHz" if spec.bandwidth else "",
        "Parameters": f"{spec.parameters:,}".replace(",", " ") if spec.parameters else "",
        "Graph": f"{spec.family}, {spec.domain}, {spec.precision}",
        "Exported by": spec.exporter,
    }
    figures = "".join(
        f'<tr><th scope="row">{_e(f.stage)}</th><td class="number">{f.db:.1f} dB</td>'
        f'<td class="number">{f.gate:g} dB</td><td>{_e(f.against)}</td></tr>'
        for f in spec.validation
    )
    table = (
        "<h3>Validation: signal-to-noise ratio against the original</h3>"
        '<div class="scroll"><table><thead><tr><th scope="col">Stage</th><th scope="col" class="number">Measured</th>'
        '<th scope="col" class="number">Gate</th><th scope="col">Against</th></tr></thead>'
        f"<tbody>{figures}</tbody></table></div>"
    )
    return (
        f'<section class="card" aria-label="Model {_e(spec.name)}"><h2>Model: {_e(spec.name)}</h2>'
        f"<dl>{''.join(_rows(facts))}</dl>{table if figures else ''}</section>"
    )


def _run(report: SongReport, options: Options, files: Files, stem: Overview) -> str:
    plain = {**asdict(Options()), **Files().sound()}
    asked = {**asdict(options), **files.sound()}
    changed = [f"{name} {_plain(value)}" for name, value in asked.items() if value != plain[name]]
    timed = report.processing_time > 0
    versions = {"ortsep": report.version, **runtime_packages()}
    facts = {
        "Song": Path(report.song).name,
        "Files": f"{files.format}, {stem.sample_rate / 1000:g} kHz, {_channels(stem.channels)}, {stem.samples} samples",
        "Options": ", ".join(changed) or "the model's own defaults",
        "Provider": report.provider,
        "Time taken": f"{report.processing_time:.2f} s" if timed else "not known",
        "Real-time factor": f"{report.real_time_factor:.3f} (below 1 is faster than real time)" if timed else "",
        "Gain": "" if report.gain == 1.0 else f"{decibels(report.gain)} dB on all stems, to fit the format",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    return "\n".join(_rows(facts))


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
