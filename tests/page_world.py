"""The folder that the pages' commands are typed in: what a reader has there, small.

Songs are two seconds of real music where that is at hand, else of tones and noise. Models have the names, the stems and
the rates of the pages' own; their networks only scale the mixture, or are a few weights drawn at random.
"""

import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from foreign import files
from pages import Block
from places import DATA, ROOT
from roformer_cases import HOP, MEL, N_FFT

from ortsep.export.families.mdx23c import architecture as mdx23c
from ortsep.export.families.roformer import architecture as roformer
from ortsep.export.families.scnet import architecture as scnet
from ortsep.export.families.vr import architecture as vr
from ortsep.export.graph.files import attach_spec, save_model
from ortsep.models.catalogue import folder_name
from ortsep.models.spec import Chunks

RATE, SECONDS = 44100, 2
FOUR = ("drums", "bass", "other", "vocals")
MODELS = {
    "htdemucs": FOUR,
    "umxhq": FOUR,
    "spleeter:2stems": ("vocals", "accompaniment"),
    "mdx23c:drumsep": ("kick", "snare", "toms", "hh", "ride", "crash"),
    "mel_roformer_kim": ("vocals", "other"),
    "bs_roformer_dereverb_8": ("noreverb", "reverb"),
    "UVR-DeNoise": ("noise", "no_noise"),
}
"""What stands in for a published model where a page runs one."""
Floats = npt.NDArray[np.float32]


def music() -> dict[str, Floats]:
    """[N, 2] of each of the four stems; they sum to the song."""
    real = Path(os.environ.get("ORTSEP_AUDIO") or ROOT.parent / "shared" / "audio") / "multitrack" / "song4"
    size = RATE * SECONDS
    if real.is_dir():
        return {name: soundfile.read(real / f"{name}.flac", size, RATE * 4, dtype="float32")[0] for name in FOUR}
    rng, t = np.random.default_rng(0), np.arange(size) / RATE
    tones = {"bass": 55.0, "other": 440.0, "vocals": 660.0}
    made = {name: 0.1 * np.sin(2 * np.pi * f * t)[:, None] * [1.0, 0.7] for name, f in tones.items()}
    made["drums"] = 0.2 * rng.standard_normal((size, 2)) * np.exp(-10 * (t % 0.5))[:, None]
    return {name: made[name].astype(np.float32) for name in FOUR}


def stand_in(home: Path, name: str, stems: Sequence[str]) -> None:
    """A model of this name in a home of models, whose k-th of S stems is the mixture times (k + 1) / S."""
    made: Any = runpy.run_path(str(DATA / "make_graphs.py"))
    content = "drums" if name == "mdx23c:drumsep" else "music"
    facts = {"name": name, "stems": tuple(stems), "sample_rate": RATE, "chunks": Chunks(RATE), "content": content}
    spec = replace(made["WAVEFORM"], **facts)
    folder = home / folder_name(name)
    folder.mkdir(parents=True)
    factors = [(k + 1) / len(stems) for k in range(len(stems))]
    save_model(attach_spec(made["waveform"](factors, RATE), spec), folder / f"{folder.name}.onnx")
    (folder / "stems.txt").write_text("".join(f"{stem}\n" for stem in stems))


def songs(place: Path) -> None:
    """Songs in the formats that the pages name, folders and lists of them, and true stems."""
    stems = music()
    mixture: Floats = sum(stems.values(), np.zeros_like(stems["bass"]))
    for name in ("song.wav", "song.flac", "song.mp3", "voice.wav", "drums.wav", "album/one.wav", "album/two.wav"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / name, stems["drums"] if name == "drums.wav" else mixture, RATE)
    (place / "song.f32").write_bytes(mixture.tobytes())
    for folder in ("true", "musdb18hq/test/one", "musdb18hq/test/two"):
        (place / folder).mkdir(parents=True)
        for name, wave in {**stems, "mixture": mixture}.items():
            soundfile.write(place / folder / f"{name}.wav", wave, RATE)
    (place / "songs.csv").write_text("path,id\nalbum/one.wav,1\nalbum/two.wav,2\n")
    if shutil.which("ffmpeg"):
        picture = ["-f", "lavfi", "-i", "color=black:s=64x64:r=5"]
        command = ["ffmpeg", "-v", "error", *picture, "-i", "song.wav", "-shortest", "film.mkv"]
        subprocess.run(command, cwd=place, check=True, stdin=subprocess.DEVNULL)


def foreign(place: Path) -> None:
    """Files of other programs: three MDX-Nets, one of them where UVR keeps it, an HTDemucs, a RoFormer."""
    files.mdx_net(place / "UVR_MDXNET_9482.onnx")
    files.mdx_net(place / "mine.onnx", seed=2)
    files.mdx_net(place / "odd.onnx", seed=3)
    files.mdx_net(place / "UVR-MDX-NET-Inst_HQ_3.onnx", dim_f=3072, seed=4)
    files.demucs(place / "htdemucs.onnx", "sevagh")
    files.roformer(place / "bs.onnx", stems=1)
    for name in ("UVR", "uvr"):
        folder = place.parent / "home" / name / "models" / "MDX_Net_Models"
        folder.mkdir(parents=True)
        shutil.copy(place / "UVR-MDX-NET-Inst_HQ_3.onnx", folder)


