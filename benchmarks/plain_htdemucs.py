"""``python benchmarks/plain_htdemucs.py OUT.onnx [SEED]``: htdemucs as torch's own exporter writes it, untouched.

This is the file that people have who export with ``torch.onnx.export`` alone: the graph that ``ortsep optimize`` is
measured on. The weights are random, seeded and sizeable. The STFT stays outside, and two lines of Demucs that no
exporter can follow (a random shift of the sinusoids, complex tensors) are replaced by their values at inference.
Needs onnxscript, which the extra ``dev`` brings.
"""

import sys
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import nn

from ortsep.export.families.demucs.files import random_part
from ortsep.models.catalogue import find_card

SAMPLES, BINS, FRAMES = 343980, 2048, 336
OPSET = 20


class Plain(nn.Module):
    """HTDemucs on (mix, spectrum) instead of the mixture alone; gives stems and stem spectra."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.crosstransformer.sin_random_shift = 0
        replaced = {"_spec": lambda _, x: self.spectrum, "_magnitude": lambda _, z: z}
        replaced |= {"_mask": self._keep, "_ispec": lambda _, z, length: torch.zeros(())}
        for name, function in replaced.items():
            nn.Module.__setattr__(model, name, MethodType(function, model))

    def _keep(self, _: Any, z: torch.Tensor, spectra: torch.Tensor) -> torch.Tensor:
        self.spectra = spectra
        return spectra

    def forward(self, mix: torch.Tensor, spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.spectrum = spectrum
        stems = self.model(mix)
        return stems, self.spectra


def main(path: Path, seed: int = 0) -> None:
    model = random_part(find_card("htdemucs"), seed, 0, (1.0,) * 4).build().float().eval()
    inputs = (torch.randn(1, 2, SAMPLES) * 0.1, torch.randn(1, 4, BINS, FRAMES) * 0.1)
    program = torch.onnx.export(
        Plain(model),
        inputs,
        dynamo=True,
        opset_version=OPSET,
        input_names=["mix", "spectrum"],
        output_names=["stems", "stem_spectra"],
        external_data=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    program.save(str(path), external_data=False)
    print(f"{path}: {len(program.model_proto.graph.node)} nodes, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(seed) for seed in sys.argv[2:3]))
