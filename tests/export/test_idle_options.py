"""Options of ``export`` are used or refused: none is taken and changes nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ortsep.base.errors import DownloadError, FileMissing, OrtsepError, UsageError
from ortsep.export.exporter import export_model
from ortsep.export.family import FAMILIES, Choice, load_original
from ortsep.models.catalogue import catalogue

CARDS = {family: next(card for card in catalogue().values() if card.family == family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", [Choice(seed=0), Choice(path=Path("nowhere.pth"))], ids=["random", "own"])
def test_a_configuration_is_used_or_refused(family: str, choice: Choice, tmp_path: Path) -> None:
    """Issue 19, 7: a path that doesn't exist gave status 0. Every family's random weights, and missing ones."""
    with pytest.raises((UsageError, FileMissing)):
        load_original(CARDS[family], replace(choice, config=tmp_path / "nowhere.json"))


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"spleeter"}))
@pytest.mark.parametrize("source", ["package", "copy.tar.gz"])
def test_a_source_is_used_or_refused(family: str, source: str) -> None:
    with pytest.raises(UsageError, match="come from their address alone; leave --source out"):
        load_original(CARDS[family], Choice(source=source))


@pytest.mark.parametrize("family", [family for family, card in CARDS.items() if card.sources])
def test_offline_fetches_nothing(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path))
    monkeypatch.setattr("ortsep.export.weights.download.open_url", lambda *_: pytest.fail("the net was asked"))
    with pytest.raises(DownloadError, match="--offline keeps from fetching"):
        load_original(CARDS[family], Choice(offline=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "url"}, "--source is for official weights, and own.ckpt names others"),
        ({"offline": True}, "--offline is for official weights, and own.ckpt names others"),
        ({"route": "direct"}, "--route is for models of the catalogue, and own.ckpt is exported in one way"),
        ({"seed": 0}, "own.ckpt is a checkpoint already; leave --weights out"),
        ({"path": Path("own.ckpt")}, "own.ckpt is a checkpoint already; leave --weights out"),
    ],
)
def test_a_checkpoint_takes_no_options_of_official_weights(options: dict[str, object], words: str) -> None:
    with pytest.raises(OrtsepError, match=words):
        export_model("own.ckpt", Choice(**options))  # type: ignore[arg-type]
