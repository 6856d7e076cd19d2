"""Drum stems as a service call: one function for programs that used to ask a server."""

from collections.abc import Sequence
from pathlib import Path

from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs.record import Files, SongReport
from ortsep.songs.separate import separate_file


def separate_drum_stems(
    input_path: str | Path,
    output_dir: str | Path,
    stems: Sequence[str] | None = None,
    device: str = "auto",
    wiener_filter: bool = False,
    timeout_seconds: float | None = None,
    *,
    model: str | Path = "larsnet",
    format: str = "wav",
    rate: int | None = None,
) -> SongReport:
    """Separate a drum track into ``output_dir``/<stem>.<format>.

    ``stems``: a subset, all by default. ``device``: a provider as ``Separator`` takes it, or mps, which means coreml.
    ``wiener_filter`` switches the model's Wiener filter on. ``timeout_seconds`` ends the work, with no file left.

    The report has ``stems`` (path by name), ``provider``, ``processing_time``, ``real_time_factor``, ``warnings``;
    ``report.document()`` is what ``ortsep run --json`` prints. Raises what ``separate_file`` raises, TimedOut among it.
    """
    separator = Separator(model, provider="coreml" if device == "mps" else device)
    files = Files(output=output_dir, template="{stem}.{ext}", format=format, rate=rate)
    options = Options(stems=tuple(stems or ()), wiener=wiener_filter or None)
    return separate_file(separator, input_path, files, options, timeout=timeout_seconds)
