"""Moises-Light as the package itself computes it, in whichever generation is installed, against graph and runtime.

As a script, a table of dB for the six presets at three lengths. The two generations of the package exclude each other,
so each is measured in an environment of its own, which needs torch, onnx, ortsep and the package:

    python tests/parity/moises_package.py                 # with moises-light 0.1.5: the new generation
    python tests/parity/moises_package.py                 # with moises-light 0.1.3: the legacy one
    python tests/parity/moises_package.py --store         # with 0.1.3: what the tests hold the legacy generation to

An environment for 0.1.3: ``pip install torch onnx moises-light==0.1.3`` and ``pip install --no-deps ortsep``'s folder
with the runtime's dependencies (its ``export`` extra asks for the newer package).
"""

import argparse
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ortsep import Separator
from ortsep.base.decibels import snr
from ortsep.export.exporter import write_export
from ortsep.export.families.moises_light.architecture import Architecture, State, of_card, presets, random_state
from ortsep.export.families.moises_light.original import GRAPH, load
from ortsep.export.family import Choice
from ortsep.graphs.session import Session

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
STORED = Path(__file__).parent / "data" / "moises_legacy.npz"
LENGTHS = (1000, 7168, 17_640)
"""Samples, for quick comparisons: within the first 8 frames; 7 hops exactly, which take one more; 0.4 s."""
KEPT = 300
"""Samples of each length whose stems are stored."""
SECONDS = (0.4, 2.37, 13.0)
"""Of the table; the last is longer than what runs in one piece by default."""


def installed_new() -> bool:
    """Whether the package installed here is of the new generation."""
    return version("moises-light") not in ("0.1.0", "0.1.1", "0.1.2", "0.1.3")


def seeded_clip(samples: int) -> F32:
    """Stereo noise [2, N] with a falling spectrum."""
    noise = np.random.default_rng(0).standard_normal((2, samples))
    return (0.1 * (noise + np.cumsum(noise, axis=1) / 8)).astype(np.float32)


def kept(samples: int) -> npt.NDArray[np.int64]:
    """Which samples of a clip are stored, both ends among them."""
    return np.linspace(0, samples - 1, KEPT).round().astype(np.int64)


def package_network(arch: Architecture, state: State) -> Any:
    """The installed package's own network with these parameters, float32, its attention not in bfloat16."""
    from moises_light import MoisesLight, configs

    (config,) = [c for c in configs.values() if all(getattr(arch, k) == c[k] for k in ("G", "n_bands", "n_rope"))]
    network = MoisesLight(**{**config, "sources": list(arch.sources)}).eval()
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    missing, surplus = network.load_state_dict(tensors, strict=False)
    learned = {k for k, _ in network.named_parameters()} | {k for k in network.state_dict() if ".running_" in k}
    assert not surplus and not learned & set(missing)
    for module in network.modules():
        if hasattr(module, "flash"):
            module.flash = False
    return network


@dataclass(frozen=True)
class Heard:
    """One ``forward``: stems [S, C, N], and the network's input [1, 2C, F, T] and masks [1, S, 2C, F, T] within it."""

    stems: npt.NDArray[Any]
    spectrum: npt.NDArray[Any]
    masks: npt.NDArray[Any]


def listen(network: Any, clip: F32) -> Heard:
    """Run the package's ``forward`` on a clip [C, N] in the network's precision and keep what its parts give."""
    seen = {}
    split, merge = type(network)._band_split, type(network)._band_merge

    def splitting(x: torch.Tensor) -> torch.Tensor:
        seen["spectrum"] = x
        return split(network, x)

    def merging(x: torch.Tensor) -> torch.Tensor:
        merged = seen["merged"] = merge(network, x)
        return merged

    network._band_split, network._band_merge = splitting, merging
    with torch.inference_mode():
        mix = torch.from_numpy(clip).to(next(network.parameters()).dtype)
        stems = network(mix[None])[0]
        head = getattr(network, "source_head", None)
        masks = seen["merged"] if head is None else head(seen["merged"])
    spectrum = seen["spectrum"]
    shape = (1, len(stems), *spectrum.shape[1:])
    return Heard(stems.numpy(), spectrum.numpy(), masks.reshape(shape).numpy())


def export_state(name: str, state: State, folder: Path) -> Path:
    """Export parameters as a user's checkpoint of a preset: the graph's path."""
    torch.save({k: torch.from_numpy(np.array(v)) for k, v in state.items()}, folder / "model.ckpt")
    write_export(load(presets()[name], Choice(path=folder / "model.ckpt")), folder / "exported")
    return folder / "exported" / GRAPH


def separated(model: Path | Separator, clip: F32) -> F32:
    """Stems [S, C, N] of a clip, run in one piece by ortsep's own runtime."""
    separator = model if isinstance(model, Separator) else Separator(model, provider="cpu", threads=1)
    seconds = max(clip.shape[1] / separator.spec.sample_rate, 1.0)
    return np.stack(list(separator.separate(clip, chunk=seconds).values()))


@dataclass(frozen=True)
class Row:
    """dB of one preset at one length: the graph and the stems against float64, the stems against float32."""

    frames: int
    graph: float
    stems: float
    stems_float32: float


def compare(model: Path, network: Any, clip: F32) -> Row:
    """Measure an exported model against the package's network (which is left in float64)."""
    ours = separated(model, clip)
    single = listen(network.float(), clip)
    double = listen(network.double(), clip)
    (masks,) = Session(model, provider="cpu", threads=1).run({"spectrum": double.spectrum.astype(np.float32)})
    return Row(masks.shape[-1], snr(double.masks, masks), snr(double.stems, ours), snr(single.stems, ours))


def store() -> None:
    """Write the legacy package's stems [S, C, KEPT] in float64 throughout, rounded to float32, of every preset."""
    assert not installed_new(), f"moises-light {version('moises-light')} is not the legacy one"
    stored = {}
    for name, card in presets().items():
        arch = of_card(card, new=False)
        network = package_network(arch, random_state(arch, 0)).double()
        for samples in LENGTHS:
            stems = listen(network, seeded_clip(samples)).stems
            stored[f"{name.partition(':')[2]}_{samples}"] = stems[..., kept(samples)].astype(np.float32)
        print(name, sum(p.numel() for p in network.parameters()), float(np.std(stems)))
    np.savez_compressed(STORED, **stored)


def main() -> None:
    parser = argparse.ArgumentParser(description="Moises-Light: exports against the installed package, in dB.")
    parser.add_argument("--store", action="store_true", help="write the tests' reference, where 0.1.3 is installed")
    parser.add_argument("--seconds", type=float, nargs="+", default=SECONDS)
    parser.add_argument("--presets", nargs="+", default=sorted(presets()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.store:
        store()
        return
    print(f"moises-light {version('moises-light')}, torch {torch.__version__}; dB")
    print(f"{'preset':<36} {'seconds':>7} {'frames':>6} {'graph':>6} {'stems':>6} {'stems, float32 package':>22}")
    for name in options.presets:
        arch = of_card(presets()[name], new=installed_new())
        state = random_state(arch, 0)
        network = package_network(arch, state)
        with tempfile.TemporaryDirectory() as folder:
            model = export_state(name, state, Path(folder))
            for seconds in options.seconds:
                row = compare(model, network, seeded_clip(round(seconds * 44100)))
                print(
                    f"{name:<36} {seconds:>7g} {row.frames:>6} {row.graph:>6.1f} {row.stems:>6.1f} "
                    f"{row.stems_float32:>22.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
