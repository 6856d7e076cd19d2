"""Help that fits 80 columns: what each command says of itself, and how its options are laid out.

The texts are constants, not docstrings, which ``python -OO`` takes away.
"""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

SHORT = {
    "run": "Separate songs into stems.",
    "models": "Which models there are, and which are ready here.",
    "export": "Make an ONNX model from a checkpoint.",
    "adopt": "Make other tools' ONNX files run as ours do.",
    "validate": "Prove that an export equals its original, in dB.",
    "optimize": "Rewrite any ONNX file to an equal but faster one.",
    "inspect": "Show what a model is: spec, tensors, licence, figures.",
    "bench": "Measure speed and memory here.",
    "score": "Measure how well models separate, by true stems.",
    "serve": "Separate over HTTP, with a page in the browser.",
    "lars": "Answer as a drum service does, in JSON.",
    "doctor": "Examine execution providers, packages and decoders.",
    "completion": "Complete commands, models and stems in your shell.",
}

ORTSEP = "Music source separation from self-describing ONNX files."

ORTSEP_EXAMPLES = """\
Begin with:
  ortsep models                 which model for what
  ortsep run MODEL song.mp3     separate a song
  ortsep run --help             and how
"""

RUN = """\
Separate songs into stems.

MODEL is a name (ortsep models lists them), an exported folder or a .onnx file; SONG a file, or a folder for the songs
in it. A song called - is read from standard input.
"""
RUN_EXAMPLES = """\
  ortsep run htdemucs song.mp3
  ortsep run htdemucs song.mp3 --two-stems vocals
  ortsep run htdemucs album/ -o stems --format flac --skip-existing
  ortsep run htdemucs larsnet song.mp3
      a second model takes apart a stem of the first one, here the drums, a
      third one a stem of these, and so on; MODEL@STEM says which stem, where
      the model itself does not
  ffmpeg -i film.mkv -f wav - | ortsep run htdemucs - --stems vocals -o -
"""
EXPORT = "Make an ONNX model from a checkpoint."
EXPORT_EXAMPLES = """\
  ortsep export htdemucs
  ortsep export htdemucs --weights my.th
  ortsep export umxhq --targets vocals,drums
  ortsep export --torch net.py:build --set domain=waveform --stems a,b
"""
OPTIMIZE = "Rewrite any ONNX file to an equal but faster one; what it gains is measured, and what it changes in dB."
OPTIMIZE_EXAMPLES = """\
  ortsep optimize model.onnx -o faster.onnx
  ortsep optimize model.onnx -o faster.onnx --shape mix=1,2,343980
"""
VALIDATE = "Prove that an exported model equals its original, stage by stage, in dB."
VALIDATE_EXAMPLES = """\
  ortsep validate htdemucs --song song.mp3
"""
MODELS = "Which models there are for what, and which are ready here."
MODELS_EXAMPLES = """\
  ortsep models
  ortsep models --for drums
  ortsep models htdemucs
"""
INSPECT = "Show what a model is: its spec, tensors, licence and figures."
BENCH = """\
Measure speed and memory here.

Cold start is from the process's start until the model is ready, first stems until samples of them are written. A
stream's figures are the wait from the first block in to the first stems out, and how much of the song these need.
"""
BENCH_EXAMPLES = """\
  ortsep bench htdemucs --seconds 30
  ortsep bench htdemucs --against original
"""
SCORE = """\
Measure how well models separate songs whose true stems are known.

SDR and SI-SDR of whole songs, the median SDR of seconds as museval's, bleedless and fullness as MVSep's; for each stem
of the mixture itself, of each MODEL, and of the ideal ratio mask. What is called accompaniment, instrumental or no_STEM
is made of the other stems.
"""
SCORE_EXAMPLES = """\
  ortsep score spleeter:2stems --mixture song.wav --stems true/
  ortsep score htdemucs umxhq --songs musdb18hq/test --csv scores.csv
  ortsep score larsnet --songs kits/ --stems-from cymbals=ride+crash
"""
DOCTOR = "Examine execution providers, packages and decoders; what is found of MODEL is kept for --provider auto."


_TOLD = "What is told"
_COLUMN = 27
"""Columns of the options' names; a longer name stands on a line of its own."""

ADOPT = "Give somebody else's ONNX file its spec.json and stems.txt, so that it runs as ortsep's own."
ADOPT_EXAMPLES = """\
  ortsep adopt UVR-MDX-NET-Inst_HQ_3.onnx
  ortsep adopt *.onnx -o models/
"""
COMPLETION = "Print what lets a shell complete commands, options, models and stems."
COMPLETIONS = """\
  echo 'eval "$(ortsep completion bash)"' >> ~/.bashrc
  echo 'eval "$(ortsep completion zsh)"' >> ~/.zshrc
  echo 'ortsep completion fish | source' >> ~/.config/fish/config.fish
"""
COMPLETE = "What fits behind LINE, a line each; for the scripts of the shells."
LARS = """\
Take drums apart as a drum service does, and answer in JSON on stdout.

With LarsNet where it is exported; else the drums of a song model that is, by drums_mini, which is always here; else
drums_mini alone. The answer's "fallback" says which, and why.
"""
LARS_EXAMPLES = """\
  ortsep lars separate --input drums.wav --output-dir stems
  ortsep lars separate --input drums.wav --output-dir stems --stems kick,snare --format flac --sample-rate 48000
"""
SERVE = "Serve separations over HTTP, with a page: open the address that it prints."
SERVE_EXAMPLES = """\
  ortsep serve
  ORTSEP_TOKEN=secret ortsep serve --host 0.0.0.0 --port 8080
"""


_KIND = re.compile(r"(?<= )<?(?:list\[)?(int|float|str|text|path|bool)(?:eger)?(?: range)?\]?>?$", re.IGNORECASE)
_LETTERS = {"int": "N", "float": "X", "str": "TEXT", "text": "TEXT", "path": "PATH", "bool": ""}
"""What an option takes, as typer's versions write it (<int range>, INTEGER RANGE), and as it is shown."""


class Command(TyperCommand):
    """A command whose help has its options in panels, in the order of their declaration, and examples at the end."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and record[1]:
                usual = "Arguments" if param.param_type_name == "argument" else "Options"
                title = _TOLD if param.name == "help" else getattr(param, "rich_help_panel", None) or usual
                name = _KIND.sub(lambda found: _LETTERS[found[1].lower()], record[0])
                panels.setdefault(title, []).append((f"{name:<{_COLUMN}}", record[1]))
        for title, records in panels.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=_COLUMN)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            formatter.write_paragraph()
            formatter.write("Examples:\n" + self.epilog)


class Group(TyperGroup):
    """The list of commands, in the order of their declaration, each with its whole sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = [(name, self.commands[name]) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.short_help or "") for name, command in shown if not command.hidden])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(self.epilog)
