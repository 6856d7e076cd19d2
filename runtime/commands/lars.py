"""``ortsep lars``: the command line of drum services, which ask for one thing and read JSON."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ortsep.base import interrupt
from ortsep.base.errors import UsageError
from ortsep.commands import choices, flags
from ortsep.commands.terminal import screen

ORDER = "larsnet; else the drums of a song model, by drums_mini; else drums_mini"
"""What is separated with, as the answer tells it."""


def lars(
    action: Annotated[str, typer.Argument(metavar="separate", help="The one thing that it does.")],
    input: Annotated[Path, typer.Option("--input", "-i", metavar="FILE", help="A drum track, or a song.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", metavar="FOLDER", help="For STEM.FORMAT.")],
    stems: flags.Stems = "",
    device: flags.Device = choices.Provider.auto,
    wiener_filter: flags.Wiener = False,
    format: Annotated[str, typer.Option("--format", metavar="NAME", help="wav, flac, ogg or mp3.")] = "wav",
    sample_rate: Annotated[
        int | None, typer.Option("--sample-rate", metavar="HZ", help="Of the stems; by default the input's.")
    ] = None,
    timeout: flags.Timeout = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is done.")] = False,
    debug: flags.Debug = False,
) -> None:
    if action != "separate":
        raise UsageError(f"ortsep lars does nothing called {action!r}; write ortsep lars separate --input FILE")
    if format == "stem.mp4":
        raise UsageError("a drum service gets a file for each stem; use wav, flac, ogg or mp3")
    with interrupt.at_once():
        from ortsep.songs.drums import drum_models, separate_drum_stems

    chosen = drum_models()
    if verbose:
        screen.say(
            f"separating {input} with {' and '.join(chosen.models)}", *([chosen.reason] if chosen.reason else [])
        )
    report = separate_drum_stems(
        input,
        output_dir,
        [stem.strip() for stem in stems.split(",") if stem.strip()],
        device.value,
        wiener_filter,
        timeout,
        model=chosen.models,
        format=format,
        rate=sample_rate,
    )
    if verbose:
        screen.say(*(f"note: {note}" for note in report.warnings))
    fallback = {"order": ORDER, "used": list(chosen.models), "reason": chosen.reason}
    print(json.dumps({**report.document(), "fallback": fallback}))