def own_network(place: Path) -> None:
    """The example of docs/own_network.md, as its page gives it."""
    text = (ROOT / "docs" / "own_network.md").read_text(encoding="utf-8")
    for kind, names in (("python", ("net.py", "my_net.py")), ("toml", ("net.toml",))):
        found = re.search(rf"```{kind}\n(.*?)```", text, re.DOTALL)
        assert found is not None
        for name in names:
            (place / name).write_text(found[1])


def prepared(root: Path) -> Path:
    """All of it below ``root``; gives the working folder."""
    place = root / "work"
    place.mkdir(parents=True)
    for name, stems in MODELS.items():
        stand_in(place / "models" / "exported", name, stems)
    songs(place)
    foreign(place)
    own_network(place)
    return place


def make_room(place: Path, command: str) -> None:
    """What stands in for a model leaves before that model is exported, as if it had not been there."""
    for name in MODELS:
        folder = place / "models" / "exported" / folder_name(name)
        if re.search(rf"export (MODEL=)?{name.removeprefix('mdx23c:')}\b", command):
            shutil.rmtree(folder, ignore_errors=True)


def checkpoints(place: Path, block: Block) -> None:
    """Files of weights that a block names, small and random, of the family that its page is about; lists in Parquet."""
    if "songs.parquet" in block.text:
        from pyarrow import parquet, table

        parquet.write_table(table({"path": ["album/one.wav", "album/two.wav"], "id": [1, 2]}), place / "songs.parquet")
    import torch
    import yaml

    from ortsep.export.families.vr.network import made_network

    family = {"docs/scnet.md": _scnet, "docs/mdx23c.md": _mdx23c}.get(block.page, _roformer)
    for name in ("model", "FILE"):
        if f"{name}.ckpt" in block.text:
            state, settings = family()
            torch.save({key: torch.from_numpy(array) for key, array in state.items()}, place / f"{name}.ckpt")
            (place / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    for name in re.findall(r"\S+\.pth\b", block.text):
        (place / name).parent.mkdir(exist_ok=True)
        shape = vr.Architecture("5.1", 8, 672, lstm=16) if name == "mine.pth" else vr.Architecture("5", 4, 672)
        torch.save(made_network(shape).state_dict(), place / name)


def _scnet() -> tuple[dict[str, Any], dict[str, Any]]:
    arch = scnet.Architecture(sources=2, dims=(4, 8, 16), num_dplayer=2, nfft=512, hop_size=128, chunk=128 * 20)
    lists = ("dims", "band_SR", "band_stride", "band_kernel", "conv_depths")
    numbers = ("compress", "conv_kernel", "num_dplayer", "expand", "nfft", "hop_size")
    model = {n: list(getattr(arch, n)) for n in lists} | {n: getattr(arch, n) for n in numbers}
    model |= {"sources": ["vocals", "other"], "audio_channels": 2, "win_size": 512, "normalized": True}
    return scnet.random_state(arch, 0), _settings(arch.chunk, {}, model)


def _mdx23c() -> tuple[dict[str, Any], dict[str, Any]]:
    sizes = {"num_channels": 12, "growth": 12, "num_subbands": 2, "num_scales": 2}
    arch = mdx23c.Architecture(outputs=2, **sizes, n_fft=256, hop=64, dim_f=128, frames=16)
    names = (*sizes, "num_blocks_per_scale", "bottleneck_factor", "act", "norm")
    audio = {"n_fft": arch.n_fft, "hop_length": arch.hop, "dim_f": arch.dim_f, "num_channels": 2}
    model = {name: getattr(arch, name) for name in names} | {"scale": list(arch.scale)}
    return mdx23c.random_state(arch, 0), _settings(arch.chunk, audio, model)


def _roformer() -> tuple[dict[str, Any], dict[str, Any]]:
    arch = replace(MEL, depth=1, stems=2)
    model = {name: getattr(arch, name) for name in ("dim", "depth", "heads", "dim_head")}
    model |= {"stereo": True, "num_stems": 2, "mask_estimator_depth": arch.mask_layers, "num_bands": len(arch.bands)}
    model |= {"stft_n_fft": N_FFT, "stft_win_length": N_FFT, "stft_hop_length": HOP, "sample_rate": RATE}
    return roformer.random_state(arch, 0), _settings(20 * HOP, {}, model)


def _settings(chunk: int, audio: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """A yaml as MSST has it."""
    return {
        "audio": {"chunk_size": chunk, "sample_rate": RATE, **audio},
        "model": model,
        "training": {"instruments": ["vocals", "other"], "target_instrument": None},
        "inference": {"num_overlap": 2, "batch_size": 4},
    }
