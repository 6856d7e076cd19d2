"""MDX23C, SCNet and MSST's Demucs from a checkpoint and its yaml to stems: against MSST's formula, written down again.

``utils.model_utils.demix`` with batch size 1, in float64, round the networks in float64. Exported as a user would.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from msst_oracle import checkout

from ortsep import Separator
from ortsep.base.errors import UsageError
from ortsep.drums import separate_drum_stems
from ortsep.export.exporter import export_model
from ortsep.export.families.mdx23c.architecture import Architecture as Mdx23c
from ortsep.export.families.mdx23c.architecture import random_state as mdx23c_state
from ortsep.export.families.mdx23c.network import Network as Mdx23cNetwork
from ortsep.export.families.mdx23c.original import from_checkpoint
from ortsep.export.families.scnet.architecture import Architecture as SCNet
from ortsep.export.families.scnet.architecture import random_state as scnet_state
from ortsep.export.families.scnet.network import Network as SCNetNetwork
from ortsep.export.family import Choice, load_original
from ortsep.export.validate import synthetic_song, validate_model
from ortsep.export.weights.frontdoor import open_checkpoint
from ortsep.models.catalogue import find_card

pytestmark = pytest.mark.usefixtures("one_thread")

Snr = Callable[[Any, Any], float]
Run = Callable[[torch.Tensor], torch.Tensor]
GATE = 100.0
DRUMS = Mdx23c(
    outputs=3, num_channels=8, growth=4, num_subbands=2, num_scales=2, n_fft=256, hop=64, dim_f=128, frames=64
)
SONGS = SCNet(sources=2, dims=(4, 8, 16), num_dplayer=2, nfft=512, hop_size=128, chunk=4500)


def msst(run: Run, mix: torch.Tensor, length: int, overlap: int, normalize: bool = False) -> torch.Tensor:
    """The song [2, N] in float64 to stems [S, 2, N]; ``run`` takes a chunk [2, length]."""
    if normalize:
        mono = mix.mean(0)
        level, spread = mono.mean(), mono.std(correction=0)
        return msst(run, (mix - level) / spread, length, overlap) * spread + level
    step, fade, samples = length // overlap, length // 10, mix.shape[1]
    border = length - step
    wide = samples > 2 * border
    if wide:
        mix = torch.nn.functional.pad(mix, (border, border), mode="reflect")
    plain = torch.ones(length, dtype=torch.float64)
    plain[:fade] = torch.linspace(0, 1, fade)
    plain[length - fade :] = torch.linspace(1, 0, fade)
    total, count, at = None, torch.zeros(mix.shape[1], dtype=torch.float64), 0
    while at < mix.shape[1]:
        part = mix[:, at : at + length]
        held = part.shape[1]
        mode = "reflect" if held > length // 2 else "constant"
        stems = run(torch.nn.functional.pad(part, (0, length - held), mode=mode))[..., :held]
        window = plain.clone()
        if at == 0:
            window[:fade] = 1
        elif at + step >= mix.shape[1]:
            window[length - fade :] = 1
        total = torch.zeros(*stems.shape[:-1], mix.shape[1], dtype=torch.float64) if total is None else total
        total[..., at : at + held] += stems * window[:held]
        count[at : at + held] += window[:held]
        at += step
    assert total is not None
    result = torch.nan_to_num(total / count)
    return result[..., border : border + samples] if wide else result


def spectral(network: Run, n_fft: int, hop: int, bins: int, *, hann: bool, zeros: Callable[[int], int]) -> Run:
    """A network from spectrum to spectra with torch's transforms round it, of a chunk [2, N]."""
    make = torch.hann_window if hann else torch.ones
    how = {"n_fft": n_fft, "hop_length": hop, "window": make(n_fft, dtype=torch.float64), "normalized": not hann}

    def run(chunk: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(chunk, (0, zeros(chunk.shape[1])))
        pairs = torch.view_as_real(torch.stft(padded, **how, return_complex=True)[:, :bins])
        with torch.inference_mode():
            out = network(pairs.permute(0, 3, 1, 2).reshape(1, 4, bins, -1))[0]
        out = torch.nn.functional.pad(out, (0, 0, 0, n_fft // 2 + 1 - bins))
        waves = out.reshape(-1, 2, *out.shape[2:]).movedim(1, -1).contiguous()
        stems = torch.istft(torch.view_as_complex(waves), **how)
        return stems.reshape(len(out), 2, -1)[..., : chunk.shape[1]]

    return run


def mdx23c(folder: Path, dim_f: int = 128) -> tuple[Path, Run, int]:
    arch = Mdx23c(**{**vars(DRUMS), "dim_f": dim_f})
    state = mdx23c_state(arch, 0)
    names = ("num_channels", "growth", "num_subbands", "num_scales", "num_blocks_per_scale", "bottleneck_factor")
    config = {
        "audio": {"n_fft": arch.n_fft, "hop_length": arch.hop, "dim_f": arch.dim_f, "chunk_size": arch.chunk},
        "model": {n: getattr(arch, n) for n in names} | {"act": "gelu", "norm": "InstanceNorm", "scale": [2, 2]},
        "training": {"instruments": ["kick", "snare", "hh"]},
        "inference": {"num_overlap": 4, "batch_size": 8},
    }
    network = Mdx23cNetwork(arch, state, torch.float64)
    run = spectral(network, arch.n_fft, arch.hop, arch.dim_f, hann=True, zeros=lambda samples: 0)
    return _saved(folder, state, config), run, arch.chunk


def scnet(folder: Path, normalize: bool = True) -> tuple[Path, Run, int]:
    state = scnet_state(SONGS, 0)
    lists = {n: list(getattr(SONGS, n)) for n in ("dims", "band_SR", "band_stride", "band_kernel", "conv_depths")}
    numbers = {n: getattr(SONGS, n) for n in ("compress", "conv_kernel", "num_dplayer", "expand", "nfft", "hop_size")}
    config = {
        "audio": {"chunk_size": SONGS.chunk},
        "model": {**lists, **numbers, "sources": ["a", "b"], "win_size": SONGS.nfft},
        "training": {"instruments": ["vocals", "other"]},
        "inference": {"num_overlap": 4, "normalize": normalize},
    }
    hop = SONGS.hop_size

    def zeros(samples: int) -> int:
        padding = hop - samples % hop
        return padding + hop if (samples + padding) // hop % 2 == 0 else padding

    network = SCNetNetwork(SONGS, state, torch.float64)
    return _saved(folder, state, config), spectral(network, SONGS.nfft, hop, 257, hann=False, zeros=zeros), SONGS.chunk


def _saved(folder: Path, state: dict[str, Any], config: dict[str, Any]) -> Path:
    torch.save({name: torch.from_numpy(array) for name, array in state.items()}, folder / "net.ckpt")
    (folder / "net.yaml").write_text(yaml.safe_dump(config))
    return folder / "net.ckpt"


def separated(checkpoint: Path, mix: Any) -> Any:
    """What a user gets: the checkpoint exported by its path, the song separated."""
    folder = checkpoint.parent / "exported"
    if not folder.exists():
        export_model(str(checkpoint), Choice(), folder)
    separator = Separator(folder, provider="cpu", threads=1)
    return np.stack(list(separator.separate(mix).values()))


def song(samples: int) -> Any:
    """[2, samples], with a trace of noise everywhere, since a norm scales silence up to full size."""
    mix = synthetic_song(44100, samples / 44100 + 0.1)[:, :samples].astype(np.float64)
    return (mix + 1e-3 * np.random.default_rng(0).standard_normal(mix.shape)).astype(np.float32)


LENGTHS = (17_501, 6_100, 4_000, 1_250, 300)
"""Chunks are 4032 and 4500 samples; songs of up to one and a half have no border."""
MODELS: dict[str, Any] = {
    "mdx23c": (mdx23c, {}, False),
    "mdx23c, fewer bins": (mdx23c, {"dim_f": 96}, False),
    "scnet": (scnet, {"normalize": False}, False),
    "scnet, normalised": (scnet, {}, True),
}


@pytest.mark.parametrize("name", MODELS)
def test_stems_are_those_of_msst(name: str, tmp_path: Path, snr: Snr) -> None:
    make, how, normalize = MODELS[name]
    checkpoint, run, length = make(tmp_path, **how)
    for samples in LENGTHS:
        mix = song(samples)
        theirs = msst(run, torch.from_numpy(mix).double(), length, 4, normalize)
        assert snr(theirs, separated(checkpoint, mix)) >= GATE, samples
    mono = np.repeat(song(8_000)[:1], 2, axis=0) * np.float32(1e-2)
    theirs = msst(run, torch.from_numpy(mono).double(), length, 4, normalize)
    assert snr(theirs, separated(checkpoint, mono)) >= GATE


@pytest.mark.parametrize("name", MODELS)
def test_silence_stays_finite(name: str, tmp_path: Path) -> None:
    make, how, _ = MODELS[name]
    checkpoint, _, _ = make(tmp_path, **how)
    stems = separated(checkpoint, np.zeros((2, 8_000), np.float32))
    assert np.isfinite(stems).all()


@pytest.mark.parametrize("make", [mdx23c, scnet])
def test_validate_with_the_code_of_msst(make: Any, tmp_path: Path) -> None:
    code = checkout()
    path, _, _ = make(tmp_path)
    export_model(str(path), Choice(), tmp_path / "exported")
    report = validate_model(tmp_path / "exported", choice=Choice(path=path), oracle=code, seconds=0.5)
    ends = [figure for figure in report.figures if figure.stage.startswith("end to end")]
    assert report.ok and ends and all(figure.db >= GATE and figure.against == "MSST's own code" for figure in ends)


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    path, _, _ = mdx23c(tmp_path)
    original = from_checkpoint(open_checkpoint(path), Choice())
    with pytest.raises(UsageError, match=r"is no checkout of MSST.*git clone"):
        original.beside(tmp_path)


def test_a_family_without_code_of_its_own_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="drums_mini has no oracle but its own package"):
        load_original(find_card("drums_mini"), Choice()).beside(tmp_path)


def test_drums_take_any_drum_model(tmp_path: Path) -> None:
    path, _, _ = mdx23c(tmp_path)
    export_model(str(path), Choice(), tmp_path / "exported")
    soundfile.write(tmp_path / "drums.wav", song(9_000).T, 44100)
    report = separate_drum_stems(tmp_path / "drums.wav", tmp_path / "out", model=tmp_path / "exported")
    assert list(report.stems) == ["kick", "snare", "hh"]
    assert sorted(file.name for file in (tmp_path / "out").glob("*.wav")) == ["hh.wav", "kick.wav", "snare.wav"]
    one = separate_drum_stems(tmp_path / "drums.wav", tmp_path / "one", ["kick"], model=tmp_path / "exported")
    assert list(one.stems) == ["kick"]
