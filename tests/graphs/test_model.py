import os
import shutil
from pathlib import Path

import pytest
from places import GRAPHS

from ortsep.base.errors import FileMissing, ModelError, ProviderError, UsageError
from ortsep.graphs.model import find_model, load_model
from ortsep.graphs.providers import choose_provider
from ortsep.graphs.session import Session
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY


@pytest.fixture
def hybrid(tmp_path: Path) -> Path:
    shutil.copytree(GRAPHS / "hybrid", tmp_path / "hybrid")
    return tmp_path / "hybrid"


def test_a_file_a_folder_and_a_name_are_the_same_model(hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTSEP_MODELS", str(hybrid.parent))
    ways = [hybrid, hybrid / "hybrid.onnx", "hybrid", "hybrid.onnx"]
    models = [load_model(way) for way in ways]
    assert len({(m.spec, m.members) for m in models}) == 1


def test_a_bag_answers_to_the_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GRAPHS / "bag", tmp_path / "bag")
    monkeypatch.setenv("ORTSEP_MODELS", str(tmp_path))
    assert find_model("bag.onnx") == tmp_path / "bag"
    assert find_model(tmp_path / "bag" / "bag.onnx") == tmp_path / "bag"


def test_the_manifest_renames_stems(hybrid: Path) -> None:
    (hybrid / "stems.txt").write_text("Trommeln\nBass\nStimme\n", encoding="utf-8")
    assert load_model(hybrid).stems == ("Trommeln", "Bass", "Stimme")


def test_names_come_from_the_spec_without_a_manifest(hybrid: Path) -> None:
    (hybrid / "stems.txt").unlink()
    assert load_model(hybrid).stems == ("drums", "bass", "vocals")


def test_a_manifest_that_does_not_fit(hybrid: Path) -> None:
    (hybrid / "stems.txt").write_text("one\ntwo\n")
    with pytest.raises(ModelError, match=r"stems\.txt"):
        load_model(hybrid)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"this is no model at all, but prose", "not an ONNX model"),
        (os.urandom(5000), "ONNX|cut short"),
    ],
)
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_every_truncation_is_told(hybrid: Path) -> None:
    path = hybrid / "hybrid.onnx"
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            Session(load_model(path).file(load_model(path).members[0]), provider="cpu")


def test_no_spec_and_no_manifest_is_refused_with_the_fix(tmp_path: Path) -> None:
    shutil.copy(GRAPHS / "plain" / "plain.onnx", tmp_path)
    with pytest.raises(ModelError, match=r"no stems\.txt beside it; write one"):
        load_model(tmp_path / "plain.onnx")


def test_a_spec_of_a_newer_format(hybrid: Path) -> None:
    path = hybrid / "hybrid.onnx"
    data = path.read_bytes()
    assert data.count(b'{"format":1,') == 1
    path.write_bytes(data.replace(b'{"format":1,', b'{"format":9,'))
    with pytest.raises(ModelError, match=r"format 9 .* upgrade ortsep"):
        load_model(path)


def test_a_plain_graph_with_the_wrong_count_of_names(tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "plain", tmp_path / "plain")
    (tmp_path / "plain" / "stems.txt").write_text("one\n")
    with pytest.raises(ModelError, match=r"stems\.txt"):
        load_model(tmp_path / "plain")


def test_a_bag_that_lost_a_graph(tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "bag", tmp_path / "bag")
    (tmp_path / "bag" / "second.onnx").unlink()
    with pytest.raises(FileMissing, match=r"second\.onnx"):
        load_model(tmp_path / "bag")
    (tmp_path / "bag" / "first.onnx").rename(tmp_path / "bag" / "other.onnx")
    with pytest.raises(ModelError, match="renamed"):
        load_model(tmp_path / "bag" / "other.onnx")


def test_nothing_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileMissing, match="ortsep models lists"):
        load_model("nothing")
    with pytest.raises(FileMissing, match="ortsep export htdemucs"):
        load_model("htdemucs")
    with pytest.raises(FileMissing, match=r"holds no \.onnx"):
        load_model(tmp_path)


def test_metadata_is_read_without_the_graph() -> None:
    import onnxruntime

    path = GRAPHS / "complex" / "complex.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert read_metadata(path) == session.get_modelmeta().custom_metadata_map
    assert METADATA_KEY in read_metadata(path)


def test_an_unknown_provider_and_one_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    with pytest.raises(UsageError, match="choose auto, cpu"):
        choose_provider("tpu")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=r"cuda is not in the onnxruntime installed here .*pip install"):
        choose_provider("cuda")
    assert choose_provider("auto")[:2] == ("cpu", "")


class FallenBack:
    """Stands in for a session whose CUDA libraries did not load: ONNX Runtime then runs on CPU without a word."""

    def __init__(self, *args: object) -> None:
        pass

    def disable_fallback(self) -> None:
        pass

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_inputs(self) -> list[object]:
        return []

    get_outputs = get_inputs

    def get_modelmeta(self) -> object:
        return type("Meta", (), {"custom_metadata_map": {}})()


def test_a_provider_that_fell_back_is_an_error_by_name_and_told_with_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", FallenBack)
    path = GRAPHS / "waves" / "waves.onnx"
    with pytest.raises(ProviderError, match="cuda was asked for but cpu took"):
        Session(path, provider="cuda")
    assert Session(path, provider="auto").provider == "cpu"
