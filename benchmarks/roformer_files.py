"""RoFormers file to files beside python-audio-separator: ``python benchmarks/roformer_files.py NAME --other PYTHON``.

PYTHON is an interpreter that has audio-separator and torch. Both sides get one checkpoint of random weights at the size
of the catalogue's card, one song, an equal overlap (two windows over each sample), and write WAV; in turn, a process
each. CPU seconds and the peak of the whole process, as the kernel counts them. python-audio-separator neither reflects
the song about its ends nor covers them with a window more, so the number of windows a side ran is printed too.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEP = 2  # windows over each sample, as the cards' yamls have it


def other(folder: Path) -> None:
    """python-audio-separator's own class on the file (its front door takes listed names only)."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    from audio_separator.separator.architectures.mdxc_separator import MDXCSeparator  # type: ignore[import-not-found]

    log = logging.getLogger("other")
    log.setLevel(logging.WARNING)
    cpu = torch.device("cpu")
    common = {
        "logger": log,
        "log_level": logging.WARNING,
        "torch_device": cpu,
        "torch_device_cpu": cpu,
        "torch_device_mps": None,
        "onnx_execution_provider": ["CPUExecutionProvider"],
        "model_name": "model",
        "model_path": str(folder / "model.ckpt"),
        "model_data": {**json.loads((folder / "model.yaml").read_text()), "is_roformer": True},
        "output_format": "WAV",
        "output_bitrate": None,
        "output_dir": str(folder / "other"),
        "normalization_threshold": 1.0,
        "amplification_threshold": 0.0,
        "output_single_stem": None,
        "invert_using_spec": False,
        "sample_rate": 44100,
        "use_soundfile": True,
    }
    settings = {"segment_size": 801, "override_model_segment_size": False, "overlap": STEP, "batch_size": 1}
    MDXCSeparator(common_config=common, arch_config=settings).separate(str(folder / "song.wav"))


def make(name: str, seconds: float, folder: Path) -> None:
    """The checkpoint, its yaml (JSON is yaml), the song and the export."""
    import soundfile
    import torch

    from ortsep.export.exporter import export_model
    from ortsep.export.families.roformer.architecture import random_state
    from ortsep.export.families.roformer.original import arguments_of
    from ortsep.export.family import Choice
    from ortsep.export.validate import synthetic_song
    from ortsep.export.weights.msst_yaml import settings
    from ortsep.models.catalogue import find_card

    config = find_card(name).arguments["config"]
    read = settings(config, name)
    arch = arguments_of(read.model, read.sample_rate)
    torch.save({key: torch.from_numpy(value) for key, value in random_state(arch, 0).items()}, folder / "model.ckpt")
    model = {**config["model"], "stereo": True, "time_transformer_depth": 1, "freq_transformer_depth": 1}
    audio = {**config["audio"], "sample_rate": read.sample_rate, "hop_length": arch.hop, "num_channels": 2}
    inference = {"num_overlap": STEP, "batch_size": 1, "dim_t": read.chunk // arch.hop + 1}
    written = {"audio": audio, "model": model, "training": config["training"], "inference": inference}
    (folder / "model.yaml").write_text(json.dumps(written))
    soundfile.write(folder / "song.wav", synthetic_song(read.sample_rate, seconds).T, read.sample_rate, "FLOAT")
    export_model(str(folder / "model.ckpt"), Choice(), folder / "ortsep")


def used(command: list[str]) -> tuple[float, float]:
    """CPU seconds and peak in MB of one process."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed: {said[-2000:]}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="mel_roformer_kim")
    parser.add_argument("--other", default=sys.executable, help="an interpreter with audio-separator")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--worker", choices=("make", "other"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        other(given.folder) if given.worker == "other" else make(given.name, given.seconds, given.folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "other").mkdir()
        worker = [__file__, given.name, "--seconds", str(given.seconds), "--folder", scratch, "--worker"]
        used([sys.executable, *worker, "make"])
        ours = [sys.executable, "-m", "ortsep", "run", f"{scratch}/ortsep", f"{scratch}/song.wav", "--overwrite"]
        commands = {"ortsep": [*ours, "-o", f"{scratch}/ours"], "other": [given.other, *worker, "other"]}
        runs: list[dict[str, Any]] = []
        for _ in range(given.runs):
            runs.append({side: used(command) for side, command in commands.items()})
            print(", ".join(f"{side} {s:.1f} s of CPU, {mb:.0f} MB" for side, (s, mb) in runs[-1].items()), flush=True)
    time, peak = (statistics.median(r["ortsep"][k] / r["other"][k] for r in runs) for k in (0, 1))
    windows = given.seconds / 8 * STEP
    print(f"ratio of time {time:.2f}, of peak {peak:.2f}; some {windows + 1:.0f} windows to {windows - 1:.0f}")


if __name__ == "__main__":
    main()
