"""The cards that there are, and cards that nobody should have written."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ortsep.base.errors import ModelError
from ortsep.models import catalogue as module
from ortsep.models.catalogue import catalogue, exported_home, find_card, folder_name, read_cards

GOOD = """
[common]
sample_rate = 44100
channels = 2
licence = "CC0"
redistributable = "yes"
[models.one]
title = "One"
stems = ["vocals", "other"]
parameters = 7
size_mb = 1
advice = "Take it."
aliases = ["uno"]
sources = [{ url = "https://example.org/one-0123abcd.th", sha256 = "0123abcd", size = 5 }]
arguments = { depth = 4 }
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(module, "CARDS", tmp_path)
    catalogue.cache_clear()
    yield tmp_path
    catalogue.cache_clear()


def test_the_shipped_cards() -> None:
    cards = catalogue()
    assert {"htdemucs", "htdemucs_ft", "htdemucs_6s", "hdemucs_mmi", "mdx", "mdx_extra"} <= cards.keys()
    for name, card in cards.items():
        assert name == card.name and find_card(name) is card
        assert all(find_card(alias) is card for alias in card.aliases)
        assert card.licence and card.advice and card.title
        assert (card.parameters and card.size_mb) or card.family == "mdx_net"  # UVR states neither
        assert not re.search(r"[/\\]|^\.", folder_name(name))


def test_demucs_weights_are_not_called_mit() -> None:
    for card in catalogue().values():
        if card.family == "demucs":
            assert card.redistributable is None and "does not cover" in card.licence


def test_a_card(cards: Path) -> None:
    (cards / "fam.toml").write_text(GOOD)
    card = find_card("uno")
    assert (card.name, card.family, card.stems, card.redistributable) == ("one", "fam", ("vocals", "other"), True)
    assert (card.sources[0].sha256, card.sources[0].size, card.arguments) == ("0123abcd", 5, {"depth": 4})


def test_an_unknown_name_gets_the_nearest(cards: Path) -> None:
    (cards / "fam.toml").write_text(GOOD)
    with pytest.raises(ModelError, match="did you mean one"):
        find_card("onee")
    with pytest.raises(ModelError, match="ortsep models"):
        find_card("zzzzzz")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["vocals", "other"]', '"vocals"'),
        ('["vocals", "other"]', "[]"),
        ('["vocals", "other"]', '["a", "a"]'),
        ('["vocals", "other"]', '["a", " "]'),
        ('["vocals", "other"]', "[1, 2]"),
        ('"yes"', '"maybe"'),
        ('"yes"', "[]"),
        ("44100", '"44100"'),
        ("channels = 2", "channels = -2"),
        ("parameters = 7", "parameters = 7.5"),
        ("parameters = 7", ""),
        ('advice = "Take it."', "advice = 3"),
        ('advice = "Take it."', 'advise = "Take it."'),
        ('["uno"]', '"uno"'),
        ('["uno"]', '["../uno"]'),
        ("models.one", 'models."../one"'),
        ("https://", "http://"),
        ('"0123abcd", size', '"0123ABCD", size'),
        ('"0123abcd", size', '"0123", size'),
        ("size = 5", 'size = "5"'),
        ("url = ", "link = "),
        ("sources = [{ url", "sources = 3 # [{ url"),
        ("{ depth = 4 }", "3"),
        ("[models.one]", "[[models]]"),
        ("[common]", "[[common]]"),
        ("[common]", "[common"),
        ("[models.one]", "[models]\none = 3\n[other]"),
    ],
)
def test_broken_cards(cards: Path, old: str, new: str) -> None:
    assert old in GOOD
    (cards / "fam.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ModelError, match="mend"):
        catalogue()


def test_names_are_unique_across_files(cards: Path) -> None:
    (cards / "a.toml").write_text(GOOD)
    (cards / "b.toml").write_text(GOOD.replace("models.one", "models.two"))
    with pytest.raises(ModelError, match="'uno'"):
        catalogue()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD)), cut=st.integers(0, 30), new=st.binary(max_size=8))
def test_fuzzed_cards_give_cards_or_an_error(tmp_path: Path, at: int, cut: int, new: bytes) -> None:
    path = tmp_path / "fam.toml"
    data = GOOD.encode()
    path.write_bytes(data[:at] + new + data[at + cut :])
    try:
        assert all(card.stems for card in read_cards(path))
    except ModelError as error:
        assert str(path) in str(error)


def test_a_missing_card_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        list(read_cards(tmp_path / "none.toml"))


def test_where_exports_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORTSEP_MODELS", raising=False)
    assert exported_home() != Path("models/exported")  # the user's own home of models
    (tmp_path / "models" / "exported").mkdir(parents=True)
    assert exported_home() == Path("models/exported") and folder_name("spleeter:2stems") == "spleeter-2stems"
    monkeypatch.setenv("ORTSEP_MODELS", "/x")
    assert exported_home() == Path("/x")
