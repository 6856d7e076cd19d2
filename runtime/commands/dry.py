"""``ortsep run --dry-run``: what would be done with each song, and how much memory that takes at least."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ortsep.chain import Chain
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs.mixture import counted
from ortsep.songs.record import Files
from ortsep.songs.separate import suited


def plan_songs(
    separator: Separator | Chain, songs: Sequence[Path], options: Options, files: Files, *, as_json: bool
) -> int:
    """Print the plan of each song, separated by empty lines; loads no graph. Returns the exit status."""
    chosen, documents = suited(separator, options, files), []
    for song in songs:
        source = counted(song, **files.reading())
        plan = separator.plan(source.samples, source.sample_rate, chosen)
        stems, warnings = list(separator.names(chosen)), source.song.warnings
        if as_json:
            documents.append({"song": str(song), "stems": stems, "plan": asdict(plan), "warnings": list(warnings)})
        else:
            said = [f"warning: {warning}" for warning in warnings]
            last = "\n" if song is songs[-1] else "\n\n"
            print(f"{song} -> {', '.join(stems)}", str(plan), *said, sep="\n", end=last)
    if as_json:
        print(json.dumps({"model": separator.spec.name, "songs": documents}))
    return 0
