"""Configurations and pickles that spell billions of values in a few lines come back at once, with an error."""

import contextlib
import time
from pathlib import Path

import pytest
import torch

from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.package import bag_yaml, load_demucs_package
from ortsep.export.families.larsnet.original import _config
from ortsep.export.families.moises_light.original import read_config
from ortsep.export.weights.msst_yaml import read_yaml
from ortsep.export.weights.plain_yaml import load_plain_yaml

ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 20))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 9)}]}}\n" for k in range(1, 20))
BOMBS = {
    "aliases": f"{ALIASES}models: [*a19]\ninference_models: *a19\n",
    "merges": f"{MERGES}models: [*a19]\ninference_models: *a19\n",
    "one map": "a: &a {"
    + ", ".join(f"k{k}: 1" for k in range(4000))
    + "}\n"
    + "".join(f"b{k}: {{<<: *a}}\n" for k in range(2000))
    + "inference_models: {}\nmodels: []\n",
    "number": f"models: [{':'.join(['1'] * 30_000)}]\ninference_models: {{a: {':'.join(['1'] * 30_000)}}}\n",
    "itself": "models: &m [*m]\ninference_models: *m\n",
    "deep": "models: " + "[" * 300 + "]" * 300,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("read", [bag_yaml, _config, read_config, read_yaml, lambda p: load_plain_yaml(p.read_text())])
def test_a_bomb_is_refused_at_once(tmp_path: Path, bomb: str, read: object) -> None:
    path = tmp_path / "bag.yaml"
    path.write_text(BOMBS[bomb])
    began = time.monotonic()
    assert callable(read)
    if bomb == "merges":  # PyYAML 6.0.3 merges equal keys as it goes, older versions multiply them
        with contextlib.suppress(WeightsError, ValueError):
            read(path)
    else:
        with pytest.raises((WeightsError, ValueError, RecursionError)):
            read(path)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("text", ["a: !!int ''", "a: !!bool perhaps", "a: 2001-99-99", "a: !!float x"])
def test_values_that_cant_be_are_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):
        load_plain_yaml(text)


def test_what_configurations_hold_is_read() -> None:
    assert load_plain_yaml("a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, y: 3}") == {
        "a": {"x": 1, "y": [1, 2]},
        "b": {"x": 1, "y": 3},
    }


def test_a_pickle_that_names_one_list_a_billion_times(tmp_path: Path) -> None:
    bomb: list[object] = ["x"]
    for _ in range(12):
        bomb = [bomb] * 64
    path = tmp_path / "m.th"
    torch.save({"klass": "HTDemucs", "args": (), "kwargs": {"sources": bomb, "odd": {1: bomb}}, "state": {}}, path)
    began = time.monotonic()
    with pytest.raises(WeightsError):
        load_demucs_package(path)
    assert time.monotonic() - began < 20
