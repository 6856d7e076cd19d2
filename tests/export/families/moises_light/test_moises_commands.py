"""Moises-Light from the command line: a training script's checkpoint to stems, and what lies above its bandwidth."""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from ortsep.base.errors import WeightsError
from ortsep.cli import app
from ortsep.export.families.moises_light.architecture import of_card, random_state
from ortsep.models.catalogue import find_card

SMALL = "moises_light:paper_small"
RATE = 44100
Snr = Callable[[Any, Any], float]


def ortsep(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def trained(seed: int, sources: tuple[str, ...] = ()) -> Any:
    """The package's own network, as a training script has it in its hands."""
    from moises_light import MoisesLight, configs

    arch = of_card(find_card(SMALL))
    config = {**configs["paper_small"], **({"sources": list(sources)} if sources else {})}
    network = MoisesLight(**config)
    if not sources:
        state = {name: torch.from_numpy(array) for name, array in random_state(arch, seed).items()}
        network.load_state_dict(state, strict=False)
    return network


def lightning(network: Any) -> Any:
    """As Lightning's trainer saves a module that holds the network as ``self.model``."""
    settings = argparse.Namespace(lr=1e-3, root=Path("data"))
    return {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{k}": v for k, v in network.state_dict().items()},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(3.0), "dirpath": "runs"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": settings,
        "best": np.float64(7.5),
    }


def distributed(network: Any) -> Any:
    """As a script saves a network wrapped in DistributedDataParallel."""
    wrapped = {f"module.{k}": v for k, v in network.state_dict().items()}
    return {"model": wrapped, "optimizer": {"state": {}, "param_groups": []}, "epoch": 7}


def averaged(network: Any) -> Any:
    """As a script saves a network beside torch's own moving average of it, which is the one that counts."""
    ema = torch.optim.swa_utils.AveragedModel(network, use_buffers=True)
    ema.update_parameters(network)
    drifted = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in drifted.parameters():
            parameter.mul_(1.5)
    return {"model": drifted.state_dict(), "ema": ema.state_dict()}


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("song") / "song.wav"
    noise = np.random.default_rng(3).standard_normal((RATE // 2, 2)) * 0.1
    soundfile.write(path, noise.astype(np.float32), RATE, subtype="FLOAT")
    return path


def stems_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: soundfile.read(path, dtype="float64")[0].T for path in folder.rglob("*.wav")}


@pytest.mark.parametrize("layout", [lightning, distributed, averaged], ids=lambda f: f.__name__)
def test_a_checkpoint_as_training_left_it_separates_as_the_package(
    layout: Callable[[Any], Any], song: Path, tmp_path: Path, snr: Snr
) -> None:
    network = trained(1)
    torch.save(layout(network), tmp_path / "last.ckpt")
    made = ortsep("export", SMALL, "--weights", tmp_path / "last.ckpt", "-o", tmp_path / "model")
    assert made.exit_code == 0, made.output
    assert f"recognised {SMALL} of moises-light 0.1.4 and later" in made.stderr
    assert ("took the moving average 'ema/module.'" in made.stderr) == (layout is averaged)
    done = ortsep("run", tmp_path / "model", song, "-o", tmp_path / "out", "--provider", "cpu")
    assert done.exit_code == 0, done.output
    stems = stems_of(tmp_path / "out")
    for module in network.modules():
        if hasattr(module, "flash"):
            module.flash = False
    mix = torch.from_numpy(soundfile.read(song, dtype="float32")[0].T.copy())
    with torch.inference_mode():
        reference = network.eval()(mix[None])[0].numpy()
    for name, expected in zip(("vocals", "drums", "bass", "other"), reference, strict=True):
        assert snr(expected, stems[name]) >= 100.0


def test_a_network_of_one_stem_is_named_by_its_file_or_the_user(song: Path, tmp_path: Path) -> None:
    state = {"state_dict": {f"model.{k}": v for k, v in trained(0, ("drums",)).state_dict().items()}}
    torch.save(state, tmp_path / "drums_best.ckpt")
    torch.save(state, tmp_path / "best.ckpt")
    assert ortsep("export", SMALL, "--weights", tmp_path / "drums_best.ckpt", "-o", tmp_path / "a").exit_code == 0
    assert (tmp_path / "a" / "stems.txt").read_text() == "drums\n"
    unnamed = ortsep("export", SMALL, "--weights", tmp_path / "best.ckpt", "-o", tmp_path / "b")
    assert isinstance(unnamed.exception, WeightsError) and "--stems" in str(unnamed.exception)
    assert not (tmp_path / "b").exists()
    named = ortsep("export", SMALL, "--weights", tmp_path / "best.ckpt", "--stems", "kit", "-o", tmp_path / "b")
    assert named.exit_code == 0, named.output
    assert (tmp_path / "b" / "stems.txt").read_text() == "kit\n"


def test_averages_without_names_are_left_aside_and_said_to_be(tmp_path: Path) -> None:
    network = trained(2)
    shadow = [p.detach() * 2 for p in network.parameters()]
    torch.save({"model": network.state_dict(), "ema": {"decay": 0.99, "shadow_params": shadow}}, tmp_path / "m.pt")
    made = ortsep("export", SMALL, "--weights", tmp_path / "m.pt", "-o", tmp_path / "model")
    assert made.exit_code == 0, made.output
    assert "left aside the average 'ema', whose tensors have no names" in made.stderr


def test_a_whole_module_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save(trained(0), tmp_path / "module.pt")
    refused = ortsep("export", SMALL, "--weights", tmp_path / "module.pt", "-o", tmp_path / "model")
    assert isinstance(refused.exception, WeightsError)
    assert "asks for moises_light.moises_light.MoisesLight" in str(refused.exception)
    assert "save the state_dict()" in str(refused.exception)


def above(x: np.ndarray, hertz: float) -> np.ndarray:
    """The spectrum of [C, N] above a frequency, under a Blackman window, whose sidelobes don't reach over."""
    spectrum = np.fft.rfft(x * np.blackman(x.shape[-1]))
    return spectrum[:, np.fft.rfftfreq(x.shape[-1], 1 / RATE) > hertz]


def test_the_residual_gives_back_what_lies_above_the_bandwidth(song: Path, tmp_path: Path, snr: Snr) -> None:
    made = ortsep("export", SMALL, "--weights", "random", "-o", tmp_path / "model")
    assert made.exit_code == 0, made.output
    shown = json.loads(ortsep("inspect", tmp_path / "model", "--json").stdout)
    assert shown["bandwidth_hz"] == shown["spec"]["bandwidth"] == pytest.approx(14700.0)
    assert "bandwidth_hz: 14700" in ortsep("inspect", tmp_path / "model").stdout
    done = ortsep("run", tmp_path / "model", song, "--residual", "-o", tmp_path / "out", "--provider", "cpu")
    assert done.exit_code == 0, done.output
    stems = stems_of(tmp_path / "out")
    residual = stems.pop("residual")
    mixture = soundfile.read(song, dtype="float64")[0].T
    # A frame's window of 6144 samples spreads the last bin over a few of 7 Hz.
    limit = 14700.0 + 100
    there = above(mixture, limit)
    loudest = max(np.sum(np.abs(above(stem, limit)) ** 2) for stem in stems.values())
    assert 10 * np.log10(loudest / np.sum(np.abs(there) ** 2)) < -60
    assert snr(there, above(residual, limit)) > 60
    assert np.abs(sum(stems.values()) + residual - mixture).max() <= 1e-6 * max(np.abs(s).max() for s in stems.values())


def test_the_full_band_has_no_bandwidth_to_speak_of(tmp_path: Path) -> None:
    made = ortsep("export", "moises_light:fullband_small", "--weights", "random", "-o", tmp_path / "model")
    assert made.exit_code == 0, made.output
    assert json.loads(ortsep("inspect", tmp_path / "model", "--json").stdout)["bandwidth_hz"] == 22050
