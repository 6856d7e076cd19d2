"""Torch networks of one's own: the documented example as it stands, every domain, and what is refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import typer
from places import ROOT

from ortsep.base.errors import FileMissing, ModelError, UsageError, WeightsError
from ortsep.cli import app
from ortsep.commands.habits import own_network
from ortsep.export.exporter import choose_weights, export_model
from ortsep.export.optimize import optimize_file
from ortsep.export.simplify import Simplified, simplify
from ortsep.export.validate import validate_model
from ortsep.graphs.model import load_model
from ortsep.separator import Separator

NETS = """
import random

import torch
from torch import nn


class Waves(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 9, padding=4)

    def forward(self, mix):
        return self.conv(mix).reshape(mix.shape[0], 2, 2, mix.shape[2])


class Spectra(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x):
        return self.conv(x).reshape(x.shape[0], 2, 4, x.shape[2], x.shape[3])


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(2 * 129, 32, batch_first=True)
        self.leave = nn.Linear(32, 2 * 2 * 129)

    def forward(self, x):
        b, c, f, t = x.shape
        y, _ = self.gru(x.permute(0, 3, 1, 2).reshape(b, t, c * f))
        return torch.sigmoid(self.leave(y)).reshape(b, t, 2, c, f).permute(0, 2, 3, 4, 1)


class Frozen(Waves):
    def forward(self, mix):
        return super().forward(mix) * random.random()


class Judge(Waves):
    def forward(self, mix):
        out = super().forward(mix)
        return 2 * out if mix.abs().mean() > 1 else out


class Logs(Waves):
    def forward(self, mix):
        return torch.log(super().forward(mix))


class Numpy(Waves):
    def forward(self, mix):
        return super().forward(torch.from_numpy(2 * mix.numpy()))


class Bessel(Waves):
    def forward(self, mix):
        return super().forward(torch.special.bessel_j0(mix))


class Few(Waves):
    def forward(self, mix):
        return super().forward(mix)[:, :1]


def nothing():
    return 3


def broken():
    raise KeyError("inside")


READY = Waves()
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def exported(folder: Path, factory: str, *settings: str, weights: str | None = None, stems: str = "a,b") -> Any:
    name = own_network("", f"{folder / 'nets.py'}:{factory}", settings, simplify=False)
    choice = choose_weights(weights, None, tuple(stems.split(",")) if stems else ())
    return export_model(name, choice, folder / "out")


def test_the_documented_example_does_what_it_says(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "own_network.md").read_text(encoding="utf-8")
    code, settings = (re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "toml"))
    assert code and settings
    assert len([line for line in (code[1] + settings[1]).splitlines() if line.strip()]) <= 40
    (nets / "net.py").write_text(code[1])
    (nets / "net.toml").write_text(settings[1])
    monkeypatch.chdir(nets)
    name = own_network("", "net.py:build", [], simplify=False)
    made = export_model(name, choose_weights(None, Path("net.toml")), Path("two_stems"))
    assert made.spec.name == "two_stems" and made.spec.validation[0].db > 100 and made.spec.parameters > 9000
    report = validate_model("two_stems", seconds=2.0)  # finds the network again by itself
    assert report.ok and {f.stage.split(":")[0] for f in report.figures} >= {"transform", "graph"}
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (44100, 2)).astype(np.float32)
    stems = Separator("two_stems").separate(x, 44100)
    assert list(stems) == ["vocals", "rest"] and stems["vocals"].shape == x.shape


