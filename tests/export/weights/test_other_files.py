"""A file that is sound and only another one is never said to be damaged, nor is anybody sent to download it again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from ortsep.base.errors import OrtsepError  # noqa: E402
from ortsep.export.exporter import choose_weights, export_model  # noqa: E402
from ortsep.export.families.open_unmix.graph import Shape, random_network  # noqa: E402

STATE = {"layer.weight": torch.ones(3, 4), "layer.bias": torch.zeros(3)}
UMX = random_network(Shape(bins=65, heard=40, channels=1, hidden=8), 0).state_dict()
MAKERS: dict[str, Callable[[Path], Any]] = {
    "another network": lambda path: torch.save(STATE, path),
    "another network as safetensors": lambda path: save_file(STATE, path.with_suffix(".safetensors")),
    "an Open-Unmix": lambda path: torch.save(UMX, path),
    "a list": lambda path: torch.save([torch.ones(3)], path),
    "no tensors": lambda path: torch.save({"epoch": 3}, path),
    "halves": lambda path: torch.save({name: tensor.half() for name, tensor in STATE.items()}, path),
    "another shape": lambda path: torch.save({**UMX, "fc1.weight": torch.ones(5, 5)}, path),
}


@pytest.mark.parametrize("name", [None, "htdemucs", "umxhq", "moises_light:paper_small", "drums_mini", "roformer"])
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_file_that_is_only_another_one(tmp_path: Path, kind: str, name: str | None) -> None:
    MAKERS[kind](tmp_path / "vocals.th")
    path = next(tmp_path.iterdir())
    name = "mel_band_roformer_kim" if name == "roformer" else name
    try:
        export_model(name or str(path), choose_weights(str(path) if name else None), tmp_path / "out")
    except OrtsepError as error:
        assert not re.search(r"again|damaged|complete copy|cut short", str(error)), error
