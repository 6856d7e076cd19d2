"""The families' contract: the table is whole, each module keeps it as a type checker sees it, no option is ignored."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from ortsep.base.errors import UsageError
from ortsep.export.family import FAMILIES, Choice, load_original, refuse_a_part, stereo, wanted_stems
from ortsep.models.catalogue import catalogue, find_card

STEMS = ("vocals", "drums", "bass")


def test_the_table_names_every_family_that_has_a_card_or_a_folder() -> None:
    assert {card.family for card in catalogue().values()} <= set(FAMILIES)
    assert {path.parent.name for path in (ROOT / "export" / "families").glob("*/original.py")} == set(FAMILIES)
    assert list(FAMILIES) == sorted(FAMILIES)


def checked(tmp_path: Path, modules: list[str]) -> subprocess.CompletedProcess[str]:
    """What mypy says of a list of families that these modules are in."""
    lines = [f"import {module}" for module in modules]
    program = "\n".join(
        [*lines, "from ortsep.export.family import Family", f"all: list[Family] = [{', '.join(modules)}]"]
    )
    file = tmp_path / "families.py"
    file.write_text(program)
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(file)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_every_module_is_a_family_to_a_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    result = checked(tmp_path, list(FAMILIES.values()))
    assert result.returncode == 0, result.stdout


def test_the_type_checker_tells_what_is_no_family(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    result = checked(tmp_path, ["ortsep.export.optimize", *FAMILIES.values()])
    assert result.returncode == 1 and 'expected "Family"' in result.stdout, result.stdout
    assert result.stdout.count("error:") == 1


def test_an_option_that_a_family_can_not_use_is_refused() -> None:
    with pytest.raises(UsageError, match=r"takes no configuration, so nowhere\.yaml would change nothing"):
        load_original(find_card("drums_mini"), Choice(config=Path("nowhere.yaml")))
    with pytest.raises(UsageError, match=r"by way of tensorflow, in one way only"):
        load_original(find_card("drums_mini"), Choice(route="tensorflow"))
    with pytest.raises(UsageError, match="by way of magic, only by way of direct, tensorflow"):
        load_original(find_card("spleeter:2stems"), Choice(route="magic"))


def test_wanted_stems_keep_the_models_order() -> None:
    assert wanted_stems(STEMS, (), "it") == STEMS
    assert wanted_stems(STEMS, ("bass", "vocals"), "it") == ("vocals", "bass")
    with pytest.raises(UsageError, match="it has no stem piano or tuba; it has vocals, drums, bass"):
        wanted_stems(STEMS, ("piano", "bass", "tuba"), "it")


def test_a_part_of_what_comes_whole_is_refused() -> None:
    card = replace(find_card("drums_mini"), stems=STEMS)
    refuse_a_part(card, (), "why")
    refuse_a_part(card, ("bass", "vocals", "drums"), "why")
    with pytest.raises(UsageError, match="can't be exported for bass alone, since why; export it whole"):
        refuse_a_part(card, ("bass",), "why")
    with pytest.raises(UsageError, match="has no stem tuba"):
        refuse_a_part(card, ("tuba",), "why")


def test_stereo_doubles_only_mono() -> None:
    mono = np.arange(3, dtype=np.float32)[None]
    np.testing.assert_array_equal(stereo(mono), np.array([[0, 1, 2], [0, 1, 2]], np.float32))
    both = np.zeros((2, 3), np.float32)
    assert stereo(both) is both
