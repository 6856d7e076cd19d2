"""Open-Unmix: umx, umxhq, umxl, umxse and users' own targets (Stöter et al., JOSS 2019; the package openunmix 1.3).

A model is a bag of one network and one graph per target, so that a single stem costs a single network.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch

from ortsep.base.arrays import F32
from ortsep.base.errors import FileMissing, MissingDependency, WeightsError
from ortsep.export.families.open_unmix.config import beside, read_settings
from ortsep.export.families.open_unmix.graph import (
    Network,
    Shape,
    build_graph,
    load_network,
    parameter_count,
    parts_of,
    random_network,
    shape_of,
)
from ortsep.export.family import Choice, Complex, Float, Original, refuse_config, wanted_stems
from ortsep.export.weights.frontdoor import Checkpoint
from ortsep.models.catalogue import Card, catalogue, find_card, folder_name
from ortsep.models.spec import MAX_SAMPLES, STFT, Blocks, Filter, Member, ModelSpec, Weights

ROUTES: tuple[str, ...] = ()
CONFIG = "openunmix's separator.json, or a target's json"
WHOLE = 600.0
"""Seconds up to which a song runs in one piece where a runtime does not know the parts: some 370 MB a minute."""
BLOCK, OVERLAP = 100.0, 20.0
"""Seconds of a longer song's blocks and of their overlaps. What blocks cost depends on how long the LSTMs remember: for
60 s with 10 s, 91 dB against one piece with random weights, 13 dB with forget gates held open (biases of 4)."""

ANCHORS = ("input_mean",)
"""A parameter of every network, by which it is found in what a framework's checkpoint holds."""
FILE = re.compile(r"(?P<target>.+?)(?:[-_](?P<hash>[0-9a-f]{8,64}))?\.pth")
"""A target's file: <target>.pth, or with the beginning of its sha256 as the published ones have it."""


@dataclass(frozen=True)
class OpenUnmix(Original):
    """A loaded model: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    networks: tuple[Network, ...]

    @property
    def _stft(self) -> STFT:
        assert self.spec.stft
        return self.spec.stft

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        for member, network in zip(self.spec.bag, self.networks, strict=True):
            yield member.file, build_graph(network, f"{self.spec.name}:{Path(member.file).stem}")

    def transform(self, mix: F32, member: int = 0) -> Complex:
        window = torch.hann_window(self._stft.n_fft)
        n_fft, hop = self._stft.n_fft, self._stft.hop
        result: Complex = torch.stft(torch.from_numpy(mix), n_fft, hop, window=window, return_complex=True).numpy()
        return result

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        window = torch.hann_window(self._stft.n_fft)
        x = torch.from_numpy(np.ascontiguousarray(spectrum, np.complex64))
        result: F32 = torch.istft(x, self._stft.n_fft, self._stft.hop, window=window, length=samples).numpy()
        return result

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        double = load_network(self.networks[member].state_dict(), self.spec.bag[member].file).double()
        with torch.inference_mode():
            magnitudes = double(torch.from_numpy(inputs["magnitude"]).double())
        return {"stem_magnitudes": magnitudes[:, None].numpy()}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        spectrum = self.transform(mix[:, : 10 * self.spec.sample_rate])
        return {"magnitude": np.abs(spectrum).astype(np.float32)[None]}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """The package's own Separator, whose import of torchaudio is answered with an empty module."""
        try:
            sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))
            from openunmix.model import OpenUnmix, Separator
        except ImportError as error:
            raise MissingDependency("openunmix is not installed; pip install --no-deps openunmix") from error
        spec, stft = self.spec, self.spec.stft
        assert stft is not None
        targets = {}
        for stem, network in zip(spec.stems, self.networks, strict=True):
            state = network.state_dict()
            heard, hidden = state["input_mean"].numel(), state["fc1.weight"].shape[0]
            theirs = OpenUnmix(nb_bins=stft.bins, nb_channels=spec.channels, hidden_size=hidden, max_bin=heard)
            theirs.load_state_dict(state)
            targets[stem] = theirs.eval()
        model = Separator(targets, niter=1, sample_rate=spec.sample_rate, n_fft=stft.n_fft, n_hop=stft.hop).eval()

        def run(mix: F32) -> F32:
            with torch.inference_mode():
                waves: F32 = model(torch.from_numpy(mix)[None])[0].numpy()
            return waves

        return "openunmix, torch eager", run

    def separate(self, mix: F32) -> F32:
        """Whole-track networks in float32, one EM iteration in float64 over windows of 300 frames."""
        spectrum = torch.from_numpy(self.transform(mix))
        with torch.inference_mode():
            magnitudes = torch.stack([net(spectrum.abs()[None])[0] for net in self.networks])
            stems = [
                _filter(spectrum[..., t : t + 300], magnitudes[..., t : t + 300])
                for t in range(0, spectrum.shape[-1], 300)
            ]
        whole = torch.cat(stems, -1).numpy()
        return np.stack([self.inverse(stem, mix.shape[1]) for stem in whole])


