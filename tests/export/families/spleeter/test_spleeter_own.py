"""Spleeter models of one's own training: instruments, bins and activations as their json says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import write_bundle

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.exporter import write_export
from ortsep.export.families.spleeter.weights import random_variables
from ortsep.export.family import Choice, load_original
from ortsep.models.catalogue import find_card
from ortsep.separator import Separator

CARD = find_card("spleeter:2stems")
OWN: dict[str, Any] = {
    "sample_rate": 44100,
    "frame_length": 4096,
    "frame_step": 1024,
    "T": 512,
    "F": 128,
    "n_channels": 2,
    "instrument_list": ["strings", "choir", "organ"],
    "model": {"type": "unet.softmax_unet", "params": {"conv_activation": "ELU", "deconv_activation": "ELU"}},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    write_bundle(folder, random_variables(3, 7))
    return folder


def config(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**OWN, **changes}))
    return path


def test_own_instruments_bins_and_activations(checkpoint: Path, tmp_path: Path, snr: Any) -> None:
    pytest.importorskip("torch")
    original = load_original(CARD, Choice(path=checkpoint, config=config(tmp_path)))
    assert original.spec.stems == ("strings", "choir", "organ")
    assert original.spec.stft is not None and original.spec.stft.bins == 128
    made = write_export(original, tmp_path / "made")
    mix = np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32) * 0.1
    ours = np.stack(list(Separator(made.folder, provider="cpu").separate(mix).values()))
    assert snr(original.separate(mix), ours) > 100
    plain = load_original(CARD, Choice(path=checkpoint, config=config(tmp_path, model={"type": "unet.unet"})))
    assert snr(plain.separate(mix), ours) < 60


def test_blocks_of_another_length(checkpoint: Path, tmp_path: Path, snr: Any) -> None:
    """T frames a block: torch's network in float64 on the same blocks, and not what blocks of 512 would give."""
    pytest.importorskip("torch")
    original = load_original(CARD, Choice(path=checkpoint, config=config(tmp_path, T=64)))
    assert original.spec.blocks is not None and original.spec.blocks.frames == 64
    made = write_export(original, tmp_path / "made")
    mix = np.random.default_rng(0).standard_normal((2, 100_000)).astype(np.float32) * 0.1
    ours = np.stack(list(Separator(made.folder, provider="cpu").separate(mix).values()))
    assert snr(original.separate(mix), ours) > 100
    usual = load_original(CARD, Choice(path=checkpoint, config=config(tmp_path)))
    assert snr(usual.separate(mix), ours) < 60


def test_without_its_configuration_it_is_told_apart(checkpoint: Path) -> None:
    with pytest.raises(WeightsError, match="holds 3 networks and the model has 2 stems"):
        load_original(CARD, Choice(path=checkpoint))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"T": 100}, "has T 100, which is no multiple of 64"),
        ({"frame_step": 512}, "has frame_step 512, and only 1024"),
        ({"separation_exponent": 1}, "has separation_exponent 1, which is chosen when the model runs"),
        ({"instrument_list": []}, "no instrument_list"),
        ({"instrument_list": ["a", "a"]}, "two of one name"),
        ({"instrument_list": ["a/b"]}, "can't be files"),
        ({"F": 100}, "no multiple of 64"),
        ({"sample_rate": "x"}, "sample_rate x, which can't be"),
        ({"model": {"type": "blstm.blstm"}}, "a model of type 'blstm.blstm'"),
        ({"model": 3}, "a model of type 'None'"),
        ({"model": {"params": {"conv_activation": "Mish"}}}, "has the activation Mish"),
    ],
)
def test_configurations_that_do_not_do(checkpoint: Path, tmp_path: Path, changes: Any, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load_original(CARD, Choice(path=checkpoint, config=config(tmp_path, **changes)))


def test_a_configuration_that_is_none(checkpoint: Path, tmp_path: Path) -> None:
    for text, words in (("{", "is no JSON"), ("[]", "no settings by name"), ("[" * 100_000, "is no JSON")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(WeightsError, match=words):
            load_original(CARD, Choice(path=checkpoint, config=tmp_path / "bad.json"))
    with pytest.raises(FileMissing, match="there is no configuration at"):
        load_original(CARD, Choice(path=checkpoint, config=tmp_path / "none.json"))
    with pytest.raises(UsageError, match="need no configuration"):
        load_original(CARD, Choice(config=config(tmp_path)))


def test_exporting_needs_numpy_and_onnx_only(checkpoint: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "absent = 'torch yaml safetensors demucs tensorflow tf2onnx scipy'.split()\n"
        "sys.modules.update(dict.fromkeys(absent))\n"
        "from ortsep.__main__ import main\n"
        f"sys.argv = ['ortsep', 'export', 'spleeter:2stems', '--weights', {str(checkpoint)!r}, '--config',"
        f" {str(config(tmp_path))!r}, '-o', {str(tmp_path / 'made')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "stems.txt").read_text().split() == ["strings", "choir", "organ"]
