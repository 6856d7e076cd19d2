"""HTDemucs and HDemucs of MSST: from a checkpoint and its yaml to stems, against MSST's formula in float64."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from msst_oracle import checkout, msst_module

from ortsep import Separator
from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.exporter import export_model
from ortsep.export.families.demucs.bag import DemucsOriginal
from ortsep.export.families.demucs.msst import MsstDemucs
from ortsep.export.families.demucs.original import from_checkpoint, load
from ortsep.export.families.demucs.subbands import SubbandHTDemucs
from ortsep.export.family import Choice
from ortsep.export.validate import synthetic_song
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.export.weights.random_weights import randomise
from ortsep.models.catalogue import catalogue, find_card
from ortsep.models.spec import Join, Normalization

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
RATE, STEMS = 8000, ["kick", "snare"]
HT = {"channels": 8, "dconv_mode": 3, "depth": 2, "t_layers": 3, "t_heads": 4, "bottom_channels": 32, "nfft": 512}
H = {"channels": 8, "depth": 5, "nfft": 1024, "hybrid_old": False}


def network(name: str, subbands: int = 1) -> torch.nn.Module:
    common: dict[str, Any] = {"sources": STEMS, "samplerate": RATE, "segment": 1}
    if name == "hdemucs":
        model: torch.nn.Module = HDemucs(**common, **H)
    else:
        folded = {"num_subbands": subbands} if subbands > 1 else {}
        model = (SubbandHTDemucs if folded else HTDemucs)(**common, **HT, **folded)
    randomise(model, seed=1)
    return model.eval()


def config(name: str, subbands: int = 1, **inference: Any) -> dict[str, Any]:
    own = {**H} if name == "hdemucs" else {**HT, "num_subbands": subbands, "wiener_iters": 0}
    training = {"segment": 1, "samplerate": RATE, "channels": 2, "instruments": STEMS, "target_instrument": None}
    return {"model": name, name: own, "training": training, "inference": {"num_overlap": 4, **inference}}


def saved(folder: Path, state: Any, settings: dict[str, Any] | None) -> Path:
    torch.save(state, folder / "net.th")
    if settings is not None:
        (folder / "net.yaml").write_text(yaml.safe_dump(settings))
    return folder / "net.th"


def msst(model: torch.nn.Module, mix: torch.Tensor, normalize: bool) -> torch.Tensor:
    """``demix`` of an htdemucs, in float64: chunks of a second every quarter, all alike."""
    if normalize:
        mono = mix.mean(0)
        return msst(model, (mix - mono.mean()) / mono.std(correction=0), False) * mono.std(correction=0) + mono.mean()
    total, count = torch.zeros(len(STEMS), *mix.shape, dtype=torch.float64), torch.zeros(mix.shape[1])
    for start in range(0, mix.shape[1], RATE // 4):
        part = mix[:, start : start + RATE]
        with torch.inference_mode():
            stems = model(torch.nn.functional.pad(part, (0, RATE - part.shape[1]))[None])[0]
        total[..., start : start + RATE] += stems[..., : part.shape[1]]
        count[start : start + RATE] += 1
    return total / count


CASES = {
    "htdemucs": ("htdemucs", 1, False),
    "normalised": ("htdemucs", 1, True),
    "subbands": ("htdemucs", 2, False),
    "hdemucs": ("hdemucs", 1, False),
}


@pytest.mark.parametrize("case", CASES)
def test_stems_are_those_of_msst(case: str, tmp_path: Path, snr: Snr) -> None:
    name, subbands, normalize = CASES[case]
    model = network(name, subbands)
    settings = config(name, subbands, normalize=normalize)
    export_model(str(saved(tmp_path, model.state_dict(), settings)), Choice(), tmp_path / "out")
    separator = Separator(tmp_path / "out", provider="cpu", threads=1)
    double = model.double()
    for samples in (20_003, 3_000):
        mix = synthetic_song(RATE, samples / RATE)
        theirs = msst(double, torch.from_numpy(mix).double(), normalize)
        assert snr(theirs, np.stack(list(separator.separate(mix).values()))) >= 100.0
    silent = np.stack(list(separator.separate(np.zeros((2, 9000), np.float32)).values()))
    assert np.isfinite(silent).all()


@pytest.mark.parametrize("case", ["htdemucs", "normalised", "subbands"])
def test_the_original_separates_by_the_same_formula(case: str, tmp_path: Path, snr: Snr) -> None:
    name, subbands, normalize = CASES[case]
    model = network(name, subbands)
    path = saved(tmp_path, model.state_dict(), config(name, subbands, normalize=normalize))
    original = from_checkpoint(open_checkpoint(path), Choice())
    mix = synthetic_song(RATE, 1.7)
    assert snr(msst(model.double(), torch.from_numpy(mix).double(), normalize), original.separate(mix)) >= 100.0


@pytest.mark.parametrize("case", ["htdemucs", "subbands"])
def test_the_original_with_the_code_of_msst(case: str, tmp_path: Path, snr: Snr) -> None:
    name, subbands, _ = CASES[case]
    path = saved(tmp_path, network(name, subbands).state_dict(), config(name, subbands))
    original = from_checkpoint(open_checkpoint(path), Choice())
    mix = synthetic_song(RATE, 1.7)
    beside = original.beside(checkout())
    assert beside.package == "MSST's own code" and snr(original.separate(mix), beside.separate(mix)) >= 100.0


def test_what_a_yaml_becomes(tmp_path: Path) -> None:
    path = saved(tmp_path, {"state": network("htdemucs").state_dict()}, config("htdemucs"))
    original = from_checkpoint(open_checkpoint(path), Choice(stems=("snare",)))
    assert isinstance(original, MsstDemucs)
    spec = original.spec
    assert spec.stems == ("snare",) and spec.content == "drums" and spec.normalization == Normalization()
    assert spec.chunks is not None and (spec.chunks.length, spec.chunks.parts) == (RATE, 4)
    assert spec.chunks.join == Join("boxcar") and spec.chunks.tail == "zeros" and not spec.chunks.max_shift


def test_a_package_without_a_yaml_is_separated_as_demucs_does(tmp_path: Path) -> None:
    model = network("htdemucs")
    kwargs = {"sources": STEMS, "samplerate": RATE, "segment": 1, **HT}
    held = {"klass": HTDemucs, "args": (), "kwargs": kwargs, "state": model.state_dict(), "training_args": {}}
    original = from_checkpoint(open_checkpoint(saved(tmp_path, held, None)), Choice())
    assert type(original) is DemucsOriginal and original.spec.content == "drums"
    assert original.spec.chunks is not None and original.spec.chunks.join == Join("triangle")
    assert original.spec.normalization.kind == "track" and original.spec.stems == ("kick", "snare")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown argument": ({"htdemucs": {**HT, "wide": 3}}, "no HTDemucs takes: wide"),
    "no segment": ({"training": {"samplerate": RATE, "instruments": STEMS}}, "nothing says the training.segment"),
    "no stems": ({"training": {"samplerate": RATE, "segment": 1}}, "no training.instruments"),
    "other sizes": ({"htdemucs": {**HT, "channels": 16}}, "does not fit its HTDemucs"),
    "deep": ({"htdemucs": {**HT, "depth": 99}}, "depth '99'"),
    "subbands": ({"htdemucs": {**HT, "num_subbands": 3}}, "3 subbands of 256 bins"),
    "v3": ({"model": "demucs", "demucs": {}}, "describes demucs"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    changes, message = BAD[name]
    path = saved(tmp_path, network("htdemucs").state_dict(), {**config("htdemucs"), **changes})
    with pytest.raises(WeightsError, match=message):
        from_checkpoint(open_checkpoint(path), Choice())


def test_bare_parameters_without_a_yaml(tmp_path: Path) -> None:
    path = saved(tmp_path, network("htdemucs").state_dict(), None)
    with pytest.raises(WeightsError, match=r"without their configuration; give the yaml.*--config"):
        from_checkpoint(open_checkpoint(path), Choice())


@pytest.mark.parametrize("name", [name for name, card in catalogue().items() if "yaml" in card.arguments])
def test_the_cards(name: str) -> None:
    card = find_card(name)
    original = load(card, Choice(seed=0))
    assert original.spec.stems == card.stems and original.spec.parameters == card.parameters
    assert original.spec.content == ("drums" if "kick" in card.stems else "music")
    with pytest.raises(UsageError, match="has no stem piano"):
        load(card, Choice(seed=0, stems=("piano",)))


def test_subbands_are_those_of_msst(snr: Snr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", SimpleNamespace(OmegaConf=None))
    monkeypatch.setitem(sys.modules, "openunmix.filtering", SimpleNamespace(wiener=None))
    theirs = msst_module("models/demucs4ht.py", "demucs4ht").HTDemucs(
        sources=STEMS, samplerate=RATE, segment=1, **HT, num_subbands=2
    )
    ours = network("htdemucs", 2).double()
    theirs.load_state_dict(ours.state_dict())
    mix = torch.from_numpy(synthetic_song(RATE, 1.0)).double()[None]
    with torch.inference_mode():
        assert snr(theirs.double().eval()(mix), ours(mix)) >= 200.0