def _filter(x: torch.Tensor, v: torch.Tensor, eps: float = 1e-10) -> torch.Tensor:
    """One EM iteration on a window [C, F, T] with magnitudes [S, C, F, T], in complex128 (Nugraha et al. 2016).

    A reference for validation, apart from ``ortsep.stems.wiener``; a lone source is filtered against the residual.
    """
    x = x.to(torch.complex128)
    y = v * torch.sgn(x)
    if len(v) == 1:
        y = torch.cat([y, x[None] - y])
    scale = max(1.0, float(x.abs().max()) / 10)
    x, y = x / scale, y / scale
    p = y.abs().square().mean(1)
    r = torch.einsum("scft,sdft->sfcd", y, y.conj()) / (eps + p.sum(-1))[..., None, None]
    total = torch.einsum("sft,sfcd->ftcd", p.to(r.dtype), r) + eps**0.5 * torch.eye(len(x))
    z = torch.linalg.solve(total, x.permute(1, 2, 0))
    return torch.einsum("sft,sfcd,ftd->scft", p.to(r.dtype), r, z)[: len(v)] * scale


@dataclass(frozen=True)
class _Files:
    """Where targets come from: a network, what it was read from and that file's sha256, for each."""

    networks: Mapping[str, Network]
    sources: tuple[str, ...]
    sha256: tuple[str, ...]
    settings: Mapping[str, Any]


def load(card: Card, choice: Choice) -> OpenUnmix:
    """Load a model: the official files, random ones, one <target>.pth, or a folder of them with the training's json.

    Raises FileMissing, WeightsError, DownloadError, and UsageError for stems that the model has not.
    """
    refuse_config(card, choice)
    if choice.seed is not None:
        files = _random(card, choice)
    elif choice.path is not None:
        files = _local(card, choice.path, choice)
    else:
        files = _official(card, choice)
    return OpenUnmix(_spec(card, choice, files), tuple(files.networks.values()))


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> OpenUnmix:
    """A recognised <target>.pth, or the folder of them in ``choice.path``, called as that is. What neither a json nor
    the parameters say is as in the published model of the same sizes, else as in openunmix's training.

    Raises FileMissing, WeightsError, UsageError.
    """
    place = choice.path or checkpoint.path
    folder, shape = place if place.is_dir() else place.parent, shape_of(checkpoint.state, checkpoint.where)
    sizes = {"n_fft": 2 * (shape.bins - 1), "heard": shape.heard, "hidden": shape.hidden}
    cards = [card for card in catalogue().values() if card.family == "open_unmix"]
    alike = [c for c in cards if c.channels == shape.channels and sizes.items() <= c.arguments.items()]
    made = load(alike[0] if alike else find_card("umxhq"), replace(choice, path=place))
    stems = dict.fromkeys(made.spec.stems)
    known = read_settings(choice.config) if choice.config else beside(folder, stems)
    if made.spec.stft and not {"sample_rate", "nhop"} <= known.keys():
        choice.say(
            f"{place.name}: {made.spec.sample_rate} Hz and a hop of {made.spec.stft.hop} are assumed; "
            "give openunmix's separator.json with --config where it is otherwise"
        )
    name = folder_name(place.resolve().name if place.is_dir() else place.stem)
    return replace(made, spec=replace(made.spec, name=name))


