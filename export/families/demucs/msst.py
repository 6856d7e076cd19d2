"""HTDemucs and HDemucs that were trained with MSST: a checkpoint and a yaml, their own segment, chunks joined plainly.

The network is Demucs's; what is around it isn't: no standardisation of the song, no context round the last chunk,
every chunk counts alike.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from demucs.htdemucs import HTDemucs

from ortsep.base.arrays import F32
from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.demucs.bag import DemucsOriginal
from ortsep.export.families.demucs.files import CLASSES, LIMITS, Part, fill, read_part, shape_of, stems_of
from ortsep.export.families.demucs.package import Package, load_demucs_package
from ortsep.export.families.demucs.subbands import SubbandHTDemucs
from ortsep.export.families.demucs.training import arguments_of, network_of
from ortsep.export.family import Choice, refuse_config, wanted_stems
from ortsep.export.weights.download import fetch
from ortsep.export.weights.frontdoor import Checkpoint, open_checkpoint
from ortsep.export.weights.msst_code import msst_module
from ortsep.export.weights.msst_demix import cuts, demix, level, normalization
from ortsep.export.weights.msst_yaml import Settings, settings
from ortsep.models.catalogue import Card, folder_name
from ortsep.models.spec import Fixed, ModelSpec

NAMES = {"htdemucs": "HTDemucs", "hdemucs": "HDemucs"}
"""What a yaml calls the networks."""
DRUMS = {"kick", "snare", "toms", "bombo", "redoblante"}
"""A model that gives one of these hears drums (the first DrumSep has Spanish names)."""


class MsstDemucs(DemucsOriginal):
    """One Demucs network in MSST's chunks (``export.family.Original``)."""

    def __init__(self, card: Card, part: Part, wanted: tuple[int, ...], read: Settings) -> None:
        self._settings = replace(read, chunk=int(part.shape.samplerate * part.shape.segment))
        super().__init__(card, [part], wanted, None)

        self._theirs: Any = None

    @property
    def package(self) -> str:
        return "MSST's own code" if self._theirs else "MSST's formula, torch float32"

    def beside(self, oracle: Path) -> "MsstDemucs":
        """With HTDemucs out of a checkout of MSST; its HDemucs is the one of the package demucs."""
        if self._parts[0].network != "HTDemucs":
            return self
        stand_ins = {"omegaconf": SimpleNamespace(OmegaConf=None), "openunmix": SimpleNamespace()}
        stand_ins["openunmix.filtering"] = SimpleNamespace(wiener=None)
        ours = self._full(0)
        arguments = dict(zip(signature(HTDemucs).parameters, ours._init_args_kwargs[0], strict=False))
        arguments |= ours._init_args_kwargs[1] | {"num_subbands": getattr(ours, "num_subbands", 1)}
        theirs = msst_module(oracle, "models/demucs4ht.py", stand_ins).HTDemucs(**arguments)
        theirs.load_state_dict(ours.state_dict())
        other = copy(self)
        other._theirs = theirs.eval()
        return other

    def _spec_of(self, part: Part) -> ModelSpec:
        spec = super()._spec_of(part)
        chunks = replace(cuts(self._settings, boxcar=True), takes=Fixed())
        return replace(spec, chunks=chunks, normalization=normalization(self._settings))

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first chunk; a shorter song fills it with zeros."""
        mean, deviation = level(mix, self._settings)
        chunk = np.zeros((len(mix), self._length), np.float32)
        chunk[:, : mix.shape[1]] = (mix[:, : self._length] - mean) / deviation
        inputs = {"mix": chunk[None]}
        spectrum = self.transform(chunk)
        assert spectrum is not None
        pairs = np.stack([spectrum.real, spectrum.imag], axis=1)
        return {**inputs, "spectrum": pairs.reshape(1, -1, *spectrum.shape[1:]).astype(np.float32)}

    def separate(self, mix: F32) -> F32:
        """As MSST does with batch size 1, in float32."""
        model = self._theirs or self._full(0)

        def run(chunk: F32) -> F32:
            with torch.inference_mode():
                stems: F32 = model(torch.from_numpy(np.ascontiguousarray(chunk))[None])[0].numpy()
            return stems[list(self._wanted)]

        return demix(mix, self._settings, run, boxcar=True)


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> DemucsOriginal:
    """A recognised checkpoint: with a yaml of MSST's as MSST separates; else as demucs does.

    Raises WeightsError; UsageError for a stem that it lacks.
    """
    name = folder_name(checkpoint.path.stem)
    if not isinstance(checkpoint.config.get("training"), Mapping):
        return _package(checkpoint, name, choice)
    sources = _sources(checkpoint.config, checkpoint.where)
    card = _card(name, sources)
    target = checkpoint.settings.stems if len(checkpoint.settings.stems) < len(sources) else ()
    return _original(
        card, checkpoint.config, checkpoint.settings, checkpoint, replace(choice, stems=choice.stems or target)
    )


def load(card: Card, choice: Choice) -> DemucsOriginal:
    """A card whose ``yaml`` is MSST's: its official checkpoint, ``choice.path`` in its place, or random weights.

    Raises WeightsError, DownloadError, FileMissing; UsageError for a stem that the model lacks.
    """
    config = card.arguments["yaml"]
    read = settings(config, f"the card of {card.name}")
    if choice.seed is not None:
        refuse_config(card, choice)
        return _original(card, config, read, None, choice)
    path = choice.path or fetch(card.sources[0], progress=choice.downloading, offline=choice.offline)
    checkpoint = open_checkpoint(path, choice.config)
    if checkpoint.architecture.family != card.family:
        raise WeightsError(f"{path} is {checkpoint.architecture.title} and not {card.title}; export it by its own path")
    if checkpoint.config:
        config, read = checkpoint.config, checkpoint.settings
    return _original(card, config, read, checkpoint, choice, card.sources[0].url if choice.path is None else "")


def _original(
    card: Card, config: Mapping[str, Any], read: Settings, checkpoint: Checkpoint | None, choice: Choice, url: str = ""
) -> MsstDemucs:
    """The network that a configuration describes, with a checkpoint's parameters or random ones."""
    where = f"the card of {card.name}" if checkpoint is None else checkpoint.where
    network, arguments = _arguments(config, read, where)
    if tuple(arguments["sources"]) != card.stems:
        found = ", ".join(arguments["sources"])
        raise WeightsError(f"{where} gives {found} and {card.name} gives {', '.join(card.stems)}; name another model")
    wanted = tuple(card.stems.index(stem) for stem in wanted_stems(card.stems, choice.stems, card.name))
    make = _maker(network, arguments)
    shape = shape_of(make, network, where)
    every = (1.0,) * len(card.stems)
    if checkpoint is None:
        seed = choice.seed or 0
        part = Part(network, shape, lambda: _random(make, seed), every, f"random:{seed}")
        return MsstDemucs(card, part, wanted, read)
    state = {name: torch.from_numpy(array) for name, array in checkpoint.state.items()}
    package, path = Package(network, (), arguments, state, checkpoint.sha256), checkpoint.path
    shape, source = fill(shape, package, path), url or path.name
    part = Part(network, shape, lambda: fill(make(), package, path), every, source, package.sha256)
    return MsstDemucs(card, part, wanted, read)


