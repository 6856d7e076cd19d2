"""LarsNet: kick, snare, toms, hi-hat and cymbals out of a drum track, one U-Net each.

Mezza, Giampiccolo, Bernardini, Sarti, "Toward deep drum source separation", Pattern Recognition Letters 183 (2024).
A model is a bag of one graph per stem, so that a single stem costs a single network.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from ortsep.base.arrays import F32, F64
from ortsep.base.errors import AudioError, DownloadError, FileMissing, UsageError, WeightsError
from ortsep.export.families.larsnet.graph import AUDIO, HALVINGS, UNet, build_graph, load_network
from ortsep.export.family import Choice, Complex, Float, Original, refuse_config, stereo, wanted_stems
from ortsep.export.weights.frontdoor import Checkpoint
from ortsep.export.weights.plain_yaml import load_plain_yaml
from ortsep.models.catalogue import Card, find_card, folder_name
from ortsep.models.spec import STFT, Blocks, Filter, Member, ModelSpec, Weights

Masks = Callable[[torch.Tensor], torch.Tensor]
"""From magnitudes [B, 2, F, T], float64, to a stem's masks of the same shape."""

ROUTES: tuple[str, ...] = ()
CONFIG = "LarsNet's config.yaml"
N_FFT = 4096
HOP = 1024
WIENER_EPS = 1e-7
ANCHORS = ("input_norm.weight",)
"""A parameter of every U-Net, by which it is found in what a framework's checkpoint holds."""
LAYOUT = "<stem>/pretrained_<stem>_unet.pth"
SETTINGS = "config.yaml"


