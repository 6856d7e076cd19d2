"""MDX23C checkpoints: what a yaml and its parameters become, and what is refused with a sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.mdx23c.architecture import Architecture, parameter_count, random_state
from ortsep.export.families.mdx23c.original import from_checkpoint, load
from ortsep.export.family import Choice
from ortsep.export.msst import SpectralNetwork
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.models.catalogue import catalogue, find_card
from ortsep.models.spec import Border, Join, Normalization

TINY = Architecture(
    outputs=3,
    num_channels=8,
    growth=4,
    num_subbands=2,
    num_scales=2,
    n_fft=256,
    hop=64,
    dim_f=128,
    frames=16,
    bottleneck_factor=2,
)
STEMS = ["kick", "snare", "hh"]


def config(arch: Architecture = TINY) -> dict[str, Any]:
    names = ("num_channels", "growth", "num_subbands", "num_scales", "num_blocks_per_scale", "bottleneck_factor")
    model = {name: getattr(arch, name) for name in (*names, "act", "norm")}
    audio = {"n_fft": arch.n_fft, "hop_length": arch.hop, "dim_f": arch.dim_f, "chunk_size": arch.chunk}
    return {
        "audio": {**audio, "num_channels": 2, "sample_rate": 44100},
        "model": {**model, "scale": list(arch.scale)},
        "training": {"instruments": list(STEMS), "target_instrument": None},
        "inference": {"num_overlap": 4, "batch_size": 8},
    }


def saved(folder: Path, settings: dict[str, Any] | None = None, arch: Architecture = TINY) -> Path:
    """A checkpoint and the yaml beside it."""
    tensors = {name: torch.from_numpy(array) for name, array in random_state(arch, 0).items()}
    if arch.norm == "BatchNorm":
        tensors |= {
            name.replace("running_mean", "num_batches_tracked"): torch.tensor(7)
            for name in tensors
            if name.endswith("running_mean")
        }
    torch.save(tensors, folder / "drums.ckpt")
    (folder / "drums.yaml").write_text(yaml.safe_dump(config(arch) if settings is None else settings))
    return folder / "drums.ckpt"


def opened(path: Path, **choice: Any) -> SpectralNetwork:
    return from_checkpoint(open_checkpoint(path), Choice(path=path, **choice))


def test_a_checkpoint_and_its_yaml(tmp_path: Path) -> None:
    spec = opened(saved(tmp_path)).spec
    assert spec.stems == ("kick", "snare", "hh") and spec.content == "drums" and spec.bandwidth is None
    assert spec.stft is not None and (spec.stft.n_fft, spec.stft.hop, spec.stft.bins) == (256, 64, 128)
    assert spec.chunks is not None and (spec.chunks.length, spec.chunks.parts) == (960, 4)
    assert spec.chunks.join == Join("fade", 96) and spec.chunks.tail == "reflect"
    assert spec.chunks.border == Border(fill="reflect", overlapping=True)
    assert spec.normalization.kind == "none" and spec.parameters == parameter_count(TINY)
    assert spec.weights.source == "drums.ckpt" and not spec.weights.random


def test_some_stems_of_several(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole, part = opened(path), opened(path, stems=("kick", "hh"))
    assert part.spec.stems == ("kick", "hh")
    inputs = part.example(0, np.random.default_rng(0).standard_normal((2, 960)).astype(np.float32))
    every, some = (one.network(0, inputs)["stem_spectra"] for one in (whole, part))
    assert np.array_equal(every[:, [0, 2]], some)


def test_one_target_and_what_is_left(tmp_path: Path) -> None:
    settings = config()
    settings["training"] = {"instruments": ["similarity", "difference"], "target_instrument": "similarity"}
    settings["inference"]["normalize"] = True
    path = saved(tmp_path, settings, replace(TINY, outputs=1))
    spec = opened(path).spec
    assert spec.names == ("similarity", "difference") and spec.content == "music"
    assert spec.normalization == Normalization("track", eps=0.0, ddof=0)
    for stems in (("similarity",), ("difference", "similarity")):
        assert opened(path, stems=stems).spec.names == spec.names
    with pytest.raises(UsageError, match="difference of drums is the mixture without similarity, so it can't be exp"):
        opened(path, stems=("difference",))
    with pytest.raises(UsageError, match="has no stem else"):
        opened(path, stems=("else",))


def test_batch_norm_comes_with_counters(tmp_path: Path) -> None:
    assert opened(saved(tmp_path, arch=replace(TINY, norm="BatchNorm"))).spec.stems == ("kick", "snare", "hh")


BAD: dict[str, tuple[str, str, Any, str]] = {
    "frames": ("audio", "chunk_size", 64 * 16, "multiples of 4.*chunk_size such as 960"),
    "no hop": ("audio", "chunk_size", 1000, "multiples of 4"),
    "activation": ("model", "act", "swish", "activation 'swish'.*gelu, relu and elu"),
    "no alpha": ("model", "act", "elu", "activation 'elu'"),
    "norm": ("model", "norm", "LayerNorm", "norm 'LayerNorm'"),
    "groups": ("model", "norm", "GroupNorm3", "GroupNorm3, which doesn't divide"),
    "another norm": ("model", "norm", "BatchNorm", "not a whole MDX23C.*running_mean is missing"),
    "scale": ("model", "scale", [2], "scale"),
    "channels": ("model", "num_channels", 16, r"first_conv.weight is \[8, 8, 1, 1\] for \[16, 8, 1, 1\]"),
    "text": ("model", "growth", "much", "growth much"),
    "no growth": ("model", "growth", None, "nothing says the growth"),
    "bins": ("audio", "dim_f", 126, "dim_f 126"),
    "more bins": ("audio", "dim_f", 256, "dim_f 256"),
    "hop": ("audio", "hop_length", 257, "hop_length 257"),
    "mono": ("audio", "num_channels", 1, "hears two"),
    "target": ("training", "target_instrument", "vocals", "target_instrument vocals"),
    "stems": ("training", "instruments", ["kick", "snare"], "gives 3 stems"),
    "scales": ("model", "num_scales", 1, r"bottleneck_block\.blocks\.0\.tfc1\.0\.weight is \[16\] for \[12\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    section, key, value, message = BAD[name]
    settings = config()
    settings[section][key] = value
    with pytest.raises(WeightsError, match=message):
        opened(saved(tmp_path, settings))


def test_a_checkpoint_without_its_yaml(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(WeightsError, match=r"nothing says the hop_length.*--config"):
        opened(path)


def test_a_card_with_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a whole MDX23C"):
        path = saved(tmp_path)
        path.with_suffix(".yaml").unlink()
        load(find_card("mdx23c:drumsep"), Choice(path=path))


def test_a_stem_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="has no stem piano; it has kick"):
        load(find_card("drumsep"), Choice(seed=0, stems=("piano",)))


@pytest.mark.parametrize("name", [name for name, card in catalogue().items() if card.family == "mdx23c"])
def test_a_card_says_what_its_yaml_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.export.families.mdx23c.original.random_state", lambda arch, seed: {})
    card = find_card(name)
    original = load(card, Choice(seed=0))
    assert original.spec.names == card.stems and original.spec.parameters == card.parameters
    assert original.spec.name == name and original.spec.weights.random
    assert abs(card.size_mb - 4e-6 * card.parameters) < 1