def _maker(network: str, arguments: dict[str, Any]) -> Any:
    """A function that builds the network."""
    own = dict(arguments)
    subbands = own.pop("num_subbands", 1)
    if network == "HTDemucs" and subbands > 1:
        return lambda: SubbandHTDemucs(**own, num_subbands=subbands)
    return lambda: CLASSES[network](**own)


def _random(make: Any, seed: int) -> torch.nn.Module:
    from ortsep.export.weights.random_weights import randomise

    model: torch.nn.Module = make()
    randomise(model, seed)
    return model.eval()


def _arguments(config: Mapping[str, Any], read: Settings, where: str) -> tuple[str, dict[str, Any]]:
    """The class and its constructor's arguments, as MSST's ``get_model`` takes them from a yaml."""
    called = config.get("model")
    network = NAMES.get(called) if isinstance(called, str) else None
    training = config.get("training")
    if network is None or not isinstance(training, Mapping):
        raise WeightsError(
            f"the yaml of {where} has the model {str(called)[:40]!r} and not htdemucs or hdemucs; "
            "give the one that came with this checkpoint"
        )
    if not read.chunk or training.get("segment") is None:
        raise WeightsError(f"nothing says the training.segment of {where}; give the yaml that came with it")
    known = {*signature(CLASSES[network]).parameters, *({"num_subbands"} if network == "HTDemucs" else ())}
    own = {name: value for name, value in read.model.items() if name != "use_train_segment"}
    if unknown := sorted(set(own) - known):
        raise WeightsError(f"the yaml of {where} has arguments that no {network} takes: {', '.join(unknown)}; mend it")
    arguments = {
        **own,
        "sources": list(_sources(config, where)),
        "audio_channels": training.get("channels", 2),
        "samplerate": read.sample_rate,
        "segment": training["segment"],
    }
    for name, most in {**LIMITS, "num_subbands": 64}.items():
        value = arguments.get(name, 1)
        if not isinstance(value, int | float) or not 0 <= value <= most:
            raise WeightsError(f"the yaml of {where} has {name} {str(value)[:40]!r}, not up to {most}; mend it")
    return network, arguments


def _sources(config: Mapping[str, Any], where: str) -> tuple[str, ...]:
    training = config.get("training")
    names = training.get("instruments") if isinstance(training, Mapping) else None
    if not isinstance(names, list | tuple) or not names:
        raise WeightsError(f"the yaml of {where} has no training.instruments; give the one that came with it")
    return tuple(map(str, names))


def _card(name: str, stems: tuple[str, ...]) -> Card:
    """What a card would say of a user's file."""
    content = "drums" if DRUMS & set(stems) else "music"
    return Card(name, "demucs", name, stems, 44100, 2, "unknown", None, 0, 0, "", arguments={"content": content})


def _package(checkpoint: Checkpoint, name: str, choice: Choice) -> DemucsOriginal:
    """As demucs separates: a package of its own says its network, parameters have a configuration."""
    package, path = load_demucs_package(checkpoint.path), checkpoint.path
    if package.network is not None and choice.config is not None:
        raise UsageError(
            f"{path} brings its own configuration, so {choice.config} would change nothing; leave --config out"
        )
    if package.network is None and not checkpoint.config:
        raise WeightsError(
            f"{path} holds parameters without their configuration; give the yaml that came with it with --config"
        )
    if package.network is None:
        arguments = arguments_of(checkpoint.config, f"the configuration of {path}")
        if "sources" not in arguments:
            arguments["sources"], choice = list(choice.stems), replace(choice, stems=())
        package = Package(network_of(package.state), (), arguments, package.state, package.sha256)
    card = _card(name, stems_of(package, path))
    part = read_part(card, path, path.name, (1.0,) * len(card.stems), package)
    wanted = tuple(card.stems.index(stem) for stem in wanted_stems(card.stems, choice.stems, name))
    return DemucsOriginal(card, [part], wanted, None)
