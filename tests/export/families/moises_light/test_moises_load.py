"""Moises-Light checkpoints as training scripts leave them: found, named, or refused with the reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.families.moises_light.architecture import Architecture, of_card, parameters, presets
from ortsep.export.families.moises_light.original import MoisesLight, load
from ortsep.export.family import Choice
from ortsep.models.catalogue import Card, find_card

State = dict[str, torch.Tensor]
SMALL = "moises_light:paper_small"


def _values(arch: Architecture, fill: float = 0.5) -> State:
    """Right names and shapes, one value, and the two buffers that the package saves as well."""
    state = {name: torch.full(shape, fill) for name, shape in parameters(arch).items()}
    bins = arch.n_fft // 2 + 1
    state["stft_window"] = torch.hann_window(arch.n_fft)
    state["freq_pad"] = torch.zeros(1, 2 * arch.audio_channels, bins - arch.freq_dim, 1)
    norms = [name for name in state if name.endswith("running_mean")]
    return state | {n.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for n in norms}


def _prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def card() -> Card:
    return find_card(SMALL)


@pytest.fixture
def read(tmp_path: Path, card: Card) -> Callable[..., MoisesLight]:
    def save_and_load(held: Any, name: str = "model.ckpt", of: Card = card, **choice: Any) -> MoisesLight:
        torch.save(held, tmp_path / name)
        return load(of, Choice(path=tmp_path / name, **choice))

    return save_and_load


LAYOUTS: dict[str, Callable[[State, State], Any]] = {
    "plain": lambda a, b: a,
    "lightning": lambda a, b: {
        "epoch": 3,
        "state_dict": {**_prefixed(a, "model."), "loss.window": torch.ones(4)},
        "optimizer_states": [{"lr": 0.1}],
    },
    "ddp": lambda a, b: {"model": _prefixed(a, "module."), "step": 5},
    "compiled": lambda a, b: {"model_state_dict": _prefixed(a, "_orig_mod.module.")},
    "ema": lambda a, b: {"model": _prefixed(b, "module."), "ema": _prefixed(a, "module.")},
    "ema without statistics": lambda a, b: {
        "model": b | {k: v for k, v in a.items() if ".running_" in k},
        "ema": {"decay": 0.999, "shadow": {k: v for k, v in a.items() if ".running_" not in k and "freqs" not in k}},
    },
    "ema by prefix": lambda a, b: {"state_dict": {**_prefixed(b, "model."), **_prefixed(a, "ema_model.")}},
    "swa": lambda a, b: {"swa_model": {**_prefixed(a, "module."), "n_averaged": torch.tensor(3)}},
    "half": lambda a, b: {k: v.half() if v.is_floating_point() and k != "stft_window" else v for k, v in a.items()},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_training_scripts(layout: str, legacy: bool, card: Card, read: Callable[..., MoisesLight]) -> None:
    arch = of_card(card, not legacy)
    original = read(LAYOUTS[layout](_values(arch, 0.5), _values(arch, 0.25)))
    assert original.arch == arch
    assert original.spec.name == SMALL and original.spec.stems == ("vocals", "drums", "bass", "other")
    assert set(original.state) == set(parameters(arch))
    learned = [v for k, v in original.state.items() if "freqs" not in k]
    assert all((v == 0.5).all() and v.dtype == np.float32 for v in learned)
    assert original.spec.parameters == (card.arguments["legacy_parameters"] if legacy else card.parameters)
    assert ("0.1.0 to 0.1.3" if legacy else "0.1.4 and later") in original.spec.notes[0]
    assert any("moving average" in note for note in original.spec.notes) == layout.startswith("ema")


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_recognised(name: str, legacy: bool, read: Callable[..., MoisesLight]) -> None:
    card = find_card(name)
    original = read(_values(of_card(card, not legacy)), of=card)
    assert original.arch == of_card(card, not legacy)
    spec = original.spec
    assert spec.bandwidth == (pytest.approx(14700.0) if "paper" in name else None)
    assert spec.stft is not None and spec.stft.bins == card.arguments["freq_dim"] and spec.stft.frame_multiple == 8
    assert find_card(name.replace(":", "-")) is card


def test_safetensors(tmp_path: Path, card: Card) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(_values(of_card(card)), tmp_path / "m.safetensors")
    assert load(card, Choice(path=tmp_path / "m.safetensors")).spec.weights.source == "m.safetensors"


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
def test_one_stem_is_named_by_the_user_the_settings_or_the_file(
    legacy: bool, card: Card, read: Callable[..., MoisesLight], tmp_path: Path
) -> None:
    state = _values(of_card(card, not legacy, ("one",)))
    assert ("source_head.weight" in state) == legacy
    assert read(state, "epoch12_bass.ckpt").spec.stems == ("bass",)
    assert read(state, stems=("choir",)).spec.stems == ("choir",)
    held = {"hyper_parameters": {"lr": 0.1, "model": {"sources": ["drums"]}}, "state_dict": _prefixed(state, "net.")}
    assert read(held).spec.stems == ("drums",)
    with pytest.raises(WeightsError, match="does not say which"):
        read(state)


def test_stems_that_the_model_has_not(card: Card, read: Callable[..., MoisesLight]) -> None:
    assert read(_values(of_card(card)), stems=("other", "drums")).rows == (1, 3)
    with pytest.raises(UsageError, match="no stem piano"):
        read(_values(of_card(card)), stems=("piano",))


def test_no_weights_are_published(card: Card) -> None:
    with pytest.raises(WeightsError, match=r"no weights are published.*--weights PATH.*--weights random"):
        load(card, Choice())


def test_another_preset_is_named(read: Callable[..., MoisesLight]) -> None:
    with pytest.raises(WeightsError, match=r"is moises_light:fullband_large .* and not moises_light:paper_small"):
        read(_values(of_card(find_card("moises_light:fullband_large"))))


def _without(state: State, name: str) -> State:
    return {k: v for k, v in state.items() if k != name}


FOREIGN: dict[str, tuple[Callable[[State], Any], str]] = {
    "another network": (lambda s: {"encoder.0.conv.weight": torch.ones(4, 2)}, r"not a Moises-Light.*encoder\.0"),
    "only an anchor": (lambda s: {"first_conv.conv.weight": torch.ones(32, 4, 3, 3)}, "first_conv but is not"),
    "a tensor missing": (lambda s: _without(s, "ds.1.bn.weight"), r"ds\.1\.bn\.weight is missing"),
    "a tensor more": (lambda s: s | {"film.weight": torch.ones(3)}, r"film\.weight is surplus"),
    "another shape": (lambda s: s | {"ds.1.bn.weight": torch.ones(5)}, r"ds\.1\.bn\.weight is \[5\] for \[96\]"),
    "not finite": (lambda s: s | {"ds.1.bn.weight": torch.full((96,), torch.nan)}, "not finite"),
    "another window": (lambda s: s | {"stft_window": torch.hamming_window(6144)}, "window"),
    "no statistics": (lambda s: {k: v for k, v in s.items() if "running" not in k}, "norm_name"),
    "two networks": (
        lambda s: {"a": s, "b": {k: 2 * v for k, v in s.items()}},
        "2 different networks, under 'a/', 'b/'",
    ),
    "empty": (lambda s: {}, "not a Moises-Light"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_and_ambiguous_checkpoints(case: str, card: Card, read: Callable[..., MoisesLight]) -> None:
    spoil, message = FOREIGN[case]
    with pytest.raises(WeightsError, match=message):
        read(spoil(_values(of_card(card))))


def test_a_model_that_is_no_preset_needs_its_arguments(
    card: Card, read: Callable[..., MoisesLight], tmp_path: Path
) -> None:
    arch = replace(of_card(card), G=40, hop_size=512, act_name="GELU", sources=("drums", "rest"))
    state = _values(arch)
    with pytest.raises(WeightsError, match=r"no preset: it differs from moises_light:\w+ of .* in G 40 for"):
        read(state)
    config = tmp_path / "mine.yaml"
    config.write_text("model:\n  G: 40\n  hop_size: 512\n  act_name: GELU\n  sources: [drums, rest]\n")
    original = read(state, config=config)
    assert original.arch == arch and original.spec.name == "moises_light:mine"
    assert original.spec.stems == ("drums", "rest")
    assert original.spec.stft is not None and original.spec.stft.hop == 512
    transformer = {"heads": 4, "dim_head": 32, "ff_mult": 2, "attn_dropout": 0.1, "flash_attn": True}
    arguments = {"hop_size": 512, "act_name": "GELU", "transformer_params": transformer, "sources": ["drums", "rest"]}
    config.write_text(json.dumps(arguments))
    assert read(state, config=config).arch == arch


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("G: 48", "G 48 for 32"),
        ("sources: [a]", "names 1 sources and the checkpoint has 4"),
        ("width: 3", "does not take: width"),
        ("use_mask: false", "use_mask = False"),
        ("norm_name: InstanceNorm", "norm_name = 'InstanceNorm'"),
        ("act_name: Sine", "act_name 'Sine'"),
        ("hop_size: big", "hop_size"),
        ("hop_size: 0", "hop_size"),
        ("sources: 4", "sources"),
        ("transformer_params: 4", "transformer_params"),
        ("[1, 2", "neither yaml nor json"),
        ("- 1", "no arguments by name"),
        ("", "no arguments by name"),
    ],
)
def test_configurations_that_do_not_fit(
    text: str, message: str, card: Card, read: Callable[..., MoisesLight], tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(text)
    with pytest.raises(WeightsError, match=message):
        read(_values(of_card(card)), config=config)


def test_a_configuration_that_is_not_there(card: Card, read: Callable[..., MoisesLight], tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="no configuration"):
        read(_values(of_card(card)), config=tmp_path / "none.yaml")
