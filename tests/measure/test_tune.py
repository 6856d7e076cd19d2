"""Tuning real, small models: what is tried, what is kept, and what becomes of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from places import GRAPHS
from typer.testing import CliRunner

import ortsep
from ortsep.base.decibels import snr
from ortsep.base.errors import FileMissing, ModelError, UsageError
from ortsep.cli import app
from ortsep.engine.network import Graphs
from ortsep.graphs import portable, providers, tuned
from ortsep.graphs.model import load_model
from ortsep.graphs.providers import choose_provider
from ortsep.graphs.session import Observer, Session
from ortsep.graphs.tuned import EXACT, Kept, Setting, machine, read_tuned, write_tuned
from ortsep.measure import tune as module
from ortsep.measure.paces import Paces, noise_for, seconds_for, subject
from ortsep.measure.race import Raced, Tried
from ortsep.measure.tune import candidates
from ortsep.models.parts import Part
from ortsep.separator import Separator

WAVES = GRAPHS / "waves" / "waves.onnx"
MIX = np.random.default_rng(0).standard_normal((2, 4000)).astype(np.float32)
CPU, OPENVINO = "CPUExecutionProvider", "OpenVINOExecutionProvider"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(setting: Setting, graph: Path = WAVES, ratio: float = 0.5, snr_db: float = 120.0) -> None:
    assert write_tuned(graph, providers.versions(), Kept(setting, ratio, snr_db))


class Options(Observer):
    """The options that a session was made with."""

    def opening(self, options: Any) -> None:
        self.given = options


def opened(**settings: Any) -> Any:
    seen = Options()
    Session(WAVES, observer=seen, **settings)
    return seen.given


def test_what_is_tried() -> None:
    spec = load_model(WAVES).spec
    made = candidates(spec, ["cpu", "openvino", "openvino-bf16"], portable=True, count=8, physical=8)
    assert made[:2] == [Setting("openvino", portable=True), Setting("openvino")], "and nothing below float32"
    assert [each.threads for each in made if each.threads] == [4], "ortsep's own are the 8 cores already"
    assert Setting(spinning=False) in made and Setting(arena=False) in made
    twice = candidates(spec, ["cpu"], portable=False, count=8, physical=4)
    assert [each.threads for each in twice if each.threads] == [8], "second threads of the cores"
    unknown = candidates(spec, ["cpu"], portable=False, count=8, physical=None)
    assert [each.threads for each in unknown if each.threads] == [8, 4]


def test_parts_and_padded_blocks_are_tried_as_they_run() -> None:
    """Both run with a thread each, several at a time; OpenVINO takes nothing of a part."""
    masks = load_model(GRAPHS / "masks").spec
    assert masks.blocks is not None
    parts = replace(masks, parts=(Part(("magnitude",), "heard"), Part(("magnitude", "heard"), masks.output)))
    assert candidates(parts, ["cpu", "openvino", "cuda"], portable=False, count=2, physical=2) == [
        Setting("cuda"),
        Setting(blocks=1),
        Setting(blocks=4),
        Setting(arena=False),
    ]
    padded = replace(masks, blocks=replace(masks.blocks, padded=True))
    assert candidates(padded, ["cpu"], portable=False, count=4, physical=4) == [
        Setting(blocks=4),
        Setting(blocks=1),
        Setting(arena=False),
    ]


@pytest.mark.parametrize("name", ["waves", "hybrid", "complex", "wiener", "masks", "plain", "bag", "bands", "ratio"])
def test_a_few_seconds_of_noise_fit_every_domain(name: str) -> None:
    model = load_model(GRAPHS / name)
    assert 0 < seconds_for(model.spec) <= 60
    assert noise_for(model.spec).shape[0] == model.spec.channels
    path = subject(model)
    assert len(load_model(path).members) == (1 if model.spec.chunks else len(model.members))


@pytest.mark.parametrize("setting", [Setting(), Setting(threads=1, spinning=False), Setting(arena=False, blocks=3)])
def test_a_child_with_a_setting_gives_what_ortsep_gives(setting: Setting, tmp_path: Path) -> None:
    side = Paces(WAVES, setting, tmp_path)
    try:
        given = side.first()
        assert side.run() > 0 and side.peak > 10e6
    finally:
        side.close()
    separator = Separator(WAVES)
    expected = separator.separate(noise_for(separator.spec))
    np.testing.assert_array_equal(given, np.stack(list(expected.values())))
    assert list(tmp_path.glob("*.npy")) == []


def test_auto_goes_by_it_and_nothing_else_does() -> None:
    assert opened().intra_op_num_threads == 0
    keep(Setting(threads=1, spinning=False, arena=False))
    given = opened()
    assert given.intra_op_num_threads == 1
    assert given.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert given.enable_cpu_mem_arena is False
    assert opened(threads=2).intra_op_num_threads == 2, "who names threads gets them"
    given = opened(provider="cpu")
    assert given.intra_op_num_threads == 0 and given.enable_cpu_mem_arena is True


def test_blocks_at_a_time_go_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.engine.network.cores", lambda: 4)
    model = load_model(WAVES)
    assert Graphs(model).blocks is None
    keep(Setting(blocks=3))
    assert Graphs(model).blocks == 3 and Graphs(model, provider="cpu").blocks is None
    masks = load_model(GRAPHS / "masks")
    assert masks.spec.blocks is not None
    padded = replace(masks, spec=replace(masks.spec, blocks=replace(masks.spec.blocks, padded=True)))
    assert Graphs(padded, provider=Setting(blocks=1), threads=4).abreast == 1
    assert Graphs(padded, provider=Setting(blocks=3), threads=4).abreast == 3


@pytest.mark.parametrize("name", ["masks", "ratio"])
def test_any_number_of_blocks_at_a_time_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortsep.engine.network.cores", lambda: 4)
    mix = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 9 * 32 * 64 + 77)).astype(np.float32)
    expected = Separator(GRAPHS / name, provider="cpu").separate(mix)
    for count in (1, 3):
        given = Separator(GRAPHS / name, provider=Setting(blocks=count)).separate(mix)
        assert all(snr(wave, given[stem]) >= 120 for stem, wave in expected.items())


def test_it_is_of_this_machine_and_this_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(Setting(threads=1), 0.5, 120.0)
    write_tuned(WAVES, "onnxruntime-1", kept)
    assert read_tuned(WAVES, lambda: "onnxruntime-1") == kept
    assert read_tuned(WAVES, lambda: "onnxruntime-2") is None
    monkeypatch.setattr(tuned, "machine", lambda: "another")
    assert read_tuned(WAVES, lambda: "onnxruntime-1") is None
    assert len(machine()) == 12


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"setting": {"provider": 1}, "ratio": 1, "snr_db": 120}', '{"setting": {"more": 1}}']
    + [f'{{"setting": {{"threads": {n}}}, "ratio": 1, "snr_db": 120}}' for n in ("0", "true", '"2"')]
    + [f'{{"setting": {{}}, "ratio": {n}, "snr_db": 120}}' for n in ("NaN", "[]", "-1")]
    + ['{"setting": {}, "ratio": 1, "snr_db": 99.9}', '{"setting": {}, "ratio": 1, "snr_db": NaN}'],
)
def test_what_is_damaged_or_not_equal_is_as_none(text: str, cache: Path) -> None:
    write_tuned(WAVES, "1", Kept(Setting(), 1.0, 120.0))
    (file,) = (cache / "doctor").glob("*.tuned.*")
    assert read_tuned(WAVES, lambda: "1") is not None
    file.write_text(text, encoding="utf-8")
    assert read_tuned(WAVES, lambda: "1") is None


def test_a_provider_that_is_gone_or_less_than_float32_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    keep(Setting("openvino"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert choose_provider("auto", WAVES).provider == "cpu"
    assert choose_provider("auto", GRAPHS / "plain" / "plain.onnx").provider == "cpu"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    chosen = choose_provider("auto", WAVES)
    assert (chosen.provider, chosen.setting) == ("openvino", Setting("openvino"))
    assert chosen.reason == "provider openvino: equal (120 dB) in 0.50 of the CPU's time, as ortsep doctor --tune found"
    keep(Setting("openvino-bf16"))
    assert choose_provider("auto", WAVES).provider == "cpu"


def test_a_portable_form_takes_the_graphs_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [OPENVINO, CPU])
    keep(Setting("openvino", portable=True))
    gone = choose_provider("auto", WAVES)
    assert gone.provider == "cpu" and "no longer in the cache; ortsep doctor MODEL --tune makes it again" in gone.reason
    form = portable.portable_path(WAVES)
    form.parent.mkdir(parents=True)
    shutil.copy(WAVES, form)
    os.utime(form, (1, 1))
    loaded, real = [], onnxruntime.InferenceSession

    def load(path: str, options: Any, providers: Sequence[Any]) -> Any:
        loaded.append(Path(path))
        session = real(path, options, [CPU])
        session.get_providers = lambda: [OPENVINO, CPU]
        return session

    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    session = Session(WAVES)
    assert loaded == [form] and session.path == WAVES and session.provider == "openvino"
    assert "a portable form of the graph" in session.reason
    assert form.stat().st_mtime > 1e9, "it was used, and goes last where room is made"
    assert Session(WAVES, provider="openvino") and loaded[-1] == WAVES, "by name the graph itself"


def test_forms_that_are_least_used_make_room(cache: Path) -> None:
    (cache / "portable").mkdir(parents=True)
    for k, name in enumerate(("a", "b", "c")):
        (cache / "portable" / f"{name}.onnx").write_bytes(b"x" * 100)
        os.utime(cache / "portable" / f"{name}.onnx", (10 - k, 10 - k))
    assert [path.stem for path in portable.forms()] == ["c", "b", "a"]
    portable.make_room(50, most=250)
    assert [path.stem for path in portable.forms()] == ["b", "a"]
    portable.make_room(1000, most=250)
    assert portable.forms() == {}


def raced(best: Setting, ratio: float = 0.5) -> Raced:
    tried = (Tried(best, ratio, 118.2), Tried(Setting(arena=False), 1.2, 999.0, "is slower"))
    return Raced(best, ratio, 118.2, 2.0, tried, (Setting(spinning=False),))


def test_the_command_keeps_it_and_says_what_it_gained(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = []

    def race(settings: Any, opening: Any, *, budget: float, **_: Any) -> Raced:
        budgets.append(budget)
        return raced(Setting(threads=2))

    monkeypatch.setattr(module, "race", race)
    done = CliRunner().invoke(app, ["doctor", str(WAVES), "--tune", "--budget", "7"])
    assert done.exit_code == 0, done.output
    assert budgets == [7.0]
    assert "auto means cpu, 2 threads for waves from now on: 0.50 of the time" in done.stdout
    assert f"equal to it (118 dB, {EXACT:.0f} dB are asked)" in done.stdout
    assert "no time to try cpu, no spinning: --budget gives more" in done.stdout
    assert opened().intra_op_num_threads == 2
    document = json.loads(CliRunner().invoke(app, ["doctor", str(WAVES), "--tune", "--json"]).stdout)
    assert document["found"]["best"] == asdict(Setting(threads=2)) and document["found"]["ratio"] == 0.5
    assert (document["kept"], document["gate"], document["notes"]) == (True, EXACT, [])
    assert Separator(WAVES).separate(MIX).keys() == {"drums", "vocals"}


def test_from_python_for_real() -> None:
    said: list[str] = []
    found = ortsep.tune(WAVES, budget=600, keep=False, doing=said.append)
    assert isinstance(found, ortsep.Tuned) and not found.kept and found.model == "waves"
    looked = {each.setting for each in found.found.tried} | set(found.found.untried)  # how far it comes is chance
    assert looked >= {Setting(spinning=False), Setting(arena=False)}
    assert all(each.snr_db == 999.0 for each in found.found.tried if each.snr_db is not None)
    assert "trying " in " ".join(said)
    assert read_tuned(WAVES, providers.versions) is None


def test_another_provider_has_to_be_equal_on_every_graph_of_a_bag(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(GRAPHS / "bag")
    assert len(model.members) > 1 and model.spec.chunks is not None
    looked = []

    class Side:
        def __init__(self, path: Path, setting: Setting, folder: Path) -> None:
            self.given = MIX * np.float32(1.0 if setting.provider == "cpu" else 1 + 1e-4)
            looked.append(path)

        def first(self) -> Any:
            return self.given

        def close(self) -> None:
            pass

    monkeypatch.setattr(module, "Paces", Side)
    monkeypatch.setattr(module, "race", lambda *_, **__: raced(Setting("cuda")))
    found = ortsep.tune(GRAPHS / "bag", keep=False).found
    assert (found.best, found.ratio) == (Setting(), 1.0)
    second = model.members[1].file
    assert found.tried[0].reason == f"is not equal on {second} (80 dB)"
    assert looked == [model.file(model.members[1])] * 2


@pytest.fixture
def slow_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """An environment in which a model takes a minute a run."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'apart' in sys.argv[1:2] or '-m' in sys.orig_argv and 'apart' in sys.orig_argv:\n"
        "    import time; time.sleep(60)\n"
    )
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


def test_ctrl_c_is_one_sentence_and_leaves_nothing(slow_child: dict[str, str], cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ortsep", "doctor", str(WAVES), "--tune"]
    env = {**slow_child, "TMPDIR": str(tmp_path)}
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".ortsep-tune*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130 and out == ""
    assert err == "ortsep: interrupted; nothing half-written was left\n"
    assert not list(tmp_path.glob(".ortsep-tune*")) and not list(cache.rglob("*.*"))


def test_a_model_that_does_not_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        ortsep.tune("no_such_model")
    (tmp_path / "broken").mkdir()
    for file in (GRAPHS / "waves").iterdir():
        shutil.copy(file, tmp_path / "broken" / file.name)
    path = tmp_path / "broken" / "waves.onnx"
    path.write_bytes(path.read_bytes().replace(b"Unsqueeze", b"Untwisted"))
    with pytest.raises(ModelError, match="does not run on the CPU"):
        ortsep.tune(path)


def test_the_command_needs_a_model() -> None:
    done = CliRunner().invoke(app, ["doctor", "--tune"])
    assert isinstance(done.exception, UsageError)
    assert "needs a model" in str(done.exception)