@dataclass(frozen=True)
class LarsNet(Original):
    """A loaded model: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    networks: tuple[UNet, ...]

    @property
    def _size(self) -> tuple[int, int]:
        assert self.spec.stft and self.spec.blocks
        return self.spec.stft.bins, self.spec.blocks.frames

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The graphs have operators of the ONNX standard only, ``portable`` or not."""
        for member, network in zip(self.spec.bag, self.networks, strict=True):
            yield member.file, build_graph(network, self._size[1], f"{self.spec.name}:{Path(member.file).stem}")

    def transform(self, mix: F32, member: int = 0) -> Complex:
        result: Complex = stft(torch.from_numpy(mix).double())[:, : self._size[0]].numpy()
        return result

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        whole = torch.zeros(len(spectrum), N_FFT // 2 + 1, spectrum.shape[-1], dtype=torch.complex128)
        whole[:, : spectrum.shape[1]] = torch.from_numpy(spectrum)
        result: F32 = istft(whole, samples).float().numpy()
        return result

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        masks = self.double(member)(torch.from_numpy(inputs["magnitude"]).double())
        return {"masks": masks[:, None].numpy()}

    def double(self, member: int) -> Masks:
        """A member's network in float64."""
        network = UNet(self._size[0])
        network.load_state_dict(self.networks[member].state_dict())
        network.double().eval()

        def run(magnitude: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode():
                masks: torch.Tensor = network(magnitude)
            return masks

        return run

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first block, filled with zero frames where the mixture is shorter."""
        bins, frames = self._size
        magnitude = np.abs(self.transform(stereo(mix)[:, : frames * HOP + N_FFT]))[..., :frames]
        block = np.zeros((1, AUDIO, bins, frames), np.float32)
        block[0, ..., : magnitude.shape[-1]] = magnitude
        return {"magnitude": block}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """All blocks of a network in one batch, in float32, as the original does."""
        networks = [deepcopy(network).float().eval() for network in self.networks]

        def run(mix: F32) -> F32:
            with torch.inference_mode():
                waves: F32 = separate(stereo(mix), networks, *self._size, dtype=torch.float32, together=True)
            return waves

        return "LarsNet's networks, torch eager", run

    def separate(self, mix: F32) -> F32:
        """As the original by default, without the Wiener filter. Mono [1, N] becomes two equal channels: [S, 2, N]."""
        return self.separate_double(mix).astype(np.float32)

    def separate_double(self, mix: Float, alpha: float = 0.0) -> F64:
        """``separate`` in float64, for ``alpha`` > 0 with the alpha-Wiener filter of that exponent."""
        masks = [self.double(k) for k in range(len(self.networks))]
        waves: F64 = separate(stereo(mix), masks, *self._size, alpha=alpha)
        return waves


# -- the original's pipeline, apart from the runtime's code -----------------------------------------------------------


def separate(
    mix: Float,
    masks: Sequence[Masks],
    bins: int,
    frames: int,
    alpha: float = 0.0,
    dtype: torch.dtype = torch.float64,
    together: bool = False,
) -> Any:
    """LarsNet's pipeline in ``dtype``: [2, N] to [S, 2, N], a function for each stem in place of its network.

    ``alpha`` 0: mask times the mixture's STFT. Else the share of (mask * magnitude)^alpha in its sum over the given
    stems (larsnet.LarsNet.separate_wiener). Bins from ``bins`` up are silent. Raises AudioError for less than 2049
    samples, which the original can't reflect.
    """
    spectrum = stft(torch.from_numpy(np.ascontiguousarray(mix)).to(dtype))
    magnitude = spectrum.abs()
    count = spectrum.shape[-1]
    heard = torch.nn.functional.pad(magnitude[:, :bins], (0, -count % frames))
    blocks = torch.stack(heard.split(frames, -1))
    stems = []
    for mask in masks:
        values = torch.zeros_like(magnitude)
        made = mask(blocks) if together else [mask(block[None])[0] for block in blocks]
        values[:, :bins] = torch.cat(list(made), -1)[..., :count]
        stems.append(values)
    if alpha > 0:
        powers = [(values * magnitude) ** alpha for values in stems]
        total = torch.stack(powers).sum(0)
        stems = [power / (total + WIENER_EPS) for power in powers]
    phase = spectrum.angle()
    waves = [istft(torch.polar(values * magnitude, phase), mix.shape[-1]) for values in stems]
    return torch.stack(waves).numpy()


def stft(mix: torch.Tensor) -> torch.Tensor:
    """The original's preparation and STFT: [C, N] to [C, 2049, T]."""
    samples = mix.shape[-1]
    mix = torch.nn.functional.pad(mix, (0, (-(samples - N_FFT) % HOP) % N_FFT))
    if mix.shape[-1] <= N_FFT // 2:
        raise AudioError(
            f"the original LarsNet can't take {samples} samples; give it {N_FFT // 2 + 1} or more to compare with"
        )
    window = torch.hann_window(N_FFT, dtype=mix.dtype)
    return torch.stft(mix, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)


def istft(spectrum: torch.Tensor, samples: int) -> torch.Tensor:
    """The inverse: [C, 2049, T] to [C, samples]."""
    window = torch.hann_window(N_FFT, dtype=spectrum.real.dtype)
    return torch.istft(spectrum, N_FFT, HOP, window=window, center=True, length=samples)


# -- checkpoints ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """What config.yaml settles: a checkpoint for each stem (in output order), the U-Nets' size, the sample rate."""

    files: Mapping[str, Path]
    bins: int
    frames: int
    sample_rate: int


def load(card: Card, choice: Choice) -> LarsNet:
    """Load random networks, or those of a folder ``<stem>/pretrained_<stem>_unet.pth``, with its config.yaml if any.

    Raises FileMissing, WeightsError, UsageError for stems that the model has not, and DownloadError for the official
    checkpoints, which no program can fetch.
    """
    refuse_config(card, choice)
    bins, frames = card.arguments["bins"], card.arguments["frames"]
    if choice.seed is not None:
        stems = wanted_stems(card.stems, choice.stems, card.name)
        plan = _Plan({stem: Path() for stem in stems}, bins, frames, card.sample_rate)
        networks = tuple(_random(bins, 1000 * choice.seed + card.stems.index(stem)) for stem in stems)
        return LarsNet(_spec(card, plan, networks, Weights(f"random:{choice.seed}", random=True)), networks)
    if choice.path is None:
        raise DownloadError(
            f"LarsNet's weights can only be had with a browser: download {card.arguments['download']}, unpack it and "
            f"name the folder of {LAYOUT} with --weights, or make a model of noise with --weights random"
        )
    plan = _plan(card, choice, choice.path)
    networks, sha256 = _read(plan.files)
    for path, network in zip(plan.files.values(), networks, strict=True):
        if (bins := len(network.input_norm.weight)) != plan.bins:
            raise WeightsError(f"{path} has {bins} bins, not {plan.bins} (F in {SETTINGS}); mend the F of its stem")
    weights = Weights(
        source=" ".join(path.name for path in plan.files.values()),
        sha256=" ".join(sha256),
        licence=f"{card.licence}, if these are the published weights",
    )
    return LarsNet(_spec(card, plan, networks, weights), networks)


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> LarsNet:
    """The folder of checkpoints in ``choice.path``, or a recognised one alone, called as that is.

    The stem of one alone is in its name, as the published ones have it, or in ``choice.stems``. Raises WeightsError,
    UsageError, FileMissing.
    """
    card, place = find_card("larsnet"), choice.path or checkpoint.path
    made = load(card, replace(choice, path=place)) if place.is_dir() else _alone(card, place, choice)
    name = folder_name(place.resolve().name if place.is_dir() else place.stem)
    return replace(made, spec=replace(made.spec, name=name))


def _alone(card: Card, path: Path, choice: Choice) -> LarsNet:
    named = re.fullmatch(LAYOUT.rpartition("/")[2].replace("<stem>", r"(\w+)"), path.name)
    stems = (named[1],) if named else choice.stems
    if len(stems) != 1 or (choice.stems and choice.stems != stems):
        raise UsageError(
            f"{path} is one stem of LarsNet{f', {named[1]}' if named else ''}; name it with --stems, or give the "
            f"folder of {LAYOUT}"
        )
    config = _config(choice.config) if choice.config else {}
    frames = config.get(stems[0], {}).get("T", card.arguments["frames"])
    networks, sha256 = _read({stems[0]: path})
    rate = config.get("global", {}).get("sr", card.sample_rate)
    plan = _Plan({stems[0]: path}, len(networks[0].input_norm.weight), frames, rate)
    licence = f"{card.licence}, if these are the published weights"
    return LarsNet(_spec(card, plan, networks, Weights(path.name, sha256[0], licence)), networks)


def _random(bins: int, seed: int) -> UNet:
    from ortsep.export.weights.random_weights import randomise

    network = UNet(bins)
    randomise(network, seed)
    network.eval()
    return network


def _plan(card: Card, choice: Choice, folder: Path) -> _Plan:
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise FileMissing(f"{folder} {kind}; give the folder that holds {LAYOUT} to --weights")
    places = (folder / SETTINGS, folder.parent / SETTINGS)
    path = choice.config or next((place for place in places if place.is_file()), None)
    if path is None:
        config: dict[str, Any] = {}
        paths = {stem: Path(LAYOUT.replace("<stem>", stem)) for stem in card.stems}
    else:
        config = _config(path)
        paths = {stem: Path(file) for stem, file in config["inference_models"].items()}
    stems = wanted_stems(tuple(paths), choice.stems, str(path or card.name))
    found = {stem: _find(paths[stem], folder, path) for stem in stems}
    if missing := [stem for stem in stems if found[stem] is None]:
        there = [stem for stem in stems if found[stem]]
        mend = f" or export what is there with --stems {','.join(there)}" if there else ""
        raise WeightsError(
            f"{folder} lacks {', '.join(str(paths[s]) for s in missing)}: a folder of LarsNet holds {LAYOUT} "
            f"for {', '.join(paths)}; complete it from {card.arguments['download']}{mend}"
        )
    default = {"F": card.arguments["bins"], "T": card.arguments["frames"]}
    sizes = {tuple({**default, **config.get(stem, {})}[key] for key in "FT") for stem in stems}
    if len(sizes) > 1:
        raise WeightsError(f"{path} gives its stems different F and T ({sorted(sizes)}); export them one by one")
    ((bins, frames),) = sizes
    rate = config.get("global", {}).get("sr", card.sample_rate)
    return _Plan({stem: file for stem, file in found.items() if file}, bins, frames, rate)


def _config(path: Path) -> dict[str, Any]:
    """What of config.yaml separation uses: inference_models, F and T of each stem, global.sr. Raises WeightsError."""
    try:
        if path.stat().st_size > 1 << 16:
            raise ValueError("longer than 64 KB")
        config = load_plain_yaml(path.read_text(encoding="utf-8"))
        models = config["inference_models"]
        for stem, file in models.items():
            if not re.fullmatch(r"\w[\w -]*", stem) or not isinstance(file, str):
                raise ValueError(f"inference_models: {stem}: {file}")
            for key, value in config.get(stem, {}).items():
                most = N_FFT // 2 + 1 if key == "F" else 1 << 14
                if key in "FT" and (type(value) is not int or not 0 < value <= most or value % HALVINGS):
                    raise ValueError(f"{stem}: {key}: {value}, not a multiple of {HALVINGS} up to {most}")
        rate = config.get("global", {}).get("sr", 44100)
        if type(rate) is not int or not 1000 <= rate <= 768_000 or not models:
            raise ValueError(f"global: sr: {rate}")
    except OSError as error:
        raise FileMissing(f"{path} can't be read ({error.strerror}); check --config") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, yaml.YAMLError) as error:
        what = " ".join(f"{type(error).__name__} {error}".split())
        raise WeightsError(f"{path} is not LarsNet's config.yaml ({what}); mend it or take it away") from error
    assert isinstance(config, dict)
    return config


def _find(file: Path, folder: Path, config: Path | None) -> Path | None:
    """A stem's checkpoint. The original takes its path from the working folder, which is the one of config.yaml.

    So that the weights' folder may have another name or hold config.yaml itself, the last two parts of the path are
    looked for in ``folder`` too.
    """
    tail = Path(*file.parts[-2:])
    places = [folder / tail, folder / "pretrained_larsnet_models" / tail]
    if config:
        places.insert(0, config.parent / file)
    return next((place for place in places if place.is_file()), None)


def _read(files: Mapping[str, Path]) -> tuple[tuple[UNet, ...], tuple[str, ...]]:
    """The networks, and the sha256 of each file."""
    from ortsep.export.weights.checkpoints import file_sha256, load_state
    from ortsep.export.weights.layouts import network_in

    states = {path: network_in(load_state(path), ANCHORS, str(path)) for path in files.values()}
    networks = tuple(load_network(state, str(path)) for path, state in states.items())
    return networks, tuple(file_sha256(path) for path in files.values())


def _spec(card: Card, plan: _Plan, networks: tuple[UNet, ...], weights: Weights) -> ModelSpec:
    stems = tuple(plan.files)
    half = N_FFT // 2
    return ModelSpec(
        name=card.name,
        family=card.family,
        stems=stems,
        sample_rate=plan.sample_rate,
        channels=AUDIO,
        domain="magnitude",
        output="masks",
        stft=STFT(N_FFT, HOP, plan.bins, pad_left=half, pad_right=half, extend="hop"),
        blocks=Blocks(frames=plan.frames),
        filter=Filter(method="mask", eps=WIENER_EPS),
        bag=tuple(Member(f"{stem}.onnx", tuple(float(s == stem) for s in stems), (k,)) for k, stem in enumerate(stems)),
        content="drums",
        weights=weights,
        parameters=sum(p.numel() for network in networks for p in network.parameters()),
        notes=("the original needs at least 2049 samples and fails on a mono file; ortsep takes both",),
    )
