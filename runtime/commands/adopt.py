"""``ortsep adopt``: other people's files get their spec and stems.txt, or are written anew as ortsep's own."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ortsep import __version__
from ortsep.base.errors import UsageError
from ortsep.commands.make import rewrite_file
from ortsep.commands.terminal import screen
from ortsep.graphs.adopt import Adopted, adopt
from ortsep.models.contracts.contract import Wishes
from ortsep.stems.manifest import check_names


@dataclass(frozen=True)
class Adopting:
    """What was typed: where to, and whether to ``rewrite``."""

    output: Path | None = None
    rewrite: bool = False
    as_json: bool = False
    quiet: bool = False


def read_wishes(contract: str, settings: Sequence[str], stems: str) -> Wishes:
    """What the options say of a file. Raises UsageError for a setting without a value, ModelError for bad names."""
    pairs = {}
    for text in settings:
        name, sign, value = text.partition("=")
        if not name.strip() or not sign or not value.strip():
            raise UsageError(f"--set {text} is no setting; write --set n_fft=7680, with one = each")
        pairs[name.strip()] = value.strip()
    return Wishes(contract, pairs, check_names([s.strip() for s in stems.split(",")]) if stems else ())


def adopt_command(files: Sequence[Path], wishes: Wishes, how: Adopting) -> int:
    """Adopt each file; the first that can't be ends it."""
    made = []
    for file in files:
        output = how.output / file.stem if how.output and len(files) > 1 else how.output
        made.append(_rewritten(file, wishes, output, how) if how.rewrite else adopt(file, wishes, output))
        if not how.quiet and not how.as_json:
            _tell(made[-1])
    if how.as_json:
        models = [{**asdict(one), "folder": str(one.folder)} for one in made]
        print(json.dumps({"version": __version__, "models": models}))
    return 0


def _rewritten(file: Path, wishes: Wishes, output: Path | None, how: Adopting) -> Adopted:
    if output is None:
        raise UsageError("--rewrite makes another file; say in which folder with -o")
    return rewrite_file(file, wishes, output, quiet=how.quiet)


def _tell(made: Adopted) -> None:
    spec = made.spec
    screen.say(f"{spec.name}: {made.title}; stems {', '.join(spec.names)}")
    for note in spec.notes:
        screen.say(f"{spec.name}: {note}")
    screen.say(f"run it:   ortsep run {made.folder} SONG")
