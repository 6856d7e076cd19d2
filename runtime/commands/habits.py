"""What people bring from other tools: options of the same meaning, and the name that ours have for theirs."""

from collections.abc import Sequence
from pathlib import Path

from ortsep.base.errors import UsageError

OURS = {
    "--segment": "--chunk",
    "--out": "-o",
    "--outdir": "-o",
    "--output_dir": "-o",
    "--output-dir": "-o",
    "--output_path": "-o",
    "--store_dir": "-o",
    "--filename": "--template",
    "--filename_format": "--template",
    "--custom_output_names": "--template",
    "--codec": "--format",
    "-c": "--format",
    "--ext": "--format",
    "--output_format": "--format",
    "--bitrate": "--mp3-bitrate",
    "-b": "--mp3-bitrate",
    "--output_bitrate": "--mp3-bitrate",
    "--mp3-preset": "--quality",
    "--int16": "--subtype 16",
    "--normalization": "--clip-mode",
    "--sig": "-n",
    "-s": "-n, or --start",
    "--name": "-n",
    "-m": "-n",
    "--model_filename": "-n",
    "--model_name": "-n",
    "-p": "-n",
    "--params_filename": "-n",
    "--offset": "--start",
    "--no-cuda": "--provider cpu",
    "--use_cuda": "--provider cuda",
    "--gpu": "--provider cuda",
    "--single_stem": "--stems",
    "--aggregate": "--stems or --two-stems",
    "--extract_instrumental": "--two-stems vocals",
    "--num_workers": "--jobs",
    "--batch_size": "--jobs",
    "--other-method": "no option: --two-stems gives the mixture minus the stem, as minus does",
    "--no-split": "no option: a song of any length is separated as a stream",
    "--input_folder": "no option: name the folder behind the model",
    "--input": "no option: name the song behind the model",
    "--inputs": "no option: name the songs behind the model",
    "--repo": "ortsep export NAME --weights PATH",
    "--model_path": "ortsep export NAME --weights PATH",
    "--model_file_dir": "--models-dir",
    "--log_level": "--verbose or --quiet",
}
"""Options of Demucs, Spleeter, Open-Unmix, audio-separator and MSST, and what serves for each here."""


def hint(option: str) -> str:
    """What an unknown option is called here, as the end of a sentence; empty where nobody knows."""
    return f"here that is {OURS[option]}" if option in OURS else ""


def file_kind(
    format: str | None, subtype: str | None, *, flac: bool, mp3: bool, int24: bool, float32: bool
) -> tuple[str, str | None]:
    """Format and subtype where Demucs's switches say them. Raises UsageError for two that contradict each other."""
    formats = {*([format] if format else []), *["flac"] * flac, *["mp3"] * mp3}
    subtypes = {*([subtype] if subtype else []), *["24"] * int24, *["float"] * float32}
    for kind, names in (("formats", formats), ("subtypes", subtypes)):
        if len(names) > 1:
            raise UsageError(f"the options ask for two {kind}, {' and '.join(sorted(names))}; leave one of them out")
    return next(iter(formats), "wav"), next(iter(subtypes), None)


def length(seconds: float | None) -> float | None:
    """The duration; -1 means the whole song, as Open-Unmix has it."""
    return None if seconds == -1 else seconds


def own_network(name: str, source: str, settings: Sequence[str], *, simplify: bool) -> str:
    """The name of what is to be exported: ``name``, or that of a torch network of one's own, with its settings.

    Raises UsageError where both or neither is given, and for settings that belong to neither.
    """
    if bool(name) == bool(source):
        both = "exclude each other" if name else "are missing both"
        raise UsageError(f"a model's name and --torch {both}; write one: ortsep export NAME, or --torch FILE:NAME")
    if name:
        if simplify:
            raise UsageError("--simplify is for a network of --torch; ortsep optimize simplifies any file")
        return name
    for text in settings:
        key, sign, value = text.partition("=")
        if not key.strip() or not sign or not value.strip() or ";" in text:
            raise UsageError(f"--set {text} is no setting; write --set domain=complex, with one = each")
    file, _, factory = source.rpartition(":")
    where = f"{Path(file).absolute()}:{factory}" if file.endswith(".py") else source
    return ";".join([f"torch:{where}", *settings, *["simplify=true"] * simplify])
