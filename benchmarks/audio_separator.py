"""python-audio-separator beside ortsep on the same files: MDX-Net (.onnx), VR networks (.pth), RoFormers (.ckpt).

    $ python benchmarks/audio_separator.py FOLDER Kim_Vocal_2 5_HP-Karaoke-UVR [--seconds 20] [--runs 3] [--threads 1]

FOLDER holds the package ``audio_separator`` (a wheel unpacked; pydub, samplerate and audioread beside it or installed,
for RoFormers ml_collections and beartype too; onnx2torch, which it imports and only uses for other segment sizes, may
be missing). Models are of the cards' full size with random weights; the song is seeded noise of peak 1. Its separator
classes are called as its ``Separator`` does, with its defaults, and write two stems; ortsep writes the same two. Each
run is a process of its own, in turns. Counted from after the imports, with reading the model: CPU seconds (of all
threads, so that other work on the machine matters little), seconds, and the peak memory of the process; ``process`` are
the CPU seconds of all of it, imports too. Ratios are medians of those of neighbouring runs. ``--threads 0``: as many as
each takes by itself. RoFormers have two windows over each sample on both sides; ortsep, as MSST, also covers the song's
ends twice, which costs it two windows more.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile

from ortsep.base import memory
from ortsep.models.catalogue import find_card
from ortsep.models.contracts import mdx_net, vr

SUFFIXES = {"vr": ".pth", "roformer": ".ckpt"}
RATE, SIDES = 44100, ("theirs", "ours")
Figures = dict[str, float]


def make(name: str, folder: Path, seconds: float) -> None:
    """The song, the file that python-audio-separator reads, and for a .pth ortsep's export of it."""
    import torch

    from ortsep.export.exporter import write_export
    from ortsep.export.families.mdx_net.original import MdxNet
    from ortsep.export.families.vr.original import Vr
    from ortsep.export.family import Choice, load_original

    song = np.random.default_rng(0).standard_normal((round(seconds * RATE), 2))
    soundfile.write(folder / "song.wav", song / np.abs(song).max(), RATE, subtype="PCM_16")
    original = load_original(find_card(name), Choice(seed=0))
    if original.spec.family == "roformer":
        torch.save(roformer_state(name), folder / f"{name}.ckpt")
        write_export(original, folder / "ours")
        return
    if isinstance(original, Vr):
        torch.save(original.net.state_dict(), folder / f"{name}.pth")
        write_export(original, folder / "ours")
        return
    assert isinstance(original, MdxNet) and isinstance(original.source, torch.nn.Module)
    assert original.spec.stft and original.spec.chunks
    frames = original.spec.chunks.length // mdx_net.HOP + 1
    torch.onnx.export(
        original.source.eval(),
        (torch.zeros(1, 4, original.spec.stft.bins, frames),),
        str(folder / f"{name}.onnx"),
        opset_version=13,  # of the published files
        input_names=["input"],
        output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        dynamo=False,
    )


def roformer_state(name: str) -> dict[str, Any]:
    """The random weights of ``load_original``."""
    import torch

    from ortsep.export.families.roformer.architecture import random_state
    from ortsep.export.families.roformer.recognise import arguments_of

    arch = arguments_of(find_card(name).arguments["config"]["model"], RATE)
    return {key: torch.from_numpy(value) for key, value in random_state(arch, 0).items()}


def theirs(name: str, folder: Path, threads: int) -> Figures:
    import onnxruntime
    import torch

    if find_spec("onnx2torch") is None:
        sys.modules["onnx2torch"] = ModuleType("onnx2torch")
    family = find_card(name).family
    if family == "vr":
        from audio_separator.separator.architectures.vr_separator import VRSeparator as Theirs
    elif family == "roformer":
        from audio_separator.separator.architectures.mdxc_separator import MDXCSeparator as Theirs
    else:
        from audio_separator.separator.architectures.mdx_separator import MDXSeparator as Theirs
    limited = onnxruntime.InferenceSession

    def session(*words: Any, sess_options: Any = None, **more: Any) -> Any:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return limited(*words, sess_options=options, **more)

    if threads:
        torch.set_num_threads(threads)
        onnxruntime.InferenceSession = session
    cpu = torch.device("cpu")
    common = {
        "logger": logging.getLogger("theirs"),
        "log_level": logging.WARNING,
        "torch_device": cpu,
        "torch_device_cpu": cpu,
        "torch_device_mps": None,
        "onnx_execution_provider": ["CPUExecutionProvider"],
        "model_name": name,
        "model_path": str(folder / f"{name}{SUFFIXES.get(family, '.onnx')}"),
        "model_data": {"vr": vr_data, "roformer": roformer_data}.get(family, mdx_data)(name),
        "output_format": "WAV",
        "output_bitrate": None,
        "output_dir": str(folder),
        "normalization_threshold": 0.9,
        "amplification_threshold": 0.0,
        "output_single_stem": None,
        "invert_using_spec": False,
        "sample_rate": RATE,
        "use_soundfile": True,
    }
    of_mdx = {"hop_length": 1024, "segment_size": 256, "overlap": 0.25, "batch_size": 1, "enable_denoise": False}
    of_vr = {"batch_size": 1, "window_size": 512, "aggression": 5, "enable_tta": False, "enable_post_process": False}
    of_roformer = {"segment_size": 256, "override_model_segment_size": False, "overlap": 2, "batch_size": 1}
    options = {"vr": of_vr, "roformer": of_roformer}.get(family, of_mdx)
    began, wall = time.process_time(), time.perf_counter()
    made = Theirs(common_config=common, arch_config=options).separate(str(folder / "song.wav"))
    assert len(made) == len(SIDES)
    return taken(began, wall)


