"""UVR's files in folders: found by name and by the key over their end, whatever they are called."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ortsep.base.errors import FileMissing, MissingDependency, OrtsepError
from ortsep.commands import make
from ortsep.commands.arguments import tell_apart
from ortsep.commands.models import models_command
from ortsep.graphs.library import find_checkpoint, loose_files
from ortsep.graphs.model import find_model, is_ready
from ortsep.models.catalogue import catalogue
from ortsep.models.contracts import mdx_net, read, vr
from ortsep.models.contracts.official import has_key, may_be, official_card
from ortsep.models.contracts.read import KEYED, file_key


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORTSEP_MODELS", str(tmp_path / "exported") + ":" + str(tmp_path / "UVR"))
    (tmp_path / "UVR" / "VR_Models").mkdir(parents=True)
    return tmp_path / "UVR" / "VR_Models"


def pth(path: Path, seed: int = 0) -> Path:
    """What is in a checkpoint matters to nobody who only looks for its key."""
    path.write_bytes(np.random.default_rng(seed).bytes(1000 + seed))
    return path


def given(monkeypatch: pytest.MonkeyPatch, name: str, file: Path) -> None:
    """Make a file the official one of a card: its key, and its size."""
    card, entries = catalogue()[name], vr.ENTRIES if file.suffix == ".pth" else mdx_net.ENTRIES
    entry = next(e for e in entries.values() if e.file == name)
    monkeypatch.setitem(entries, file_key(file), entry)  # type: ignore[arg-type]
    source = replace(card.sources[0], size=file.stat().st_size)
    arguments = {**card.arguments, "key": file_key(file)}
    monkeypatch.setitem(catalogue(), name, replace(card, sources=(source,), arguments=arguments))


def test_a_checkpoint_is_found_by_name_and_by_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, renamed, other = (pth(home / f"{name}.pth", k) for k, name in enumerate(("UVR-DeNoise", "renamed", "mine")))
    given(monkeypatch, "7_HP2-UVR", renamed)
    homes = [home.parent]
    assert find_checkpoint("UVR-DeNoise", homes) == called
    assert find_checkpoint("7_HP2-UVR", homes) == find_checkpoint("renamed", homes) == renamed
    assert find_checkpoint("mine", homes) == other and find_checkpoint("1_HP-UVR", homes) is None
    found = {one.path.stem: one for one in loose_files(homes)}
    assert (found["UVR-DeNoise"].card, found["renamed"].card, found["mine"].card) == ("UVR-DeNoise", "7_HP2-UVR", "")
    assert found["renamed"].stems == ("instrumental", "vocals") and found["renamed"].checkpoint
    assert "it is a checkpoint that no table has; ortsep export" in found["mine"].reason
    assert not is_ready("7_HP2-UVR")
    with pytest.raises(FileMissing, match=r"ortsep export 7_HP2-UVR --weights .*renamed\.pth"):
        find_model("7_HP2-UVR")
    for word in ("mine", str(other)):
        with pytest.raises(FileMissing, match=r"a checkpoint, which runs when it is exported; .*ortsep export .*mine"):
            find_model(word)
    assert tell_apart([str(other), "song.wav"], None).models == (str(other),)


def test_the_list_says_that_it_is_to_be_exported(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given(monkeypatch, "7_HP2-UVR", pth(home / "renamed.pth"))
    pth(home / "mine.pth", 2)
    assert models_command(None, None, everything=False, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[:1] == ["7_HP2-UVR"] and line.split()[-1] == "export" for line in lines)
    assert any("mine  can't run: it is a checkpoint that no table has" in line for line in lines)
    assert any(line.startswith("export   its weights are here") for line in lines)
    assert models_command(None, None, everything=False, as_json=True) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert rows["7_HP2-UVR"]["state"] == "export" and rows["7_HP2-UVR"]["weights"] == str(home / "renamed.pth")
    assert models_command("7_HP2-UVR", None, everything=False, as_json=False) == 0
    assert "exports it first from" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "called"),
    [("UVR-DeNoise", ("UVR-DeNoise", "UVR-DeNoise.pth")), ("7_HP2-UVR", ("7_HP2-UVR", "keyed.pth"))],
)
def test_running_it_exports_it_first(
    name: str, called: tuple[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the card's name, so that it is found from then on; other files by their own."""
    pth(home / "UVR-DeNoise.pth", 1)
    given(monkeypatch, "7_HP2-UVR", pth(home / "keyed.pth", 2))
    pth(home / "mine.pth", 3)
    asked: list[tuple[Any, ...]] = []

    def exported(*words: Any) -> None:
        asked.append(words)
        raise MissingDependency("", name="torch")

    monkeypatch.setattr(make, "_exported", exported)
    with pytest.raises(MissingDependency, match=rf"{name} is not exported .*its weights are .*{called[1]}\).*torch"):
        make.export_first(name, "bar", quiet=True)
    with pytest.raises(MissingDependency):
        make.export_first("keyed", "bar", quiet=True)
    assert [words[:2] for words in asked] == [(name, str(home / called[1])), (str(home / "keyed.pth"), None)]
    make.export_first("mine", "bar", quiet=True)  # whose bands nobody knows: who loads the model says so
    assert len(asked) == 2


def test_a_renamed_graph_is_found_by_its_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    from foreign import files

    file = files.mdx_net(home / "renamed.onnx", 3072, seed=4)
    assert not is_ready("Kim_Vocal_2")
    given(monkeypatch, "Kim_Vocal_2", file)
    assert find_model("Kim_Vocal_2") == file and is_ready("Kim_Vocal_2") and not is_ready("Kim_Vocal_1")
    card = official_card(file)
    assert card is not None and card.name == "Kim_Vocal_2"
    make.export_first("Kim_Vocal_2", "bar", quiet=True)  # nothing to fetch


def test_a_key_takes_ten_megabytes_of_reading_and_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, read_bytes, opened = tmp_path / "large.pth", [], 0
    with file.open("wb") as out:
        out.truncate(3 * KEYED)
    plain = Path.open

    def counting(self: Path, *words: Any, **more: Any) -> Any:
        nonlocal opened
        handle = plain(self, *words, **more)
        if self == file:
            opened += 1
            take = handle.read
            wrapped = type("Counting", (), {"__enter__": lambda s: s, "__exit__": lambda s, *_: handle.close()})()
            wrapped.seek = handle.seek
            wrapped.read = lambda n=-1: read_bytes.append(len(got := take(n))) or got
            return wrapped
        return handle

    monkeypatch.setattr(Path, "open", counting)
    read._key.cache_clear()
    first = file_key(file)
    assert file_key(file) == first and opened == 1 and sum(read_bytes) == KEYED
    card = catalogue()["UVR-DeNoise"]
    assert card.sources[0].size and not may_be(file, card) and not has_key(file, card) and opened == 1


def test_what_can_not_be_read_is_told_in_the_list_and_found_by_nobody(home: Path, monkeypatch: Any) -> None:
    given(monkeypatch, "7_HP2-UVR", pth(home / "a.pth"))

    def unreadable(path: Path) -> str:
        raise OrtsepError(f"{path} can't be read (so the test says)")

    monkeypatch.setattr("ortsep.models.contracts.official.file_key", unreadable)
    assert find_checkpoint("7_HP2-UVR", [home.parent]) is None
    assert "can't be read" in loose_files([home.parent])[0].reason
