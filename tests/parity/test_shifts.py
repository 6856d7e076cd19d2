"""Which shifts demucs draws, and where ours are others: recorded from its own ``apply_model``."""

import random
from fractions import Fraction
from typing import Any

import pytest
import torch
from demucs.apply import BagOfModels, apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from ortsep.engine.chunks import make_plan
from ortsep.models.spec import Chunks, Member, ModelSpec, Stepped
from ortsep.options import Options
from ortsep.songs.notes import of_shifts

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL: dict[str, Any] = {"channels": 8, "samplerate": 8000, "segment": Fraction(1, 2)}
LENGTH = 9000


def model(kind: type) -> Any:
    torch.manual_seed(0)
    more = {"depth": 4, "t_layers": 1, "t_heads": 2, "bottom_channels": 16} if kind is HTDemucs else {}
    return kind(sources=["a", "b"], **SMALL, **more).eval()


def drawn(model: Any, shifts: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets of demucs's shifts, model after model."""
    found: list[int] = []
    real = random.randint

    def recorded(low: int, high: int) -> int:
        found.append(real(low, high))
        return found[-1]

    monkeypatch.setattr(random, "randint", recorded)
    random.seed(seed)
    with torch.no_grad():
        apply_model(model, torch.zeros(1, 2, LENGTH), shifts=shifts, device="cpu")
    return found


def ours(shifts: int, seed: int) -> list[int]:
    spread = 4000
    plan = make_plan(LENGTH, Chunks(4000, overlap=0.25, takes=Stepped(1), max_shift=spread), shifts=shifts, seed=seed)
    return [grid.start + spread for grid in plan.grids]


def spec(members: int = 1) -> ModelSpec:
    bag = tuple(Member(f"{k}.onnx", (1.0, 1.0), (0, 1)) for k in range(members)) if members > 1 else ()
    chunks = Chunks(4000, overlap=0.25, max_shift=4000)
    return ModelSpec("m", "demucs", ("a", "b"), 8000, 2, "waveform", "stems", chunks=chunks, bag=bag)


def test_hdemucs_draws_what_we_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(model(HDemucs), 3, 7, monkeypatch) == ours(3, 7)


def test_htdemucs_draws_others_after_the_first_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = drawn(model(HTDemucs), 3, 7, monkeypatch)
    assert theirs[0] == ours(3, 7)[0] and theirs[1:] != ours(3, 7)[1:]
    assert drawn(model(HTDemucs), 1, 8, monkeypatch) == ours(1, 8)
    assert "random.seed(7); the others may differ" in of_shifts(spec(), Options(shifts=3, seed=7))
    assert not of_shifts(spec(), Options(shifts=1, seed=7)) and not of_shifts(spec(), Options())


def test_a_bag_draws_for_each_model_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = drawn(BagOfModels([model(HDemucs), model(HDemucs)]), 1, 7, monkeypatch)
    assert theirs[0] == ours(1, 7)[0] != theirs[1]
    assert "first model's first shift" in of_shifts(spec(2), Options(shifts=1, seed=7))
