"""SCNet checkpoints: what a yaml and its parameters become, and what is refused with a sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.scnet.architecture import Architecture, parameter_count, random_state
from ortsep.export.families.scnet.original import from_checkpoint, load
from ortsep.export.family import Choice
from ortsep.export.msst import SpectralNetwork
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.models.catalogue import catalogue, find_card
from ortsep.models.spec import STFT, Join, Normalization

TINY = Architecture(sources=3, dims=(4, 8, 16), num_dplayer=2, nfft=512, hop_size=128, chunk=128 * 20)
LISTS = ("dims", "band_SR", "band_stride", "band_kernel", "conv_depths")
NUMBERS = ("compress", "conv_kernel", "num_dplayer", "expand", "nfft", "hop_size")


def config() -> dict[str, Any]:
    model = {n: list(getattr(TINY, n)) for n in LISTS} | {n: getattr(TINY, n) for n in NUMBERS}
    return {
        "audio": {"chunk_size": TINY.chunk, "num_channels": 2, "sample_rate": 44100},
        "model": {**model, "sources": ["a", "b", "c"], "audio_channels": 2, "win_size": 512, "normalized": True},
        "training": {"instruments": ["vocals", "bass", "other"], "target_instrument": None},
        "inference": {"num_overlap": 2, "batch_size": 8, "normalize": True},
    }


def saved(folder: Path, settings: dict[str, Any], arch: Architecture = TINY) -> Path:
    """A checkpoint and the yaml beside it."""
    torch.save({name: torch.from_numpy(array) for name, array in random_state(arch, 0).items()}, folder / "net.ckpt")
    (folder / "net.yaml").write_text(yaml.safe_dump(settings))
    return folder / "net.ckpt"


def opened(path: Path, **choice: Any) -> SpectralNetwork:
    return from_checkpoint(open_checkpoint(path), Choice(path=path, **choice))


def test_a_checkpoint_and_its_yaml(tmp_path: Path) -> None:
    spec = opened(saved(tmp_path, config())).spec
    assert spec.stems == ("vocals", "bass", "other") and spec.content == "music"
    assert spec.stft == STFT(
        512, 128, 257, 256, 256, normalized=True, extend="next-hop", frame_multiple=2, window="ones"
    )
    assert spec.chunks is not None and (spec.chunks.length, spec.chunks.parts) == (2560, 2)
    assert spec.chunks.join == Join("fade", 256) and spec.chunks.tail == "reflect"
    assert spec.normalization == Normalization("track", eps=0.0, ddof=0)
    assert spec.parameters == parameter_count(TINY)


def test_one_target_and_what_is_left(tmp_path: Path) -> None:
    settings = config()
    settings["training"] = {"instruments": ["vocals", "other"], "target_instrument": "vocals"}
    settings["model"]["sources"] = ["vocals"]
    path = saved(tmp_path, settings, replace(TINY, sources=1))
    assert opened(path).spec.names == ("vocals", "other")
    with pytest.raises(UsageError, match="other of net is the mixture without vocals, so it can't be exported alone"):
        opened(path, stems=("other",))


def test_some_stems_of_several(tmp_path: Path) -> None:
    path = saved(tmp_path, config())
    whole, part = opened(path), opened(path, stems=("vocals", "other"))
    assert part.spec.stems == ("vocals", "other")
    inputs = part.example(0, np.random.default_rng(0).standard_normal((2, TINY.chunk)).astype(np.float32))
    every, some = (one.network(0, inputs)["stem_spectra"] for one in (whole, part))
    assert np.allclose(every[:, [0, 2]], some, rtol=0, atol=1e-12)


BAD: dict[str, tuple[str, Any, str]] = {
    "window": ("win_size", 256, "win_size 256 with nfft 512"),
    "hop": ("hop_size", 513, "hop_size 513"),
    "layers": ("num_dplayer", 3, "an odd number of dual-path layers"),
    "text": ("num_dplayer", "six", "num_dplayer six, not a number"),
    "kernel": ("conv_kernel", 4, "an even conv_kernel"),
    "compress": ("compress", 9, "compress 9"),
    "bands": ("band_SR", [0.2, 0.8], "three shares"),
    "whole bands": ("band_SR", [0.5, 0.5, 0.1], "band_SR"),
    "strides": ("band_kernel", [3, 4, 18], "its kernels"),
    "channels": ("dims", [2, 8, 16], "dims that begin with 2"),
    "other dims": ("dims", [4, 8, 24], r"encoder.1.SDlayer.convs.0.weight is \[16, 8, 3, 1\] for \[24, 8, 3, 1\]"),
    "mono": ("audio_channels", 1, "audio_channels 1"),
    "sources": ("sources", ["a", "b"], r"convtrs.0.weight is \[8, 12, 3, 1\] for \[8, 8, 3, 1\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    key, value, message = BAD[name]
    settings = config()
    settings["model"][key] = value
    with pytest.raises(WeightsError, match=message):
        opened(saved(tmp_path, settings))


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("pos_embed_f", "SCNet Masked"),
        ("separation_net.dp_modules.0.time_layer.layers.0.weight", "SCNet Tran"),
    ],
)
def test_variants_are_refused_by_their_parameters(name: str, title: str, tmp_path: Path) -> None:
    path = saved(tmp_path, config())
    torch.save({**torch.load(path), name: torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=f"{title}, which ortsep can't export"):
        opened(path)


def test_the_unofficial_edition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "unofficial.ckpt"
    torch.save({"sd_blocks.0.sd_layers.0.downsample.conv.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="unofficial SCNet, which ortsep can't export"):
        open_checkpoint(path)


def test_a_checkpoint_without_its_yaml(tmp_path: Path) -> None:
    path = saved(tmp_path, config())
    path.with_suffix(".yaml").unlink()
    with pytest.raises(WeightsError, match="nothing says how the bands"):
        opened(path)


def test_a_stem_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="has no stem piano; it has drums"):
        load(find_card("scnet"), Choice(seed=0, stems=("piano",)))


@pytest.mark.parametrize("name", [name for name, card in catalogue().items() if card.family == "scnet"])
def test_a_card_says_what_its_yaml_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.export.families.scnet.original.random_state", lambda arch, seed: {})
    card = find_card(name)
    original = load(card, Choice(seed=0))
    assert original.spec.names == card.stems and original.spec.parameters == card.parameters
    assert original.spec.name == name and abs(card.size_mb - 4e-6 * card.parameters) < 2
