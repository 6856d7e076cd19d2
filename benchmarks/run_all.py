"""``python benchmarks/run_all.py [--models a,b] [--seconds S] [--runs 3]``: every family beside its original.

``spleeter:2stems/sherpa-onnx`` is Spleeter beside sherpa-onnx instead.

Exports each model with random weights (speed does not depend on them), separates seeded noise from file to files with
ortsep and with the original package, in fresh processes that take turns, and prints the table of medians: time and
peak memory against the original's, the SNR of the graph against the original network in float64, that of the files
that both wrote; and what is behind it: seconds, cold starts, the graphs alone, the share of this machine's float32
matrix products that they reach. Spleeter gets four minutes, the slower ones one. ``--json`` writes all figures, after
every model. Where a package is missing the row says so.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import sherpa_spleeter
import soundfile

from ortsep.base.apart import command
from ortsep.base.decibels import ratio
from ortsep.base.errors import OrtsepError
from ortsep.graphs.model import load_model
from ortsep.measure.bench import measure, noise_song
from ortsep.models.catalogue import find_card

SHERPA = "spleeter:2stems/sherpa-onnx"
TARGETS = {
    "htdemucs": (0.68, 0.9, 105.0),
    "htdemucs_6s": (0.68, 0.9, 105.0),
    "hdemucs_mmi": (0.75, 0.8, 100.0),
    "umxhq": (0.40, 0.5, 120.0),
    "spleeter:2stems": (0.6, 0.5, 100.0),
    SHERPA: (0.7, 0.5, 100.0),
    "larsnet": (0.6, 0.6, 110.0),
    "moises_light:paper_large": (0.65, 0.7, 110.0),
}
"""What issue 7 asks for: time and peak memory against the original's, dB of the graph."""
SECONDS = {"spleeter:2stems": 240.0, SHERPA: 240.0}
"""The song's length where it is not a minute."""


def bench(name: str, seconds: float, runs: int, folder: Path) -> dict[str, Any]:
    """One model's row. Raises what a missing package or an unknown model raises."""
    card = find_card(name.removesuffix("/sherpa-onnx"))
    exported = folder / "model"
    _quiet([sys.executable, "-m", "ortsep.cli", "export", card.name, "--weights", "random", "-o", str(exported)])
    model = load_model(exported)
    song = folder / "noise.wav"
    noise_song(song, seconds, model.spec.sample_rate, model.spec.channels)
    target = str(model.folder if len(model.members) > 1 else model.file(model.members[0]))
    theirs = folder / "theirs"
    if name == SHERPA:
        threads = os.cpu_count() or 1
        against, other = "sherpa-onnx", sherpa_spleeter.prepare(folder, song, theirs, threads)
        options = {"threads": threads}
    else:
        other = command("ortsep.export.reference", card.name, "random", song, theirs)
        against, options = "original", {}
    worker = command("ortsep.measure.bench", target, song, folder / "stems", json.dumps(options))
    result = measure(worker, {against: other}, runs, seconds, _say)
    row = {
        "model": name if name == SHERPA else card.name,
        "seconds": seconds,
        **result,
        "time": result["ratios"][against]["time"],
        "peak": result["ratios"][against]["peak"],
        "load1": os.getloadavg()[0],
        "files": agreement(theirs, folder / "stems", model.spec.stems),
    }
    row["db"] = float(_quiet([sys.executable, __file__, "--snr", card.name, str(exported)]).split()[-1])
    return row


def agreement(theirs: Path, ours: Path, stems: tuple[str, ...]) -> float:
    """The worst stem's SNR in dB of the files that ortsep wrote against the others, without holding them whole."""
    worst = np.inf
    for stem in stems:
        (written,) = ours.rglob(f"{stem}.wav")
        pairs = zip(*(soundfile.blocks(p, 1 << 18) for p in (theirs / f"{stem}.wav", written)), strict=True)
        power, noise = np.sum([(np.sum(a**2), np.sum((a - b) ** 2)) for a, b in pairs], axis=0)
        worst = min(worst, ratio(power, noise))
    return float(worst)


def graph_snr(name: str, folder: Path) -> float:
    """The worst of the graphs' outputs against the original network in float64, in dB."""
    from ortsep.base.decibels import snr
    from ortsep.export.exporter import choose_weights
    from ortsep.export.family import load_original
    from ortsep.export.graph.precision import run_graph
    from ortsep.export.validate import synthetic_song

    model = load_model(folder)
    original = load_original(find_card(name), choose_weights("random"))
    mix = synthetic_song(model.spec.sample_rate, 12.0)[: model.spec.channels]
    worst = np.inf
    for index, member in enumerate(model.members):
        inputs = original.example(index, mix)
        result = run_graph(model.file(member), inputs)
        for output, theirs in original.network(index, inputs).items():
            worst = min(worst, snr(theirs, result[output]))
    return float(worst)


def table(rows: list[dict[str, Any]], missing: dict[str, str]) -> str:
    lines = [
        "| model | song | time / original | asked | peak / original | asked | graph dB | asked | files dB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        time, peak, db = TARGETS.get(row["model"], (float("nan"),) * 3)
        lines.append(
            f"| {row['model']} | {row['seconds']:g} s | {row['time']:.2f} | {time:.2f} | "
            f"{row['peak']:.2f} | {peak:.2f} | {row['db']:.1f} | {db:.0f} | {row['files']:.1f} |"
        )
    lines += [f"| {name} | left out: {reason} |" + " |" * 7 for name, reason in missing.items()]
    lines += [
        "",
        "| model | s | original s | cold start s | original's | peak MB | original's | graphs alone s | their share of "
        "matrix products |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, theirs = row["medians"].values()
        sides = [
            f"{side[key]:.{digits}f}"
            for key, digits in (("seconds", 1), ("cold_start", 1), ("peak_mb", 0))
            for side in (ours, theirs)
        ]
        share = f"{row['shares']['graphs']:.0%} of {row['ceiling']:.0f} GFLOP/s" if row["shares"] else ""
        lines.append(f"| {row['model']} | {' | '.join(sides)} | {ours['graphs']:.1f} | {share} |")
    return "\n".join(lines)


def _quiet(command: list[str]) -> str:
    """Run a command; its last words are the error where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OrtsepError((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
    return done.stdout


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="every family beside its original")
    parser.add_argument("--models", default=",".join(TARGETS))
    parser.add_argument("--seconds", type=float, help="of every song; default: by model")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--snr", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.snr:
        print(graph_snr(arguments.snr[0], Path(arguments.snr[1])))
        return
    rows, missing = [], {}
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory(prefix="ortsep-bench-") as folder:
            try:
                seconds = arguments.seconds or SECONDS.get(name, 60.0)
                rows.append(bench(name, seconds, arguments.runs, Path(folder)))
            except (OrtsepError, OSError) as error:
                missing[name] = str(error)
                _say(f"{name}: left out: {error}")
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": rows, "missing": missing}, indent=1))
    print(f"noise, medians of {arguments.runs} runs that took turns, fresh processes;")
    print(f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}, load average ", end="")
    print(f"{max((row['load1'] for row in rows), default=0.0):.1f} (above the cores: figures under contention)\n")
    print(table(rows, missing))


if __name__ == "__main__":
    main()
