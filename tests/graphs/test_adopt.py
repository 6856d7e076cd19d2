"""Adopting files: a spec beside them, their bytes untouched, and the same separation before and after."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
from foreign import files

from ortsep.base.errors import FileMissing, ModelError, UsageError
from ortsep.commands.adopt import read_wishes
from ortsep.commands.make import export_first
from ortsep.commands.models import models_command
from ortsep.graphs.adopt import adopt
from ortsep.graphs.library import loose_files, model_folders
from ortsep.graphs.model import find_model, is_ready, load_model
from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.mdx_net import ENTRIES
from ortsep.models.contracts.read import file_key
from ortsep.models.spec import from_json

WANTED = Wishes(settings={"n_fft": "6144", "primary": "Vocals", "compensate": "1.03"})


def test_a_file_gets_its_spec_and_keeps_its_bytes(tmp_path: Path) -> None:
    path = files.mdx_net(tmp_path / "mine.onnx")
    before = path.read_bytes()
    made = adopt(path, WANTED)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.onnx", "spec.json", "stems.txt"]
    assert (tmp_path / "stems.txt").read_text() == "vocals\ninstrumental\n"
    assert from_json((tmp_path / "spec.json").read_text()) == made.spec
    for way in (tmp_path, path):
        model = load_model(way)
        assert model.stems == ("vocals", "instrumental") and model.spec.stft == made.spec.stft
    (tmp_path / "stems.txt").write_text("Stimme\nRest\n")
    assert load_model(tmp_path).stems == ("Stimme", "Rest")


def test_into_a_folder_of_its_own(tmp_path: Path) -> None:
    path = files.demucs(tmp_path / "a.onnx", "openkara")
    adopt(path, None, tmp_path / "models" / "a")
    assert (tmp_path / "models" / "a" / "a.onnx").read_bytes() == path.read_bytes()
    assert not (tmp_path / "spec.json").exists()
    assert load_model(tmp_path / "models" / "a").spec.domain == "hybrid"


def test_beside_other_models_there_is_no_room(tmp_path: Path) -> None:
    path = files.demucs(tmp_path / "a.onnx", "sevagh")
    files.demucs(tmp_path / "b.onnx", "mixxx")
    with pytest.raises(UsageError, match=r"holds b\.onnx beside a\.onnx.*-o .*a"):
        adopt(path)
    assert not (tmp_path / "spec.json").exists()


def test_a_pair_and_a_bag_are_taken_together(tmp_path: Path) -> None:
    pair = [files.spleeter(tmp_path / f"{stem}.onnx", 1) for stem in ("vocals", "accompaniment")]
    adopt(pair[1], None, tmp_path / "out")
    assert [m.file for m in load_model(tmp_path / "out").members] == ["vocals.onnx", "accompaniment.onnx"]
    (tmp_path / "out" / "vocals.onnx").unlink()
    with pytest.raises(FileMissing, match=r"lacks vocals\.onnx of its 2 graphs; put them back"):
        load_model(tmp_path / "out")


def test_what_has_a_spec_is_left_alone(tmp_path: Path) -> None:
    from places import GRAPHS

    with pytest.raises(ModelError, match="carries an ortsep spec already"):
        adopt(GRAPHS / "hybrid" / "hybrid.onnx")


def test_a_spec_json_that_is_damaged(tmp_path: Path) -> None:
    path = files.demucs(tmp_path / "a.onnx", "sevagh")
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(ModelError, match=r"spec\.json"):
        load_model(path)
    (tmp_path / "spec.json").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"spec\.json can't be read"):
        load_model(path)


def test_a_file_over_2_gb(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(1 << 31)  # sparse: it takes no room
    for use in (adopt, load_model):
        with pytest.raises(ModelError, match=r"large\.onnx has 2\.1 GB, and nothing reads ONNX files over 2 GB; save"):
            use(path)


def test_a_spec_json_of_another_file_is_not_this_one_s(tmp_path: Path) -> None:
    adopt(files.demucs(tmp_path / "a.onnx", "sevagh"))
    (tmp_path / "a.onnx").unlink()
    assert load_model(files.demucs(tmp_path / "b.onnx", "mixxx")).spec.domain == "waveform"


def test_settings_as_typed() -> None:
    wishes = read_wishes("mdx-net", ["n_fft=7680", "primary = Vocals"], "a, b")
    assert wishes == Wishes("mdx-net", {"n_fft": "7680", "primary": "Vocals"}, ("a", "b"))
    for text in ("n_fft", "=3", "n_fft="):
        with pytest.raises(UsageError, match="is no setting; write --set n_fft=7680"):
            read_wishes("", [text], "")


def test_a_folder_of_uvr_s_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, home = tmp_path / "exported", tmp_path / "UVR"
    (home / "MDX_Net_Models").mkdir(parents=True)
    known = files.mdx_net(home / "MDX_Net_Models" / "renamed.onnx", 3072, seed=4)
    files.mdx_net(home / "MDX_Net_Models" / "unknown.onnx", 3072, seed=5)
    files.mdx_net(home / "Kim_Inst.onnx", 3072)
    monkeypatch.setitem(ENTRIES, file_key(known), ENTRIES["970b3f9492014d18fefeedfe4773cb42"])
    monkeypatch.setenv("ORTSEP_MODELS", f"{other}:{home}")
    found = {one.path.name: one for one in loose_files([other, home])}
    assert found["renamed.onnx"].stems == ("vocals", "instrumental")
    assert found["Kim_Inst.onnx"].stems == ("instrumental", "vocals")
    assert "--set n_fft" in found["unknown.onnx"].reason
    assert find_model("Kim_Inst") == home / "Kim_Inst.onnx" and find_model("renamed") == known
    assert model_folders([other, home]) == []
    assert is_ready("Kim_Inst") and is_ready("renamed") and not is_ready("Kim_Vocal_1")
    export_first("Kim_Inst", "bar", quiet=True)  # nothing to fetch: the file is there
    assert models_command(None, None, everything=False, as_json=True) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["Kim_Inst"]["state"] == "ready" and rows["Kim_Inst"]["exported"] == str(home / "Kim_Inst.onnx")
    assert rows["Kim_Vocal_1"]["state"] == "fetch" and "MDX_Net_Models" not in rows


def test_rewritten_files_are_ours_and_equal(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ortsep.export.rewrite import rewrite

    for name, path in {
        "mdx": files.mdx_net(tmp_path / "Kim_Inst.onnx", 3072),
        "openvino": files.demucs(tmp_path / "a.onnx", "openvino"),
        "named": files.named(tmp_path / "named.onnx", ["drums", "vocals"], 44100),
        "ft": files.demucs(tmp_path / "htdemucs_ft_bass.onnx", "mixxx"),
    }.items():
        made = rewrite(path, tmp_path / name)
        model = load_model(tmp_path / name)
        assert model.described and model.spec.tensors.names == () and model.stems == made.spec.names
        assert model.spec.validation[0].db >= 90
        mix = np.random.default_rng(0).normal(size=(2, 60_000)).astype(np.float32) * 0.1
        if name != "mdx":
            from ortsep.separator import Separator

            before, after = (Separator(way, provider="cpu").separate(mix, 44100) for way in (path, tmp_path / name))
            for stem in before:
                error = np.sum((before[stem] - after[stem]) ** 2) / np.sum(before[stem] ** 2)
                assert 10 * np.log10(max(error, 1e-30)) < -110


def test_the_pair_rewritten(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ortsep.export.rewrite import rewrite

    pair = [files.spleeter(tmp_path / f"{stem}.onnx", k) for k, stem in enumerate(("vocals", "accompaniment"))]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.onnx").write_bytes(b"of an earlier model")
    rewrite(pair[0], tmp_path / "out")
    assert not (tmp_path / "out" / "old.onnx").exists()
    model = load_model(tmp_path / "out")
    assert model.described and len(model.members) == 2 and model.spec.domain == "magnitude"


def test_the_command_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ortsep.commands.adopt import Adopting, adopt_command

    paths = [files.demucs(tmp_path / f"{make}.onnx", make) for make in ("sevagh", "mixxx")]
    assert adopt_command(paths, Wishes(), Adopting(tmp_path / "out", as_json=True)) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["contract"] for one in document["models"]] == ["demucs-hybrid", "demucs-waveform"]
    assert (tmp_path / "out" / "mixxx" / "spec.json").is_file()
    with pytest.raises(UsageError, match="say in which folder with -o"):
        adopt_command(paths[:1], Wishes(), Adopting(rewrite=True))


def test_an_optimised_file_carries_the_spec_of_the_given_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from ortsep.export.optimize import optimize_file

    path = files.named(tmp_path / "named.onnx", ["drums", "vocals"], 44100)
    optimize_file(path, tmp_path / "out" / "fast.onnx", runs=1)
    model = load_model(tmp_path / "out" / "fast.onnx")
    assert model.described and model.stems == ("drums", "vocals") and model.spec.tensors.names
