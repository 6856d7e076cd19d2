"""The text of a song's report: HTML complete in itself but for the stems' audio, from figures and pictures.

Here are the words and figures, in page.html their places. jinja2 escapes whatever it is given (names, warnings, a
model's spec); what goes in as it is are our own pictures and script.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ortsep import __version__
from ortsep.base.decibels import level, ratio
from ortsep.base.errors import MissingDependency
from ortsep.graphs.providers import runtime_packages
from ortsep.models.catalogue import catalogue
from ortsep.models.spec import ModelSpec
from ortsep.options import Options
from ortsep.report.overview import Overview
from ortsep.report.pictures import LEFT, RANGE, RIGHT, clock
from ortsep.songs.null import DEEPEST
from ortsep.songs.record import Files, SongReport

_TEMPLATE = Path(__file__).with_name("page.html")
PLAYER = Path(__file__).with_name("player.js")
"""What plays signals in step, on this page and on the server's."""
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
    whole = mixture.overview
    text: str = _template().render(
        version=__version__,
        title=Path(report.song).name,
        summary=_summary(report, whole, len(stems)),
        warnings=report.warnings,
        null=_null(null_db),
        format=files.format,
        notes=_notes(report.gain),
        seconds=f"{whole.seconds:.6f}",
        rate=whole.sample_rate,
        script="".join(path.read_text(encoding="utf-8") for path in (PLAYER, _SCRIPT)),
        left=f"{100 * LEFT:g}",
        right=f"{100 * (1 - RIGHT):g}",
        colours=", ".join(colours),
        bottom=_signed(top - RANGE, 0),
        top=_signed(top, 0),
        signals=[_shown(*signal, whole, folder) for signal in zip([mixture, *stems], tones, strict=True)],
        models=[_model(spec) for spec in models],
        run=_run(report, options, files, whole),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %z"),
    )
    return text


def require_jinja() -> None:
    """Raises MissingDependency with the way to install what lays the page out."""
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"a report is laid out by jinja2 and that can't be imported ({error}); run: pip install 'ortsep[report]'"
        ) from error


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


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
    return "–" if share is None else f"{100 * share:.1f} %" if share == 0 or share >= 0.001 else "< 0.1 %"


def label(name: str, overview: Overview) -> str:
    """What a picture shows, for those who don't see it."""
    levels = f"peak {decibels(overview.peak)} dBFS, RMS {decibels(overview.rms)} dBFS"
    return f"Waveform and spectrogram of {name}: {levels}, {_duration(overview)} long"


def _shown(signal: Signal, tone: str, mixture: Overview, folder: Path) -> dict[str, Any]:
    """What the page says of a signal."""
    overview = signal.overview
    share = _share(overview, mixture)
    return {
        "name": signal.name,
        "tone": tone,
        "peak": decibels(overview.peak),
        "rms": decibels(overview.rms),
        "relative": f"{_signed(ratio(overview.energy, mixture.energy))} dB" if share else "–",
        "share": _percent(share),
        "width": f"{100 * min(1.0, share or 0.0):.2f}",
        "picture": signal.picture,
        "url": "" if signal.file is None else link(signal.file, folder),
        "file": "" if signal.file is None else signal.file.name,
        "begins": f"{signal.begins:g}",
        "gain": f"{signal.gain:.6g}",
    }


def link(file: Path, folder: Path) -> str:
    """A relative URL, its bytes percent-encoded: any name that a file can have."""
    return quote(os.fsencode(Path(os.path.relpath(file, folder)).as_posix()))


def _summary(report: SongReport, mixture: Overview, stems: int) -> str:
    parts = [
        f"{stems} stem{'s' if stems != 1 else ''} by {report.model}",
        f"{_duration(mixture)}, {mixture.sample_rate / 1000:g} kHz, {_channels(mixture.channels)}",
    ]
    return " · ".join(parts + _speed(report))


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


def _null(null_db: float | None) -> str:
    """How far the rest lies from the mixture; empty where that was not measured."""
    if null_db is None or null_db >= DEEPEST:
        return "" if null_db is None else "nothing at all"
    return f"{abs(null_db):.1f} dB {'below' if null_db >= 0 else 'above'}"


def _notes(gain: float) -> str:
    text = "Energy and share are of the mixture's; stems that are alike or opposed don't add up to 100 %."
    if gain != 1.0:
        text += f" The mixture is shown with the stems' gain of {decibels(gain)} dB."
    return text


def _rows(facts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Terms and values of a description list, but for what is not known; a value that is an address becomes a link."""
    return [(term, value) for term, value in facts.items() if value]


def _model(spec: ModelSpec) -> dict[str, Any]:
    card = catalogue().get(spec.entry)
    weights = spec.weights
    licence = weights.licence or (card.licence if card else "") or "not stated"
    may = _REDISTRIBUTABLE[weights.redistributable]
    facts = {
        "What it is": card.title if card else "",
        "Advice": card.advice if card else "",
        "Homepage": card.homepage if card else "",
        f"Licence of the {'official ' if weights.random else ''}weights": f"{licence} ({may})",
        "Weights": "random: the stems are noise" if weights.random else weights.source,
        "sha256": weights.sha256,
        "Stems": ", ".join(spec.names),
        "Hears": f"{spec.content}, {spec.sample_rate / 1000:g} kHz, {_channels(spec.channels)}",
        "Bandwidth": f"up to {spec.bandwidth / 1000:g} kHz" if spec.bandwidth else "",
        "Parameters": f"{spec.parameters:,}".replace(",", " ") if spec.parameters else "",
        "Graph": f"{spec.family}, {spec.domain}, {spec.precision}",
        "Exported by": spec.exporter,
    }
    figures = [{"stage": f.stage, "db": f.db, "gate": f"{f.gate:g} dB", "against": f.against} for f in spec.validation]
    return {"name": spec.name, "facts": _rows(facts), "figures": figures}


def _run(report: SongReport, options: Options, files: Files, stem: Overview) -> list[tuple[str, str]]:
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
    return _rows(facts)


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
