"""drums_mini: the graph and the runtime against torch, and the bundled model against its checkpoint and real drums."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from ortsep import Separator
from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.exporter import write_export
from ortsep.export.families.drums_mini.original import load
from ortsep.export.family import Choice
from ortsep.models.catalogue import BUNDLED, find_card

Snr = Callable[[Any, Any], float]
STEMS = ("kick", "snare", "toms", "hihat", "cymbals")
CHECKPOINT = BUNDLED / "drums_mini" / "drums_mini.safetensors"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_graph(seed: int, snr: Snr) -> None:
    original = load(find_card("drums_mini"), Choice(seed=seed))
    ((_, model),) = original.graphs()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    for batch, frames in ((1, 1), (2, 7), (1, 300)):
        magnitude = np.abs(rng.standard_normal((batch, 2, 1025, frames)) * 20).astype(np.float32)
        masks = session.run(None, {"magnitude": magnitude})[0]
        assert snr(original.network(0, {"magnitude": magnitude})["masks"], masks) > 110
        assert np.allclose(masks.sum(axis=1), 1, atol=1e-5)


def test_masks_do_not_depend_on_the_level(snr: Snr) -> None:
    ((_, model),) = load(find_card("drums_mini"), Choice()).graphs()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    magnitude = np.abs(np.random.default_rng(2).standard_normal((1, 2, 1025, 60))).astype(np.float32)
    masks = session.run(None, {"magnitude": magnitude})[0]
    for factor in (1e-2, 50):
        quieter = session.run(None, {"magnitude": magnitude * np.float32(factor)})[0]
        assert snr(masks, quieter) > 80
    silent = session.run(None, {"magnitude": 0 * magnitude})[0]
    assert np.isfinite(silent).all()


@pytest.mark.parametrize("samples", [1025, 44100, 5 * 44100 + 17])
def test_whole_clips(samples: int, snr: Snr, tmp_path: Path) -> None:
    original = load(find_card("drums_mini"), Choice(seed=3))
    write_export(original, tmp_path / "model")
    mix = (np.random.default_rng(0).standard_normal((2, samples)) * 0.1).astype(np.float32)
    stems = Separator(tmp_path / "model").separate(mix, 44100)
    assert tuple(stems) == STEMS
    assert snr(original.separate(mix), np.stack(list(stems.values()))) > 110


def test_long_songs_are_joined_from_blocks(snr: Snr) -> None:
    """40 s in blocks of 15 s against one piece: what the LSTM forgets at the seams."""
    original = load(find_card("drums_mini"), Choice())
    rng = np.random.default_rng(0)
    n = 40 * 44100
    mix = np.zeros((2, n), np.float32)
    for at in range(0, n - 8000, 11025):
        mix[:, at : at + 8000] += (
            rng.standard_normal((2, 8000)) * np.exp(-np.arange(8000) / rng.uniform(200, 3000)) * 0.3
        )
    stems = np.stack(list(Separator(BUNDLED / "drums_mini").separate(mix, 44100).values()))
    assert snr(original.separate(mix), stems) > 30
    assert snr(mix, stems.sum(axis=0)) > 100


def test_the_bundled_graph_is_the_checkpoint(snr: Snr, tmp_path: Path) -> None:
    original = load(find_card("drums_mini"), Choice())
    write_export(original, tmp_path / "model")
    mix = (np.random.default_rng(1).standard_normal((2, 3 * 44100)) * 0.1).astype(np.float32)
    bundled = Separator(BUNDLED / "drums_mini")
    assert bundled.spec.weights == original.spec.weights and bundled.spec.validation
    ours, again = (s.separate(mix, 44100) for s in (bundled, Separator(tmp_path / "model")))
    assert snr(np.stack(list(again.values())), np.stack(list(ours.values()))) > 110


def test_real_drums_never_heard_in_training(shared_audio: Path) -> None:
    """SDR over the whole of drums5 (MuldjordKit), against docs/drums_mini.md's fixed bands and average."""
    folder = shared_audio / "multitrack" / "drums5"
    true = np.stack([soundfile.read(folder / f"{s}.flac", dtype="float32", always_2d=True)[0].T for s in STEMS])
    made = Separator(BUNDLED / "drums_mini").separate(true.sum(axis=0), 44100)
    figures = {}
    for k, name in enumerate(STEMS):
        error = np.sum((true[k] - made[name]).astype(np.float64) ** 2)
        figures[name] = 10 * np.log10(np.sum(true[k].astype(np.float64) ** 2) / error)
    reached = {"kick": 7.5, "snare": 8.3, "toms": 5.8, "hihat": 3.0, "cymbals": 8.3}
    assert all(figures[name] >= reached[name] for name in STEMS), figures
    assert np.mean(list(figures.values())) >= 6.5, figures


def test_other_files_are_refused(tmp_path: Path) -> None:
    card = find_card("drums_mini")
    state = load_file(CHECKPOINT)
    name = next(iter(state))
    broken = {
        "lacking": {k: v for k, v in state.items() if k != name},
        "foreign": {**state, "more": torch.zeros(3)},
        "shape": {**state, name: torch.zeros(3, 3)},
        "infinite": {**state, name: torch.full_like(state[name], torch.inf)},
    }
    for kind, held in broken.items():
        save_file(held, tmp_path / f"{kind}.safetensors")
        with pytest.raises(WeightsError, match="not finite" if kind == "infinite" else "not a checkpoint"):
            load(card, Choice(path=tmp_path / f"{kind}.safetensors"))
    (tmp_path / "text.safetensors").write_text("no")
    with pytest.raises(WeightsError):
        load(card, Choice(path=tmp_path / "text.safetensors"))
    with pytest.raises(UsageError, match="for kick alone"):
        load(card, Choice(stems=("kick",)))
