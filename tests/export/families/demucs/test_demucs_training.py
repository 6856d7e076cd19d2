"""Checkpoints of one's own Demucs training: any stems, whatever a framework put round the parameters."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demucs.htdemucs import HTDemucs

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.exporter import open_named
from ortsep.export.families.demucs.original import load
from ortsep.export.families.demucs.training import network_of, read_arguments
from ortsep.export.family import Choice
from ortsep.export.weights.random_weights import randomise
from ortsep.models.catalogue import find_card
from ortsep.models.spec import Chunks

pytestmark = pytest.mark.usefixtures("one_thread")

CARD = find_card("htdemucs")
STEMS = ["strings", "choir"]
OWN: dict[str, Any] = {"channels": 8, "depth": 4, "t_layers": 1, "t_heads": 2, "bottom_channels": 16}
KWARGS: dict[str, Any] = {**OWN, "sources": STEMS, "segment": Fraction(3, 10)}


def network(seed: int) -> HTDemucs:
    model = HTDemucs(**KWARGS)
    randomise(model, seed)
    return model.eval()


@pytest.fixture(scope="module")
def best() -> HTDemucs:
    return network(1)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**OWN, "sources": STEMS, "segment": "3/10"}))
    return path


def wrapped(best: HTDemucs) -> dict[str, Any]:
    """A file's content for each way of keeping the network ``best``."""
    state, last = best.state_dict(), network(2).state_dict()

    def under(prefix: str) -> dict[str, Any]:
        return {f"{prefix}{name}": value for name, value in state.items()}

    return {
        "bare": state,
        "module.": under("module."),
        "_orig_mod.": under("_orig_mod."),
        "model.": under("model."),
        "lightning": {"state_dict": {**under("model.module."), "loss.window": torch.ones(3)}, "epoch": 3},
        "dora": {"state": last, "best_state": state, "history": [{"loss": 1.0}], "optimizer": {"state": {}}},
        "averaged": {"state_dict": under("model."), "current_model_state": {f"model.{k}": v for k, v in last.items()}},
    }


def same(original: Any, model: HTDemucs) -> None:
    assert original.spec.stems == tuple(STEMS)
    built = original._full(0).state_dict()
    assert all(torch.equal(value, built[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["bare", "module.", "_orig_mod.", "model.", "lightning", "dora", "averaged"])
def test_whatever_a_framework_put_round_the_parameters(best: HTDemucs, config: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "own.th"
    torch.save(wrapped(best)[kind], path)
    original = load(CARD, Choice(path=path, config=config))
    same(original, best)
    assert original.spec.chunks is not None and original.spec.chunks.length == 13230
    assert original.spec.weights.licence.startswith("unknown")


def test_a_package_with_other_stems_than_the_cards(best: HTDemucs, tmp_path: Path, config: Path) -> None:
    path = tmp_path / "own.th"
    torch.save({"klass": HTDemucs, "args": (), "kwargs": KWARGS, "state": best.state_dict()}, path)
    original = load(CARD, Choice(path=path))
    same(original, best)
    mix = np.random.default_rng(0).standard_normal((2, 9000)).astype(np.float32)
    both, one = original.separate(mix), load(CARD, Choice(path=path, stems=("choir",)))
    assert both.shape == (2, 2, 9000) and one.spec.stems == ("choir",)
    np.testing.assert_allclose(one.separate(mix)[0], both[1], atol=1e-6)
    with pytest.raises(UsageError, match="has no stem vocals; it has strings, choir"):
        load(CARD, Choice(path=path, stems=("vocals",)))
    with pytest.raises(UsageError, match=r"brings its own configuration, so .* would change nothing"):
        load(CARD, Choice(path=path, config=config))


def test_demucs_own_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    data = {"model": "htdemucs", "htdemucs": OWN, "dset": {"sources": STEMS, "channels": 2, "samplerate": 44100}}
    path.write_text(yaml.safe_dump({**data, "model_segment": 0.3, "dummy": {"seed": 42}}))
    assert read_arguments(path) == {**OWN, "sources": STEMS, "audio_channels": 2, "samplerate": 44100, "segment": 0.3}
    path.write_text(yaml.safe_dump({**data, "dset": {**data["dset"], "segment": 11}}))  # type: ignore[dict-item]
    assert read_arguments(path)["segment"] == 44


@pytest.mark.parametrize("where", ["--config", "beside it", "hydra's"])
def test_a_checkpoint_by_its_own_path(best: HTDemucs, tmp_path: Path, where: str) -> None:
    """``ortsep export FILE [--config FILE]``: no name of the catalogue, separated as demucs does, not as MSST."""
    path = tmp_path / "checkpoint.th"
    torch.save(wrapped(best)["dora"], path)
    config = tmp_path / {"--config": "own.yaml", "beside it": "checkpoint.yaml", "hydra's": ".hydra/config.yaml"}[where]
    config.parent.mkdir(exist_ok=True)
    data = {"model": "htdemucs", "htdemucs": OWN, "dset": {"sources": STEMS, "channels": 2, "samplerate": 44100}}
    config.write_text(yaml.safe_dump({**data, "model_segment": 0.3}))
    choice = Choice(config=config if where == "--config" else None)
    original = open_named(str(path), choice)
    same(original, best)
    assert original.spec.chunks is not None and original.spec.chunks.join == Chunks(100).join
    if where == "hydra's":
        same(load(CARD, Choice(path=path)), best)
    config.write_text(yaml.safe_dump({**OWN, "segment": "3/10"}))
    if where == "--config":
        same(open_named(str(path), replace(choice, stems=tuple(STEMS))), best)
        with pytest.raises(WeightsError, match="doesn't name its stems"):
            open_named(str(path), choice)
        torch.save({"klass": HTDemucs, "args": (), "kwargs": KWARGS, "state": best.state_dict()}, path)
        with pytest.raises(UsageError, match=r"brings its own configuration, so .* would change nothing"):
            open_named(str(path), choice)


def test_the_class_is_known_by_its_parameters(best: HTDemucs) -> None:
    assert network_of(best.state_dict()) == "HTDemucs"
    assert network_of({"tencoder.0.conv.weight": torch.ones(1)}) == "HDemucs"
    assert network_of({"encoder.0.0.weight": torch.ones(1)}) == "Demucs"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {instruments: [a]}\nmodel: htdemucs", "has a section 'training' and is no configuration of demucs"),
        ("[1, 2]", "holds no arguments by name"),
        ("{", "neither yaml nor json"),
        ("sources: [vocals, vocals]", "stems that can't be files"),
        ("sources: ['a/b']", "stems that can't be files"),
        ("sources: [a]\nchannels: 9", "does not fit its HTDemucs .*; give the configuration that it was trained with"),
    ],
)
def test_configurations_that_do_not_do(best: HTDemucs, tmp_path: Path, text: str, words: str) -> None:
    torch.save(best.state_dict(), tmp_path / "own.th")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(WeightsError, match=words):
        load(CARD, Choice(path=tmp_path / "own.th", config=path))
    with pytest.raises(FileMissing, match="there is no configuration at"):
        load(CARD, Choice(path=tmp_path / "own.th", config=tmp_path / "nowhere.yaml"))
