"""RoFormer checkpoints: what a yaml and its parameters become, what is refused, and runs of what is exported."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from roformer_cases import BS, HOP, MEL, N_FFT, noise
from typer.testing import CliRunner

from ortsep import Separator
from ortsep.base.errors import UsageError, WeightsError
from ortsep.cli import app
from ortsep.export.exporter import export_model
from ortsep.export.families.roformer import original
from ortsep.export.families.roformer.architecture import Architecture, random_state
from ortsep.export.families.roformer.original import from_checkpoint, load, opposite
from ortsep.export.family import Choice
from ortsep.export.msst import SpectralNetwork
from ortsep.export.validate import validate_model
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.models.catalogue import Source, catalogue, find_card
from ortsep.models.spec import Border, Derived, Join

Snr = Callable[[Any, Any], float]
CHUNK = 20 * HOP
ONE = replace(MEL, depth=1)
TWO = replace(BS, depth=1)


def config(arch: Architecture, **model: Any) -> dict[str, Any]:
    """As MSST's yamls are, their stale values under audio too."""
    bands: dict[str, Any] = {"num_bands": len(arch.bands), "sample_rate": 44100}
    if arch.kind == "bs":
        bands = {"freqs_per_bands": [stop - start for start, stop in arch.bands]}
    own = {
        **{name: getattr(arch, name) for name in ("dim", "depth", "heads", "dim_head")},
        "stereo": arch.channels == 2,
        "num_stems": arch.stems,
        "mask_estimator_depth": arch.mask_layers + (arch.kind == "bs"),
        "stft_n_fft": N_FFT,
        "stft_win_length": N_FFT,
        "stft_hop_length": HOP,
    }
    training = {"instruments": ["Vocals", "Band"], "target_instrument": "Vocals" if arch.stems == 1 else None}
    return {
        "audio": {"chunk_size": CHUNK, "hop_length": 441, "dim_t": 801, "dim_f": 1024, "sample_rate": 44100},
        "model": {**own, **bands, **model},
        "training": training,
        "inference": {"num_overlap": 4, "batch_size": 4, "dim_t": 256},
    }


