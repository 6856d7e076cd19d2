"""``python benchmarks/roformer.py NAME [--frames T] [--msst CHECKOUT]``: a RoFormer of the catalogue, random weights.

Each in a process of its own, one after the other: the export; the graph in ortsep's session; MSST's module in torch,
where a checkout of it (and what it imports) is given; the graph's SNR against the float64 network; that of a song of
two chunks against MSST's formula around that network in float32. CPU seconds of the process and its peak resident
memory: wall times say little on a machine that others use. Ends with status 1 where an SNR is below its gate.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base import memory
from ortsep.export.family import Choice
from ortsep.models.catalogue import find_card

HOP = 441


def usage() -> tuple[float, float]:
    """CPU seconds of this process, and its peak in MB."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, memory.peak() / 1e6


def noise(frames: int) -> dict[str, Any]:
    return {"spectrum": np.random.default_rng(0).standard_normal((1, 4, 1025, frames)).astype(np.float32)}


def export(name: str, folder: Path, frames: int, msst: str) -> dict[str, float]:
    from ortsep.export.exporter import export_model

    began = time.perf_counter()
    export_model(name, Choice(seed=0), folder)
    return {"wall_s": time.perf_counter() - began, "peak_mb": usage()[1]}


def graph(name: str, folder: Path, frames: int, msst: str) -> dict[str, float]:
    from ortsep.base import heap
    from ortsep.graphs.session import Session

    heap.give_back()  # as the commands do
    began, used = time.perf_counter(), usage()[0]
    session = Session(next(folder.glob("*.onnx")), provider="cpu")
    loaded = {"load_wall_s": time.perf_counter() - began, "load_cpu_s": usage()[0] - used}
    used = usage()[0]
    session.run(noise(frames))
    return {**loaded, "cpu_s": usage()[0] - used, "peak_mb": usage()[1]}


def torch(name: str, folder: Path, frames: int, msst: str) -> dict[str, float]:
    """MSST's own module, eager, STFT and inverse included (a hundredth of it)."""
    sys.path.insert(0, msst)
    import torch
    from models.bs_roformer import BSRoformer, MelBandRoformer

    from ortsep.export.families.roformer.architecture import BS_BANDS

    model = dict(find_card(name).arguments["config"]["model"])
    kind = MelBandRoformer
    if "num_bands" not in model:
        kind, model = BSRoformer, {**model, "freqs_per_bands": BS_BANDS}
    network = kind(**model, stereo=True, time_transformer_depth=1, freq_transformer_depth=1).eval()
    song = torch.randn(1, 2, (frames - 1) * HOP)
    used = usage()[0]
    with torch.inference_mode():
        network(song)
    return {"cpu_s": usage()[0] - used, "peak_mb": usage()[1]}


def exact(name: str, folder: Path, frames: int, msst: str) -> dict[str, float]:
    from ortsep.base.decibels import snr
    from ortsep.export.family import load_original
    from ortsep.graphs.session import Session

    inputs = noise(frames)
    (ours,) = Session(next(folder.glob("*.onnx")), provider="cpu").run(inputs)
    theirs = load_original(find_card(name), Choice(seed=0)).network(0, inputs)["stem_spectra"]
    return {"snr_db": snr(theirs, ours)}


def song(name: str, folder: Path, frames: int, msst: str) -> dict[str, float]:
    from ortsep.base.decibels import snr
    from ortsep.export.family import load_original
    from ortsep.export.validate import synthetic_song
    from ortsep.separator import Separator

    mix = synthetic_song(44100, 5.0)
    mix += np.random.default_rng(0).standard_normal(mix.shape).astype(np.float32) * np.float32(1e-3)
    ours = np.stack(list(Separator(folder, provider="cpu").separate(mix).values()))
    return {"song_db": snr(load_original(find_card(name), Choice(seed=0)).separate(mix), ours)}


STEPS = {step.__name__: step for step in (export, graph, torch, exact, song)}
GATES = {"snr_db": 110.0, "song_db": 100.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--frames", type=int, default=801)
    parser.add_argument("--msst", default="")
    parser.add_argument("--only", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.folder:
        print(json.dumps(STEPS[given.only](given.name, given.folder, given.frames, given.msst)))
        return
    held = True
    with tempfile.TemporaryDirectory() as scratch:
        for step in STEPS:
            if step == "torch" and not given.msst:
                continue
            command = [sys.executable, __file__, given.name, "--frames", str(given.frames), "--msst", given.msst]
            command += ["--only", step, "--folder", str(Path(scratch) / "model")]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures = json.loads(out.splitlines()[-1])
            print(f"{step:7} " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
            held = held and all(figures[key] >= gate for key, gate in GATES.items() if key in figures)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
