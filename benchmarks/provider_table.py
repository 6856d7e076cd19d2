"""What an execution provider does with a graph of every family: a table of nodes, pieces, dB and time beside the CPU.

    $ python benchmarks/provider_table.py coreml --json coreml.json --markdown coreml.md
    $ python benchmarks/provider_table.py cpu spleeter:2stems moises_light:paper_small

Written for CoreML, which only a Mac has: public CI runs it there (.github/workflows/ci.yml) and keeps the table. Random
weights, portable graphs, one chunk or block of noise (``ortsep doctor``'s own), each in a process of its own, since a
provider may crash or hang. A family that can't be exported is a row that says so; the status is 1 where one is wrong.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ortsep.base.errors import OrtsepError
from ortsep.export.exporter import choose_weights, export_model
from ortsep.graphs.model import load_model
from ortsep.measure.doctor import examine_apart, golden_feeds

FAMILIES = (
    "drums_mini",
    "spleeter:2stems",
    "umxhq",
    "larsnet",
    "moises_light:paper_small",
    "1_HP-UVR",
    "scnet:small",
    "mdx23c:drumsep",
    "UVR_MDXNET_9482",
    "hdemucs_mmi",
    "htdemucs",
    "mel_roformer_kim",
)
"""A network of each, from small to large."""
COLUMNS = ("provider", "loads", "runs", "nodes", "pieces", "dB", "s", "s on CPU", "ratio", "found")


def row(name: str, provider: str, patience: float) -> dict[str, Any]:
    """What ``provider`` did with the first graph of ``name``."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_model(name, choose_weights("random:0"), Path(folder) / "model", portable=True)
            graph, feeds = golden_feeds(load_model(Path(folder) / "model"))
        except (OrtsepError, ImportError) as error:
            return {"model": name, "reason": f"is not exported here: {error}", "correct": None}
        verdict = examine_apart(graph, provider, feeds, judge_speed=False, patience=patience)
    return {"model": name, **asdict(verdict)}


def cells(found: dict[str, Any]) -> list[str]:
    """A row of the table, in the order of ``COLUMNS``."""
    seconds, of_cpu = found.get("seconds"), found.get("cpu_seconds")
    pieces = f"{found.get('nodes')} of {found.get('of_nodes')}"
    said = {True: "yes", False: "no", None: "-"}
    return [
        found.get("provider", "-"),
        said[found.get("loads")],
        said[found.get("runs")],
        "-" if found.get("nodes") is None else pieces,
        "-" if found.get("partitions") is None else str(found["partitions"]),
        "-" if found.get("snr_db") is None else f"{min(found['snr_db'], 999.0):.1f}",
        "-" if seconds is None else f"{seconds:.3f}",
        "-" if of_cpu is None else f"{of_cpu:.3f}",
        f"{seconds / of_cpu:.2f}" if seconds and of_cpu else "-",
        found["reason"] or "equal",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("provider")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds for each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    args = parser.parse_args()
    rows, lines = [], [f"| model | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    print("\n".join(lines), flush=True)
    for name in args.models or FAMILIES:
        found = row(name, args.provider, args.patience)
        rows.append(found)
        lines.append(f"| {name} | {' | '.join(cells(found))} |")
        print(lines[-1], flush=True)
        if args.json:  # after each, for a run that is stopped
            args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if args.markdown:
            args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(any(found["correct"] is False or found.get("runs") is False for found in rows))


if __name__ == "__main__":
    sys.exit(main())