def mdx_data(name: str) -> dict[str, Any]:
    entry = next(e for e in mdx_net.ENTRIES.values() if e.file == name)
    sizes = {"mdx_dim_f_set": entry.dim_f, "mdx_dim_t_set": entry.dim_t.bit_length() - 1}
    return {
        **sizes,
        "mdx_n_fft_scale_set": entry.n_fft,
        "compensate": entry.compensate,
        "primary_stem": entry.primary,
    }


def vr_data(name: str) -> dict[str, Any]:
    arguments = find_card(name).arguments
    sizes = arguments["sizes"]
    more = {"nout": sizes["channels"], "nout_lstm": sizes["lstm"]} if sizes["edition"] == "5.1" else {}
    assert arguments["layout"] in vr.LAYOUTS
    return {"vr_model_param": arguments["layout"], "primary_stem": arguments["primary"], **more}


def roformer_data(name: str) -> dict[str, Any]:
    """The yaml of the model, as its tool reads it."""
    from ortsep.export.families.roformer.architecture import BS_BANDS

    config = find_card(name).arguments["config"]
    hop = config["model"]["stft_hop_length"]
    model = {**config["model"], "stereo": True, "time_transformer_depth": 1, "freq_transformer_depth": 1}
    model |= {} if "num_bands" in model else {"freqs_per_bands": BS_BANDS}
    return {
        "audio": {**config["audio"], "sample_rate": RATE, "hop_length": hop, "num_channels": 2},
        "model": model,
        "training": config["training"],
        "inference": {"dim_t": config["audio"]["chunk_size"] // hop + 1, "num_overlap": 2, "batch_size": 1},
        "is_roformer": True,
    }


def ours(name: str, folder: Path, threads: int) -> Figures:
    from ortsep.separator import Separator
    from ortsep.songs import Files, separate_file

    began, wall = time.process_time(), time.perf_counter()
    file = folder / f"{name}.onnx"
    with Separator(file if file.exists() else folder / "ours", provider="cpu", threads=threads or None) as separator:
        separate_file(separator, folder / "song.wav", Files(output=str(folder / "out"), subtype="16"))
    return taken(began, wall)


def taken(began: float, wall: float) -> Figures:
    return {
        "cpu": time.process_time() - began,
        "seconds": time.perf_counter() - wall,
        "peak": memory.peak() / 1e6,
        "process": time.process_time(),
    }


def compare(home: str, name: str, seconds: float, runs: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        common = ["--folder", folder, "--seconds", str(seconds), "--threads", str(threads), home, name]
        subprocess.run([sys.executable, __file__, "--worker", "make", *common], check=True, capture_output=True)
        both: list[dict[str, Figures]] = []
        for _ in range(runs):
            done = {
                side: subprocess.run(
                    [sys.executable, __file__, "--worker", side, *common], check=True, stdout=subprocess.PIPE, text=True
                )
                for side in SIDES
            }
            both.append({side: json.loads(one.stdout.splitlines()[-1]) for side, one in done.items()})
            print(f"  {both[-1]}", file=sys.stderr, flush=True)
    for side in SIDES:
        cpu, took, peak = (statistics.median(run[side][key] for run in both) for key in ("cpu", "seconds", "peak"))
        print(f"{name:<22} {side:<7} {cpu:7.2f} CPU s {took:7.2f} s {peak:6.0f} MB, {seconds:g} s of song")
    ratios = {key: statistics.median(r["ours"][key] / r["theirs"][key] for r in both) for key in both[0]["ours"]}
    print(f"{'':<22} ours / theirs: {', '.join(f'{key} {ratio:.2f}' for key, ratio in ratios.items())}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", help="the folder with audio_separator")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=("make", *SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is None:
        for name in given.models:
            compare(given.home, name, given.seconds, given.runs, given.threads)
        return
    sys.path.insert(0, given.home)
    (name,) = given.models
    if given.worker == "make":
        make(name, given.folder, given.seconds)
    else:
        side = theirs if given.worker == "theirs" else ours
        print(json.dumps(side(name, given.folder, given.threads)))


if __name__ == "__main__":
    main()