def saved(folder: Path, arch: Architecture = ONE, settings: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A checkpoint and the yaml beside it."""
    tensors = {name: torch.from_numpy(array) for name, array in random_state(arch, 0).items()}
    torch.save({**tensors, **changes}, folder / "voice.ckpt")
    (folder / "voice.yaml").write_text(yaml.safe_dump(config(arch) if settings is None else settings))
    return folder / "voice.ckpt"


def opened(path: Path, choice: Choice | None = None) -> SpectralNetwork:
    return from_checkpoint(open_checkpoint(path), choice or Choice())


@pytest.mark.parametrize("arch", [ONE, TWO], ids=["mel", "bs"])
def test_sizes_are_read_off_the_parameters(arch: Architecture, tmp_path: Path) -> None:
    settings = config(arch)
    model = {name: settings["model"][name] for name in ("stft_n_fft", "stft_hop_length")}
    marks = ("num_bands", "dim", "depth") if arch.kind == "mel" else ("freqs_per_bands",)
    settings["model"] = {**model, **{name: config(arch)["model"][name] for name in marks}}
    spec = opened(saved(tmp_path, arch, settings)).spec
    assert spec.stft is not None and (spec.stft.n_fft, spec.stft.hop, spec.stft.bins) == (N_FFT, HOP, 257)
    assert spec.channels == 2 and spec.output == "stem_spectra"


def test_a_spec_is_demix(tmp_path: Path) -> None:
    spec = opened(saved(tmp_path)).spec
    chunks = spec.chunks
    assert chunks is not None
    assert (chunks.length, chunks.parts, chunks.overlap, chunks.tail) == (CHUNK, 4, 0.75, "reflect")
    assert chunks.join == Join("fade", CHUNK // 10)
    assert chunks.border == Border(fill="reflect", overlapping=True)
    assert (spec.stems, spec.derived) == (("Vocals",), (Derived("Band", ("Vocals",)),))
    assert spec.name == "voice"


@pytest.mark.parametrize("arch", [ONE, TWO], ids=["mel", "bs"])
def test_a_file_becomes_a_model_that_separates_as_msst(arch: Architecture, snr: Snr, tmp_path: Path) -> None:
    """Songs longer and shorter than a chunk, and than their borders; mono; levels; silence."""
    path, told = saved(tmp_path, arch), []
    made = export_model(str(path), Choice(), tmp_path / "out", say=told.append)
    assert "architecture" in told[0] and "voice.yaml" in told[0]
    assert (tmp_path / "out" / "stems.txt").read_text().split("\n")[:2] == ["Vocals", "Band"]
    reference = opened(path)
    separator = Separator(made.folder, provider="cpu", threads=1)
    for samples, level in ((3 * CHUNK + 77, 1.0), (CHUNK + 5, 1e-3), (CHUNK // 3, 1e-6), (2 * CHUNK, 1e-6)):
        mix = noise(2, samples, samples) * np.float32(0.1 * level)
        for ours, theirs in zip(separator.separate(mix).values(), reference.separate(mix), strict=True):
            assert snr(theirs, ours) >= 100.0
    mono = np.repeat(noise(1, 2 * CHUNK), 2, axis=0)
    assert snr(reference.separate(mono)[0], separator.separate(mono)["Vocals"]) >= 100.0
    assert not any(stem.any() for stem in separator.separate(np.zeros((2, 2 * CHUNK), np.float32)).values())


def test_three_models_one_behind_the_other_from_the_command_line(snr: Snr, tmp_path: Path) -> None:
    """A voice, its voice without reverb, the lead of that: each stem is what the models give one by one."""
    names, folders = (("Vocals", "Band"), ("noreverb", "reverb"), ("lead", "back")), []
    for seed, (arch, stems) in enumerate(zip((ONE, TWO, ONE), names, strict=True)):
        settings = config(arch)
        target = stems[0] if arch.stems == 1 else None
        settings["training"] = {"instruments": list(stems), "target_instrument": target}
        path = saved(tmp_path, arch, settings)
        torch.save({k: torch.from_numpy(v) for k, v in random_state(arch, seed).items()}, path)
        folders.append(export_model(str(path), Choice(), tmp_path / stems[0]).folder)
    mix = noise(2, 3 * CHUNK + 77) * np.float32(0.1)
    soundfile.write(tmp_path / "song.wav", mix.T, 44100, subtype="FLOAT")
    fed, expected = mix, {}
    for folder, (first, second) in zip(folders, names, strict=True):
        stems = Separator(folder, provider="cpu", threads=1).separate(fed)
        fed, expected[second] = stems[first], stems[second]
    words = [str(folders[0]), f"{folders[1]}@Vocals", f"{folders[2]}@noreverb", str(tmp_path / "song.wav")]
    done = CliRunner().invoke(app, ["run", *words, "-o", str(tmp_path / "stems"), "--template", "{stem}.{ext}"])
    assert done.exit_code == 0, done.output
    assert sorted(p.stem for p in (tmp_path / "stems").glob("*.wav")) == ["Band", "back", "lead", "reverb"]
    for name, stem in {**expected, "lead": fed}.items():
        written = soundfile.read(tmp_path / "stems" / f"{name}.wav", dtype="float32")[0].T
        assert snr(stem, written) >= 100.0, name


@pytest.mark.parametrize("arch", [ONE, TWO], ids=["mel", "bs"])
def test_validate_with_the_code_of_msst(arch: Architecture, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    code = Path(os.environ.get("ORTSEP_MSST") or "/nowhere")
    if not code.is_dir():
        pytest.skip("no checkout of MSST in $ORTSEP_MSST")
    pytest.importorskip("beartype")  # which its code imports
    path = saved(tmp_path, arch)
    export_model(str(path), Choice(), tmp_path / "out")
    report = validate_model(tmp_path / "out", choice=Choice(path=path), oracle=code, seconds=0.5)
    ends = [figure for figure in report.figures if figure.stage.startswith("end to end")]
    assert report.ok and ends and all(figure.db >= 90.0 and figure.against == "MSST's own code" for figure in ends)
    assert not [one for one in recwarn if "window" in str(one.message)]
    with pytest.raises(UsageError, match="is no checkout of MSST"):
        opened(path).beside(tmp_path)


def test_the_command_exports_and_validates_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.with_suffix(".yaml").rename(tmp_path / "other.yaml")
    runner, out = CliRunner(), str(tmp_path / "out")
    export = ["export", str(path), "--config", str(tmp_path / "other.yaml"), "--json", "-o", out]
    made = runner.invoke(app, export, catch_exceptions=False)
    assert made.exit_code == 0
    assert json.loads(made.stdout)["spec"]["family"] == "roformer"
    arguments = ["--weights", str(path), "--config", str(tmp_path / "other.yaml"), "--seconds", "0.3", "--json"]
    result = runner.invoke(app, ["validate", out, *arguments], catch_exceptions=False)
    document = json.loads(result.stdout)
    assert result.exit_code == 0 and document["ok"], document
    assert any(figure["stage"].startswith("graph: stem_spectra") for figure in document["figures"])


def test_half_floats_and_missing_frequencies(tmp_path: Path) -> None:
    tensors = {name: torch.from_numpy(array).half() for name, array in random_state(ONE, 0).items()}
    path = saved(tmp_path)
    torch.save({name: tensor for name, tensor in tensors.items() if "rotary" not in name}, path)
    checkpoint = open_checkpoint(path)
    assert ("as float16" in checkpoint.table[1][1]) and not any("rotary" in name for name in checkpoint.state)
    assert opened(path).spec.parameters > 0


def test_without_a_yaml_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(WeightsError, match=r"doesn't say its hop, chunk and stems' names.* --config"):
        opened(path)


def test_a_file_of_the_catalogue_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    settings = config(ONE)
    path.with_suffix(".yaml").unlink()
    card = replace(
        find_card("mel_roformer_kim"),
        sources=(Source("https://example.org/a.ckpt", open_checkpoint(path).sha256),),
        arguments={"config": settings},
    )
    monkeypatch.setattr(original, "catalogue", lambda: {card.name: card})
    spec = opened(path).spec
    assert (spec.name, spec.weights.licence, spec.names) == (card.name, card.licence, ("Vocals", "Band"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dim": 32}, r"does not fit .*dim 32 for 16"),
        ({"depth": 6}, "depth 6 for 1"),
        ({"num_stems": 2}, "num_stems 2 for 1"),
        ({"mask_estimator_depth": 1}, "mask_estimator_depth 1 for 2"),
        ({"stereo": False}, "stereo False for True"),
        ({"num_bands": 60}, "num_bands 60 for 12"),
        ({"sample_rate": 16000}, "inputs in its 12 bands|other mel bands"),
        ({"stft_n_fft": 2048, "stft_win_length": 2048}, "inputs in its 12 bands"),
        ({"stft_win_length": 256}, "a window shorter than its STFT"),
        ({"stft_hop_length": 0}, "stft_hop_length 0"),
        ({"stft_hop_length": 300}, "can't have a hop of 300"),
        ({"zero_dc": "yes"}, "zero_dc 'yes', not true or false"),
        ({"use_pope": True}, "of a later edition"),
    ],
)
def test_a_yaml_that_does_not_fit(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        opened(saved(tmp_path, ONE, config(ONE, **changes)))


def test_a_chunk_that_is_no_multiple_of_the_hop(tmp_path: Path) -> None:
    settings = config(ONE)
    settings["audio"]["chunk_size"] = CHUNK + 1
    with pytest.raises(WeightsError, match=rf"hops of 128 don't make up; write {CHUNK} there"):
        opened(saved(tmp_path, ONE, settings))
    settings["audio"] = {}
    with pytest.raises(WeightsError, match="doesn't say its chunk"):
        opened(saved(tmp_path, ONE, settings))


def test_more_stems_than_the_file_has(tmp_path: Path) -> None:
    settings = config(ONE)
    settings["training"]["target_instrument"] = None
    with pytest.raises(WeightsError, match=r"gives 1 stem and its configuration names 2 \(Vocals, Band\)"):
        opened(saved(tmp_path, ONE, settings))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"layers.0.0.layers.0.0.shared.bias": torch.ones(1)}, "shared.bias is unknown"),
        ({"layers.0.0.norm.gamma": torch.ones(3)}, r"norm.gamma is \[3\] for \[16\]"),
        ({"layers.0.0.layers.0.0.to_value_residual_mix.weight": torch.ones(1)}, "a RoFormer of a later edition"),
        ({"layers.0.0.layers.0.0.temperature": torch.ones(1)}, "linear attention"),
    ],
)
def test_parameters_of_another_edition(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=said):
        opened(saved(tmp_path, ONE, **changes))


def test_missing_parameters_are_listed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    held = torch.load(path, weights_only=True)
    del held["layers.0.1.norm.gamma"]
    torch.save(held, path)
    with pytest.raises(WeightsError, match=r"not a whole Mel-Band RoFormer.*layers.0.1.norm.gamma is missing"):
        opened(path)


def test_stems_that_are_wanted(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert opened(path, Choice(stems=("Vocals",))).spec.names == ("Vocals", "Band")
    assert opened(path, Choice(stems=("Vocals", "Band"))).spec.names == ("Vocals", "Band")
    with pytest.raises(UsageError, match="the mixture without Vocals"):
        opened(path, Choice(stems=("Band",)))
    with pytest.raises(UsageError, match="has no stem drums"):
        opened(path, Choice(stems=("drums",)))
    two = opened(saved(tmp_path, TWO), Choice(stems=("Band",)))
    assert (two.spec.names, two.separate(noise(2, CHUNK)).shape[0]) == (("Band",), 1)


def test_networks_past_two_gigabytes_are_stored_as_float16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(original, "LARGEST", 1000)
    made = export_model(str(saved(tmp_path)), Choice(), tmp_path / "out")
    assert made.spec.precision == "fp16-weights"
    assert "stored as float16" in " ".join(made.spec.notes)
    assert made.size < 4 * made.spec.parameters


def test_cards_load_with_random_weights_and_refuse_other_networks(tmp_path: Path) -> None:
    card = find_card("mel_roformer_kim")
    assert find_card("MelBandRoformer") is card
    path = saved(tmp_path)
    path.with_suffix(".yaml").unlink()
    with pytest.raises(WeightsError, match="bands"):
        load(card, Choice(path=path))
    with pytest.raises(WeightsError, match="can't be downloaded by a program"):
        load(find_card("bs_roformer_sw"), Choice())


def test_names_of_what_is_left() -> None:
    told = [opposite((stem,)) for stem in ("vocals", "Instrumental", "noreverb", "No Reverb", "Crowd")]
    assert told == ["instrumental", "Vocals", "no noreverb", "Reverb", "No Crowd"]
    assert opposite(("a", "b")) == ""


def test_every_card_names_a_task() -> None:
    assert all(card.task for card in catalogue().values() if card.family == "roformer")
