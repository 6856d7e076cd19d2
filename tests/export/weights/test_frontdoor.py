"""MSST's front door: what a file is, where its parameters lie, what its yaml says, and what is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.weights import frontdoor
from ortsep.export.weights.frontdoor import (
    Checkpoint,
    check_names,
    described_architecture,
    name_stems,
    open_checkpoint,
    text_of,
)
from ortsep.export.weights.msst_yaml import read_yaml, settings

KIM = """
audio:
  chunk_size: 352800
  dim_t: 256
  hop_length: 441
  sample_rate: 44100
model:
  dim: 8
  depth: 1
  num_bands: 60
  stft_hop_length: 441
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  - 2048
training:
  instruments: [vocals, other]
  target_instrument: vocals
inference:
  num_overlap: 2
"""


def _mel() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    names = ("band_split.to_features.0.0.gamma", "layers.0.0.norm.gamma", "layers.0.1.norm.gamma")
    return {name: torch.randn(4, generator=generator) for name in names}


def _bs() -> dict[str, torch.Tensor]:
    state = {name: tensor for name, tensor in _mel().items() if "layers" not in name}
    return {**state, "final_norm.gamma": torch.ones(4)}


def _saved(folder: Path, held: Any, name: str = "model.ckpt") -> Path:
    torch.save(held, folder / name)
    return folder / name


def _yaml(folder: Path, text: str = KIM, name: str = "other.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def _prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in _mel().items()}


LAYOUTS: dict[str, Callable[[], Any]] = {
    "bare": _mel,
    "state": lambda: {"state": _mel(), "klass": "x", "args": (), "kwargs": {}},
    "state_dict": lambda: {"state_dict": _mel(), "epoch": 3},
    "model_state_dict": lambda: {"model_state_dict": _mel(), "optimizer_state_dict": {"state": {}}, "epoch": 1},
    "model": lambda: {"model": _mel()},
    "parallel": lambda: _prefixed("module."),
    "compiled": lambda: {"state_dict": _prefixed("_orig_mod.")},
    "lightning": lambda: {"state_dict": {**_prefixed("model."), "loss.window": torch.ones(3)}, "hyper_parameters": {}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    found = open_checkpoint(_saved(tmp_path, LAYOUTS[layout]()), _yaml(tmp_path))
    assert found.architecture.name == "mel_band_roformer"
    assert found.state.keys() == _mel().keys()
    assert all((found.state[name] == tensor.numpy()).all() for name, tensor in _mel().items())


def test_an_average_is_taken_before_its_model(tmp_path: Path) -> None:
    average = {f"ema_model.{name}": tensor + 1 for name, tensor in _mel().items()}
    held = {**{f"online_model.{name}": tensor for name, tensor in _mel().items()}, **average, "step": torch.tensor(5)}
    found = open_checkpoint(_saved(tmp_path, held))
    assert (found.state["layers.0.0.norm.gamma"] == _mel()["layers.0.0.norm.gamma"].numpy() + 1).all()
    assert "ema_model." in text_of(found.table)


def test_two_different_networks_are_refused(tmp_path: Path) -> None:
    held = {"first": _mel(), "second": {name: tensor * 2 for name, tensor in _mel().items()}}
    with pytest.raises(WeightsError, match="2 different networks, under 'first/', 'second/'"):
        open_checkpoint(_saved(tmp_path, held))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_floats_become_float32_and_are_told(kind: torch.dtype, tmp_path: Path) -> None:
    held = {name: tensor.to(kind) for name, tensor in _mel().items()}
    found = open_checkpoint(_saved(tmp_path, held))
    assert all(array.dtype == "float32" for array in found.state.values())
    assert all((found.state[name] == tensor.float().numpy()).all() for name, tensor in held.items())
    assert str(kind).removeprefix("torch.") in text_of(found.table)


def test_safetensors_and_a_yaml_beside_it(tmp_path: Path) -> None:
    save_file(_bs(), tmp_path / "voice.safetensors")
    _yaml(tmp_path, "training: {instruments: [a, b]}", "voice.yaml")
    found = open_checkpoint(tmp_path / "voice.safetensors")
    assert found.architecture.name == "bs_roformer"
    assert found.settings.stems == ("a", "b")
    assert "voice.yaml" in text_of(found.table)


def test_settings_are_those_of_demix(tmp_path: Path) -> None:
    read = settings(read_yaml(_yaml(tmp_path)), "x")
    assert (read.stems, read.rest, read.chunk, read.overlaps) == (("vocals",), "other", 352800, 2)
    assert read.model["multi_stft_resolutions_window_sizes"] == (4096, 2048)
    own = {"audio": {"chunk_size": 1}, "inference": {"chunk_size": 441, "num_overlap": 4, "normalize": True}}
    assert (settings(own, "x").chunk, settings(own, "x").overlaps, settings(own, "x").normalize) == (441, 4, True)
    demucs = {"model": "htdemucs", "htdemucs": {"depth": 4}, "training": {"segment": 11, "samplerate": 44100}}
    assert settings(demucs, "x").chunk == 485100
    assert settings(demucs, "x").model == {"depth": 4}
    assert "2 assumed" in settings(demucs, "x").notes[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: !!python/object/apply:os.system [echo]", "asks for more than values"),
        ("a: !!python/tuple {x: 1}", "asks for more than values"),
        ("a: [unclosed", "is not a yaml of values"),
        ("a: 2026-13-45", "is not a yaml of values"),
        ("- 1\n- 2", "has no sections"),
        ("", "has no sections"),
        ("a: &a [" + "x, " * 20 + "]\nb: &b [" + "*a, " * 99 + "]\nc: [" + "*b, " * 99 + "]", "more values than"),
        ("a: &a [*a]", "more values than"),
        ("[" * 1100, "is not a yaml of values"),
        ("x" * (1 << 20) + ": 1", "longer than 1 MB"),
    ],
)
def test_hostile_yaml(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        read_yaml(_yaml(tmp_path, text))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"audio": {"chunk_size": 3.5}}, "chunk_size 3.5"),
        ({"audio": {"chunk_size": True}}, "chunk_size True"),
        ({"audio": 3}, "no values by name under audio"),
        ({"model": [1]}, "a model that is no arguments"),
        ({"inference": {"num_overlap": 0}}, "num_overlap 0"),
        ({"training": {"instruments": ["a", "A"]}}, "names a stem twice"),
        ({"training": {"instruments": "vocals"}}, "no list of stems"),
        ({"training": {"instruments": ["../a"]}}, "can't name a file"),
        ({"training": {"target_instrument": 5}}, "'5' is no text"),
    ],
)
def test_settings_that_cannot_be_meant(config: dict[str, Any], said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        settings(config, "the.yaml")


DESCRIPTIONS = {
    "bs_roformer": {"model": {"dim": 1, "depth": 1, "freqs_per_bands": (1, 2)}},
    "mel_band_roformer": {"model": {"dim": 1, "depth": 1, "num_bands": 60}},
    "mdx23c": {"model": {"num_subbands": 4, "num_scales": 5, "num_channels": 128}},
    "scnet": {"model": {"sources": ["a"], "band_SR": [1]}},
    "htdemucs": {"model": "htdemucs", "htdemucs": {}},
    "bandit": {"model": {"band_specs": "musical"}},
    "bandit_v2": {"cls": "Bandit", "kwargs": {"band_type": "musical", "n_sqm_modules": 8}},
    "apollo": {"model": {"sr": 44100, "win": 20, "feature_dim": 256, "layer": 6}},
    "segm_models": {"model": {"encoder_name": "x", "decoder_type": "unet", "num_subbands": 8}},
    "swin_upernet": {"model": {"num_subbands": 8, "num_channels": 16}},
    "said": {"model": {"sources": [], "band_SR": []}, "training": {"model_type": "said"}},
    "": {"model": {"what": 1}},
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_what_a_yaml_describes(name: str) -> None:
    assert described_architecture(DESCRIPTIONS[name]) == name


def test_a_yaml_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is BS-RoFormer by its parameters and .*other.yaml describes mel_band"):
        open_checkpoint(_saved(tmp_path, _bs()), _yaml(tmp_path))


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    bandit = {"band_split.norm_fc_modules.0.norm.weight": torch.ones(2)}
    with pytest.raises(WeightsError, match="is BandIt, which ortsep can't export; it exports BS-RoFormer, Mel-Band"):
        open_checkpoint(_saved(tmp_path, bandit))
    with pytest.raises(WeightsError, match=r"other\.yaml describes Apollo"):
        text = "model: {sr: 44100, win: 20, feature_dim: 256, layer: 6}"
        open_checkpoint(_saved(tmp_path, _mel()), _yaml(tmp_path, text))
    newer = {**_bs(), "layers.0.0.layers.0.0.to_value_residual_mix.weight": torch.ones(1)}
    with pytest.raises(WeightsError, match="a RoFormer of a later edition"):
        open_checkpoint(_saved(tmp_path, newer))
    moises = {"first_conv.conv.weight": torch.ones(1), "bottleneck.rope_blocks.0.x": torch.ones(1)}
    with pytest.raises(WeightsError, match="ortsep export moises_light:paper_large --weights FILE"):
        open_checkpoint(_saved(tmp_path, moises))


def test_adapters_are_refused(tmp_path: Path) -> None:
    adapter = {"layers.0.0.layers.0.0.to_qkv.lora_A": torch.ones(2, 2)}
    for held in (adapter, {**_mel(), **adapter}):
        with pytest.raises(WeightsError, match="holds LoRA adapters"):
            open_checkpoint(_saved(tmp_path, held))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        open_checkpoint(tmp_path / "none.ckpt")
    with pytest.raises(FileMissing, match="no configuration at"):
        open_checkpoint(_saved(tmp_path, _mel()), tmp_path / "none.yaml")
    with pytest.raises(WeightsError, match=r"no network that ortsep knows \(its first names are a, b/?"):
        open_checkpoint(_saved(tmp_path, {"a": torch.ones(1), "b": torch.ones(1)}))
    whole = _saved(tmp_path, _mel()).read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="is damaged or no checkpoint"):
        open_checkpoint(tmp_path / "cut.ckpt")
    (tmp_path / "code.ckpt").write_bytes(pickle.dumps(print))
    with pytest.raises(WeightsError):
        open_checkpoint(tmp_path / "code.ckpt")
    with pytest.raises(WeightsError, match="not finite"):
        open_checkpoint(_saved(tmp_path, {**_mel(), "layers.0.0.norm.gamma": torch.tensor([float("nan")])}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(_saved(tmp_path, _mel()), _yaml(tmp_path))


def test_names_of_stems(checkpoint: Checkpoint, tmp_path: Path) -> None:
    assert name_stems(checkpoint, 1, ()) == ("vocals",)
    with pytest.raises(WeightsError, match=r"gives 2 stems and its configuration names 1 \(vocals\)"):
        name_stems(checkpoint, 2, ())
    with pytest.raises(UsageError, match="has no stem drums; it has vocals"):
        name_stems(checkpoint, 1, ("drums",))
    bare = open_checkpoint(_saved(tmp_path, _mel()))
    assert name_stems(bare, 2, ("a", "b")) == ("a", "b")
    with pytest.raises(WeightsError, match="nothing names the 2 stems"):
        name_stems(bare, 2, ())


def test_foreign_missing_and_reshaped_names_are_listed(checkpoint: Checkpoint) -> None:
    wanted = dict.fromkeys(_mel(), (4,))
    check_names(checkpoint, wanted)
    del wanted["layers.0.1.norm.gamma"]
    wanted |= {"layers.0.0.norm.gamma": (5,), "final.bias": (1,)}
    with pytest.raises(WeightsError, match=r"\[4\] for \[5\], final.bias is missing, layers.0.1.norm.gamma is unknown"):
        check_names(checkpoint, wanted)


def test_every_architecture_is_told_from_the_others() -> None:
    names = [kind.name for kind in frontdoor.ARCHITECTURES]
    assert len(set(names)) == len(names)
