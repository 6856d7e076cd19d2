"""The inverse STFT that a network may have inside: equal to torch's, and a graph in seconds; else a sentence."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from ortsep.base.decibels import snr
from ortsep.commands.habits import own_network
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.inverse_stft import ByHops, StaysOutside, istft
from ortsep.separator import Separator

NET = """
import torch


class Inside(torch.nn.Module):
    def __init__(self, hop=64):
        super().__init__()
        self.hop = hop
        self.register_buffer("window", torch.hann_window(256))
        self.mask = torch.nn.Conv1d(129, 129, 3, padding=1)

    def forward(self, mix):
        batch, channels, samples = mix.shape
        how = {"n_fft": 256, "hop_length": self.hop, "window": self.window}
        spectrum = torch.stft(mix.reshape(-1, samples), **how, return_complex=True)
        heard = spectrum * torch.sigmoid(self.mask(spectrum.abs()))
        first = torch.istft(heard, **how, length=samples).reshape(batch, 1, channels, samples)
        return torch.cat([first, mix[:, None] - first], 1)


def uneven():
    return Inside(96)
"""


@pytest.mark.parametrize(
    "how",
    [
        {"hop_length": 64, "window": torch.hann_window(256)},
        {"hop_length": 128, "window": torch.hamming_window(256), "normalized": True, "length": 3000},
        {"win_length": 128, "hop_length": 32, "window": torch.hann_window(128), "length": 1700},
        {"window": torch.hann_window(256), "length": 2000},
        {"hop_length": 256, "window": torch.ones(256), "center": False},
    ],
)
def test_it_is_that_of_torch(how: dict[str, Any]) -> None:
    """Of a spectrum that is no signal's, so that the weights of overlapping frames matter."""
    spectrum = torch.randn(2, 3, 129, 60, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    theirs = torch.stack([torch.istft(each, 256, **how) for each in spectrum])
    assert snr(theirs.numpy(), istft(spectrum, 256, **how).numpy()) > 120
    with ByHops():
        assert torch.equal(torch.istft(spectrum[0], 256, **how), istft(spectrum[0], 256, **how))
        assert torch.equal(spectrum[0].istft(256, **how), istft(spectrum[0], 256, **how))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"hop_length": 96}, "a hop of 96, which does not divide 256, and a graph can't; leave both transforms out"),
        ({"onesided": False}, "a signal that is not real"),
        ({"return_complex": True}, "a signal that is not real"),
    ],
)
def test_what_it_cannot_is_told(how: dict[str, Any], words: str) -> None:
    with pytest.raises(StaysOutside, match=words):
        istft(torch.zeros(1, 129, 8, dtype=torch.complex64), 256, **how)


def exported(folder: Path, factory: str, *settings: str) -> Any:
    (folder / "inside.py").write_text(NET)
    basic = ["domain=waveform", "sample_rate=8000", "chunk=0.5", *settings]
    name = own_network("", f"{folder / 'inside.py'}:{factory}", basic, simplify=False)
    return export_model(name, choose_weights("random:1", None, ("first", "rest")), folder / "out")


@pytest.mark.parametrize("settings", [[], ["free=true", "multiple=64"]], ids=["fixed", "free"])
def test_a_network_that_transforms_inside(settings: list[str], tmp_path: Path) -> None:
    made = exported(tmp_path, "Inside", *settings)
    assert made.spec.validation[0].db > 100
    assert len(onnx.load(next((tmp_path / "out").glob("*.onnx"))).graph.node) < 150
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (9000, 2)).astype(np.float32)
    stems = Separator(tmp_path / "out").separate(x, 8000)
    assert snr(x, stems["first"] + stems["rest"]) > 100


def test_one_that_cannot_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(StaysOutside, match=r"a hop of 96, .* give it spectra") as told:
        exported(tmp_path, "uneven")
    assert "\n" not in str(told.value) and not (tmp_path / "out").exists()