@pytest.mark.parametrize(
    ("factory", "settings"),
    [
        ("Waves", ["domain=waveform", "chunk=1.0"]),
        ("Waves", ["domain=waveform", "chunk=1.0", "free=true", "multiple=64"]),
        ("READY", ["domain=waveform", "chunk=1.0", "free=true"]),
        ("Spectra", ["domain=complex", "n_fft=256", "hop=64", "chunk=0.5", "sample_rate=8000"]),
        ("Spectra", ["domain=complex", "n_fft=256", "hop=64", "free=true", "multiple=8", "sample_rate=8000"]),
        ("Recurrent", ["domain=magnitude", "n_fft=256", "hop=64", "chunk=0.5", "free=true", "sample_rate=8000"]),
        ("Recurrent", ["domain=magnitude", "n_fft=256", "hop=64", "chunk=0.5", "sample_rate=8000"]),
    ],
)
def test_every_domain_is_what_torch_computes(nets: Path, factory: str, settings: list[str]) -> None:
    made = exported(nets, factory, *settings, weights="random:1")
    assert made.spec.validation[0].db > 100
    report = validate_model(nets / "out", seconds=2.0)
    assert report.ok, report
    rate = made.spec.sample_rate
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * rate, 2)).astype(np.float32)
    stems = Separator(nets / "out").separate(x, rate)
    assert all(np.isfinite(stem).all() and stem.shape == x.shape for stem in stems.values())


def test_a_factory_that_gives_other_weights_each_time_is_told(nets: Path) -> None:
    exported(nets, "Waves", "domain=waveform", "chunk=1.0")
    with pytest.raises(WeightsError, match="gives other weights than those that nets-Waves has; seed what"):
        validate_model(nets / "out", seconds=1.0)


def test_weights_are_loaded_and_belong_to_the_network(nets: Path) -> None:
    state = {"conv.weight": torch.zeros(4, 2, 9), "conv.bias": torch.tensor([0.0, 0.1, 0.2, 0.3])}
    torch.save({"state_dict": state}, nets / "own.pt")
    made = exported(nets, "Waves", "domain=waveform", "chunk=1.0", weights=str(nets / "own.pt"))
    assert made.spec.weights.source == "own.pt" and not made.spec.weights.random
    stems = Separator(load_model(nets / "out").folder).separate(np.zeros((44100, 2), np.float32), 44100)
    np.testing.assert_allclose(stems["b"][1000], [0.2, 0.3], atol=1e-6)
    torch.save({"conv.weight": torch.zeros(1)}, nets / "other.pt")
    with pytest.raises(WeightsError, match="is not of this network"):
        exported(nets, "Waves", "domain=waveform", weights=str(nets / "other.pt"))


