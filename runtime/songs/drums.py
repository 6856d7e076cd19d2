"""Drum stems as a service call: one function for programs that used to ask a server, and what it separates with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ortsep.base.errors import UsageError
from ortsep.chain import Chain
from ortsep.models.catalogue import ready_folder
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs.record import Files, SongReport
from ortsep.songs.separate import separate_file

LARSNET, BUNDLED = "larsnet", "drums_mini"
SONG_MODELS = ("htdemucs_ft", "htdemucs", "hdemucs_mmi", "umxl", "umxhq", "spleeter:4stems")
"""Models of whole songs whose drums can be taken apart further, the best first."""


@dataclass(frozen=True)
class DrumModels:
    """What takes drums apart here: one model, or a song model and one for its drums; ``reason`` is why it is no better
    one, empty where it is the best."""

    models: tuple[str, ...]
    reason: str = ""


def drum_models() -> DrumModels:
    """LarsNet where it is exported; else the drums of the best song model that is, taken apart by drums_mini; else
    drums_mini alone, which hears the input as drums. Nothing is downloaded."""
    if ready_folder(LARSNET) is not None:
        return DrumModels((LARSNET,))
    lacks = "larsnet is not exported here (ortsep export larsnet)"
    for name in SONG_MODELS:
        if ready_folder(name) is not None:
            return DrumModels((name, BUNDLED), f"{lacks}: the drums of {name}, taken apart by {BUNDLED}")
    return DrumModels((BUNDLED,), f"{lacks}, nor is a model of whole songs: {BUNDLED} hears the input as drums alone")


def separate_drum_stems(
    input_path: str | Path,
    output_dir: str | Path,
    stems: Sequence[str] | None = None,
    device: str = "auto",
    wiener_filter: bool = False,
    timeout_seconds: float | None = None,
    *,
    model: str | Path | Sequence[str] = "larsnet",
    format: str = "wav",
    rate: int | None = None,
) -> SongReport:
    """Separate a drum track into ``output_dir``/<stem>.<format>.

    ``stems``: a subset, all by default. ``device``: a provider as ``Separator`` takes it, or mps, which means coreml.
    ``wiener_filter`` switches the model's Wiener filter on. ``timeout_seconds`` ends the work, with no file left.
    ``model``: one, or a song model and one for its drums (``drum_models().models``).

    The report has ``stems`` (path by name), ``provider``, ``processing_time``, ``real_time_factor``, ``warnings``;
    ``report.document()`` is what ``ortsep run --json`` prints. Raises what ``separate_file`` raises, TimedOut among it.
    """
    provider = "coreml" if device == "mps" else device
    names = (model,) if isinstance(model, str | Path) else tuple(model)
    loaded = [Separator(name, provider=provider) for name in names]
    last = loaded[-1].names(Options())
    if unknown := [stem for stem in stems or () if stem not in last]:
        raise UsageError(f"{loaded[-1].spec.name} has no stem {unknown[0]!r}; it has {', '.join(last)}")
    separator = Chain.of(loaded, [None] * (len(loaded) - 1))
    files = Files(output=output_dir, template="{stem}.{ext}", format=format, rate=rate)
    options = Options(stems=tuple(stems or last), wiener=wiener_filter or None)
    return separate_file(separator, input_path, files, options, timeout=timeout_seconds)