def _random(card: Card, choice: Choice) -> _Files:
    assert choice.seed is not None
    arguments = card.arguments
    shape = Shape(arguments["n_fft"] // 2 + 1, arguments["heard"], card.channels, arguments["hidden"])
    wanted = wanted_stems(card.stems, choice.stems, card.name)
    seeds = {s: 1000 * choice.seed + k for k, s in enumerate(card.stems)}
    return _Files({s: random_network(shape, seeds[s]) for s in wanted}, (f"random:{choice.seed}",), (), {})


def _official(card: Card, choice: Choice) -> _Files:
    from ortsep.export.weights.download import fetch

    sources = dict(zip(card.stems, card.sources, strict=True))
    wanted = wanted_stems(card.stems, choice.stems, card.name)
    paths = {stem: fetch(sources[stem], progress=choice.downloading, offline=choice.offline) for stem in wanted}
    return _read(paths, tuple(sources[stem].url for stem in wanted), {})


def _local(card: Card, path: Path, choice: Choice) -> _Files:
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise FileMissing(f"there is nothing at {path}; give a folder of <target>.pth files to --weights")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if path.is_dir() else [path]:
        if match := FILE.fullmatch(file.name):
            if match["target"] in found:
                raise WeightsError(
                    f"{folder} has both {found[match['target']].name} and {file.name}; keep the one that is meant"
                )
            found[match["target"]] = file
    if not found:
        raise WeightsError(f"{path} holds no <target>.pth, which is what openunmix saves; check --weights")
    known = [s for s in card.stems if s in found]
    ordered = tuple(known + [s for s in found if s not in known])
    paths = {stem: found[stem] for stem in wanted_stems(ordered, choice.stems, str(path))}
    settings = read_settings(choice.config) if choice.config else beside(folder, paths)
    return _read(paths, tuple(p.name for p in paths.values()), settings)


def _read(paths: Mapping[str, Path], sources: tuple[str, ...], settings: Mapping[str, Any]) -> _Files:
    from ortsep.export.weights.checkpoints import file_sha256, load_state, plain_state
    from ortsep.export.weights.layouts import network_in

    networks: dict[str, Network] = {}
    for stem, path in paths.items():
        state = plain_state(network_in(load_state(path), ANCHORS, str(path)), path)
        networks[stem] = load_network(state, str(path))
    shapes = {(n.shape.bins, n.shape.channels) for n in networks.values()}
    if len(shapes) > 1:
        names = ", ".join(p.name for p in paths.values())
        raise WeightsError(f"{names} differ in bins or channels ({sorted(shapes)}); export them one by one")
    return _Files(networks, sources, tuple(file_sha256(p) for p in paths.values()), settings)


def _spec(card: Card, choice: Choice, files: _Files) -> ModelSpec:
    stems = tuple(files.networks)
    shape = next(iter(files.networks.values())).shape
    n_fft = 2 * (shape.bins - 1)
    for key, here in {"nfft": n_fft, "nb_channels": shape.channels, "hidden_size": shape.hidden}.items():
        if files.settings.get(key, here) != here:
            raise WeightsError(
                f"the training's json says {key} {files.settings[key]} and the checkpoint has {here}; "
                "give the json that belongs to it"
            )
    same = n_fft == card.arguments["n_fft"]
    rate = files.settings.get("sample_rate", card.sample_rate)
    hop = files.settings.get("nhop", card.arguments["hop"] if same else n_fft // 4)
    official = choice.official

    def frames(seconds: float) -> int:
        return int(min(round(seconds * rate / hop), MAX_SAMPLES // 512))

    return ModelSpec(
        name=card.name,
        family=card.family,
        stems=stems,
        sample_rate=rate,
        channels=shape.channels,
        domain="magnitude",
        output="stem_magnitudes",
        stft=STFT(n_fft, hop, shape.bins, pad_left=n_fft // 2, pad_right=n_fft // 2),
        parts=parts_of(shape) if len({network.shape for network in files.networks.values()}) == 1 else (),
        blocks=Blocks(frames(BLOCK), overlap=frames(OVERLAP), padded=False, whole=frames(WHOLE)),
        filter=Filter(method="wiener", iterations=1, window=300, eps=1e-10),
        bag=tuple(Member(f"{stem}.onnx", tuple(float(s == stem) for s in stems), (k,)) for k, stem in enumerate(stems)),
        content=card.arguments.get("content", "music"),
        weights=Weights(
            source=" ".join(files.sources),
            sha256=" ".join(files.sha256),
            licence=card.licence if official else "",
            redistributable=card.redistributable if official else None,
            random=choice.seed is not None,
        ),
        parameters=sum(parameter_count(network) for network in files.networks.values()),
        notes=(f"listens to the {shape.heard} lowest of {shape.bins} bins and answers over the full band",),
    )