@pytest.mark.parametrize(
    ("factory", "settings", "kind", "words"),
    [
        ("Waves", [], UsageError, "say what the network hears"),
        ("Waves", ["domain=time"], ModelError, "domain"),
        ("Waves", ["domain=waveform", "chunk=6e3085"], UsageError, "chunk = inf is not from 0.001 to 3600"),
        ("Waves", ["domain=complex", "hop=0"], UsageError, "hop = 0 is not from 1"),
        ("Waves", ["domain=magnitude", "overlap=inf"], UsageError, "overlap = inf is not from 0 to 0.99"),
        ("Waves", ["domain=waveform", "colour=red"], UsageError, "no setting 'colour'; the settings are domain,"),
        ("Waves", ["domain=complex", "n_fft=256", "hop=64", "chunk=0.5"], ModelError, "fails on spectrum"),
        ("Few", ["domain=waveform", "chunk=1.0"], ModelError, r"gives \(1, 1, 2, 44100\) .* are \(1, 2, 2, 44100\)"),
        ("Judge", ["domain=waveform", "chunk=1.0"], ModelError, "look for Python numbers, conditions"),
        ("Logs", ["domain=waveform", "chunk=1.0"], ModelError, "not finite for noise"),
        (
            "Numpy",
            ["domain=waveform", "chunk=0.1"],
            ModelError,
            "does not depend on what it hears",
        ),
        ("Bessel", ["domain=waveform", "chunk=0.1"], ModelError, "can't be exported .*special_bessel_j0"),
        ("Frozen", ["domain=waveform", "chunk=1.0"], ModelError, "frozen while it was traced"),
        ("nothing", ["domain=waveform"], UsageError, "gives a int, not a torch.nn.Module"),
        ("broken", ["domain=waveform"], ModelError, "KeyError: 'inside'"),
        ("missing", ["domain=waveform"], ModelError, "has no attribute 'missing'"),
    ],
)
def test_what_cannot_be_exported_is_told_in_one_sentence(
    nets: Path, factory: str, settings: list[str], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as told:
        exported(nets, factory, *settings)
    assert not {"\n", "\x1b"} & set(str(told.value)) and not (nets / "out").exists()


def test_no_stems_no_module_and_no_name(nets: Path) -> None:
    with pytest.raises(UsageError, match="name them in order with --stems"):
        exported(nets, "Waves", "domain=waveform", stems="")
    with pytest.raises(FileMissing, match="there is no module"):
        export_model(own_network("", "no.py:x", ["domain=waveform"], simplify=False), choose_weights(None), nets / "o")
    for name, source in (("", ""), ("htdemucs", "a.py:b")):
        with pytest.raises(UsageError, match="write one"):
            own_network(name, source, [], simplify=False)
    with pytest.raises(UsageError, match="simplifies any file"):
        own_network("htdemucs", "", [], simplify=True)


def test_settings_are_typed_for_a_network_and_refused_for_a_model(nets: Path) -> None:
    export = typer.main.get_command(app)
    told = ["--set", "domain=waveform", "-o", str(nets / "out"), "-q"]
    with pytest.raises(SystemExit) as left:
        export(["export", "--torch", f"{nets / 'nets.py'}:Waves", *told, "--set", "chunk=1.0", "--stems", "a,b"])
    assert left.value.code == 0 and load_model(nets / "out").spec.domain == "waveform"
    with pytest.raises(UsageError, match="domain means nothing to umxse"):
        export(["export", "umxse", "--weights", "random", *told])


def test_onnxsim_is_kept_only_where_it_gains(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxsim = pytest.importorskip("onnxsim")
    exported(nets, "Spectra", "domain=complex", "n_fft=256", "hop=64", "chunk=0.5", "sample_rate=8000")
    source = next((nets / "out").glob("*.onnx"))
    model = onnx.load(str(source))
    inputs = {"spectrum": np.random.default_rng(0).standard_normal((1, 4, 129, 62)).astype(np.float32)}
    doubled = onnx.ModelProto()
    doubled.CopyFrom(model)
    node = doubled.graph.node.add(op_type="Identity", input=["spectrum"], output=["same"], name="same")
    doubled.graph.node.remove(node)
    for each in doubled.graph.node:
        each.input[:] = ["same" if name == "spectrum" else name for name in each.input]
    doubled.graph.node.insert(0, onnx.helper.make_node("Identity", ["spectrum"], ["same"], name="same"))
    from ortsep.export import simplify as module

    ratio = [0.9]
    monkeypatch.setattr(module, "measure_time", lambda *_: type("T", (), {"ratio": ratio[0]}))
    made, found = simplify(doubled, inputs, gate=90.0)
    assert found.kept and found.after < found.before and len(made.graph.node) == found.after and found.db > 90
    ratio[0] = 1.5
    assert simplify(doubled, inputs, gate=90.0)[0] is doubled
    ratio[0] = 0.5
    assert not simplify(made, inputs, gate=90.0)[1].kept  # the same operators: what seems faster is chance
    wrong = onnx.load(str(source))
    weights = next(t for t in wrong.graph.initializer if len(t.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) * 1.01, weights.name))
    monkeypatch.setattr(onnxsim, "simplify", lambda _: (wrong, True))
    kept, found = simplify(doubled, inputs, gate=90.0)
    assert kept is doubled and not found.kept and found.db < 50

    def fails(_: Any) -> Any:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnxsim, "simplify", fails)
    said: list[str] = []
    assert simplify(doubled, inputs, gate=90.0, say=said.append)[0] is doubled and "no such operator" in said[0]


def test_optimize_tells_what_onnxsim_did(nets: Path) -> None:
    pytest.importorskip("onnxsim")
    exported(nets, "Waves", "domain=waveform", "chunk=1.0")
    source = next((nets / "out").glob("*.onnx"))
    made = optimize_file(source, nets / "fast.onnx", simplified=True, runs=1)
    assert isinstance(made.onnxsim, Simplified) and made.onnxsim.db > 90
