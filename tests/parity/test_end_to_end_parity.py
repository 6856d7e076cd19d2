"""Whole models, from checkpoint to stems: exported, validated in all stages, and run, against the original packages."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from spleeter_inputs import MODELS, excerpts, music, seeded

from ortsep.base.errors import UsageError
from ortsep.export.exporter import choose_weights, export_model, write_export
from ortsep.export.families.spleeter.original import Spleeter
from ortsep.export.families.spleeter.weights import expected_shapes
from ortsep.export.family import Choice, load_original
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.export.validate import validate_model
from ortsep.graphs.model import load_model
from ortsep.models.catalogue import find_card
from ortsep.separator import Separator

Snr = Callable[[Any, Any], float]
DATA = Path(__file__).parent / "data" / "spleeter_reference.npz"


@pytest.fixture(scope="module")
def htdemucs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model("htdemucs", choose_weights("random:1"), tmp_path_factory.mktemp("htdemucs") / "htdemucs").folder


@pytest.mark.long
def test_full_size_htdemucs_equals_its_original(htdemucs: Path) -> None:
    """STFT, graph in float64, and end to end on a signal with silence in the middle and at the end, stereo and mono."""
    report = validate_model(htdemucs, seconds=9.0)
    stages = {f.stage.split(":")[0] for f in report.figures}
    assert {"transform", "graph", "end to end"} <= stages
    assert report.ok, report.figures
    assert load_model(htdemucs).spec.validation == report.figures


@pytest.mark.long
@pytest.mark.parametrize("cut", [("songs/slow_motion_dream.mp3", 0, 11), ("songs/lets_go_fishin.ogg", 40, 30)])
def test_htdemucs_on_music(htdemucs: Path, cut: tuple[str, int, int], shared_audio: Path, snr: Snr) -> None:
    name, start, seconds = cut
    mix, rate = soundfile.read(shared_audio / name, dtype="float32", always_2d=True)
    mix = np.repeat(mix.T[:, rate * start :][:, : rate * seconds], 2 if mix.shape[1] == 1 else 1, axis=0).copy()
    if start:  # digital silence at both ends and in the middle
        mix[:, :rate] = mix[:, -rate:] = mix[:, 10 * rate : 13 * rate] = 0
    original = load_original(find_card("htdemucs"), Choice(seed=1))
    if rate != original.spec.sample_rate:
        pytest.skip(f"{name} is at {rate} Hz here, and the original resamples in another way")
    stems = np.stack(list(Separator(htdemucs).separate(mix, rate).values()))
    assert snr(original.separate(mix), stems) >= 90


SLOW = [pytest.param(name, marks=pytest.mark.long) for name in ("larsnet", "moises_light:paper_small")]
"""Their runtime is held to the original package, with smaller weights or less audio, in their own parity files."""


@pytest.mark.parametrize("name", ["umxse", "spleeter:2stems", *SLOW])
def test_a_model_of_each_family_equals_its_original(name: str, tmp_path: Path) -> None:
    folder = export_model(name, choose_weights("random:1"), tmp_path / "model").folder
    report = validate_model(folder, seconds=6.0)
    assert report.ok, report.figures


def test_validation_tells_a_wrong_graph(tmp_path: Path) -> None:
    """Weights of another seed under the same spec must not pass, nor a checkpoint of other stems."""
    good = export_model("umxse", choose_weights("random:1"), tmp_path / "good").folder
    other = export_model("umxse", choose_weights("random:2"), tmp_path / "other").folder
    spec = load_model(good).spec
    for member in spec.bag:
        save_model(attach_spec(onnx.load(str(other / member.file)), spec), good / member.file)
    report = validate_model(good, seconds=2.0)
    assert not report.ok
    failed = {f.stage.split(":")[0] for f in report.figures if f.db < f.gate}
    assert failed == {"graph", "end to end"}
    with pytest.raises(UsageError, match="speech"):
        validate_model(_renamed(good, tmp_path / "renamed"), seconds=1.0)


def _renamed(folder: Path, to: Path) -> Path:
    """The export under the name of another model of its family, whose stems are others."""
    to.mkdir()
    for file in folder.glob("*.onnx"):
        model = onnx.load(str(file))
        save_model(attach_spec(model, replace(load_model(folder).spec, name="umxhq")), to / file.name)
    return to


@pytest.mark.parametrize("model", ["2stems", "4stems", "5stems"])
def test_the_runtime_equals_spleeter_2_4_2(model: str, tmp_path: Path, snr: Snr) -> None:
    original = load_original(find_card(f"spleeter:{model}"), Choice(seed=0))
    assert isinstance(original, Spleeter)
    variables = {name: seeded(name, shape) for name, shape in expected_shapes(MODELS[model]).items()}
    write_export(replace(original, variables=variables), tmp_path / model)
    stems = np.stack(list(Separator(tmp_path / model).separate(music(), 44100).values()))
    assert snr(np.load(DATA)[model], excerpts(stems)) >= 85
