"""A Demucs model or bag as it is compared and exported: the package as the original, its chunks and transforms."""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import torch
from demucs.apply import BagOfModels, TensorChunk, apply_model
from demucs.demucs import Demucs
from demucs.spec import ispectro
from torch import nn

from ortsep.base.arrays import F32
from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs.files import Part
from ortsep.export.families.demucs.hdemucs import hdemucs_graph
from ortsep.export.families.demucs.htdemucs import htdemucs_graph
from ortsep.export.families.demucs.time import demucs_v3_graph
from ortsep.export.family import Complex, Float, Original
from ortsep.export.graph.files import attach_spec
from ortsep.models.catalogue import Card, folder_name
from ortsep.models.spec import STFT, Chunks, Member, ModelSpec, Normalization, Stepped, Weights


class DemucsOriginal(Original):
    """A Demucs model or bag (``export.family.Original``); networks are built when needed, one kept at a time."""

    def __init__(self, card: Card, parts: list[Part], wanted: tuple[int, ...], segment: float | None) -> None:
        try:
            bag = BagOfModels([part.shape for part in parts], [list(part.weights) for part in parts], segment)
        except AssertionError as error:
            raise WeightsError(f"the models of the bag {card.name} differ in rate or channels; mend the bag") from error
        lengths = {int(shape.samplerate * shape.segment) for shape in bag.models}
        if len(lengths) > 1:
            raise WeightsError(
                f"the models of {card.name} differ in chunk length, which one exported bag can't express; "
                "choose --stems that need only models of one kind, or another model"
            )
        for part in parts:
            _describable(part)
        self._card, self._parts, self._wanted, self._length = card, parts, wanted, lengths.pop()
        self._full = lru_cache(maxsize=1)(self._build)
        self._double = lru_cache(maxsize=1)(lambda k: self._narrow(k).double())
        self._files = [self._file(part) for part in parts]
        self.spec = self._spec_of(parts[0])

    def _build(self, member: int) -> Any:
        model: Any = self._parts[member].build()
        model.segment = self._parts[member].shape.segment
        return model

    def _rows(self, part: Part) -> tuple[int, ...]:
        """The model's own stems that this member's graph gives: those wanted of it."""
        return tuple(k for k in self._wanted if part.weights[k])

    def _narrow(self, member: int) -> Any:
        """A copy of the network that gives only the stems of its graph."""
        part = self._parts[member]
        return narrow(deepcopy(self._full(member)), self._rows(part))

    def _file(self, part: Part) -> str:
        """A bag's file is called after its stem, where it gives one that no other gives, else numbered."""
        name = folder_name(self._card.name)
        if len(self._parts) == 1:
            return f"{name}.onnx"
        rows = self._rows(part)
        alone = len(rows) == 1 and sum(rows[0] in self._rows(other) for other in self._parts) == 1
        stem = self._card.stems[rows[0]]
        return f"{name}-{stem if alone and re.fullmatch('[a-z0-9_]+', stem) else self._parts.index(part) + 1}.onnx"

    def _spec_of(self, part: Part) -> ModelSpec:
        card, shape = self._card, part.shape
        bag = tuple(
            Member(
                file,
                tuple(part.weights[k] for k in self._wanted),
                tuple(self._wanted.index(k) for k in self._rows(part)),
            )
            for file, part in zip(self._files, self._parts, strict=True)
        )
        transform, inverse = _transforms(part)
        return ModelSpec(
            name=card.name,
            family=card.family,
            stems=tuple(card.stems[k] for k in self._wanted),
            sample_rate=shape.samplerate,
            channels=shape.audio_channels,
            domain="waveform" if transform is None else "hybrid",
            output="stems" if transform is None else "hybrid",
            stft=transform,
            inverse=inverse,
            chunks=_chunks(part, self._length),
            normalization=Normalization("track", 1e-8),
            bag=bag if len(bag) > 1 else (),
            content=card.arguments.get("content", "music"),
            weights=self._weights(),
            parameters=sum(p.numel() for part in self._parts for p in part.shape.parameters()),
        )

    def _weights(self) -> Weights:
        card, parts = self._card, self._parts
        sources, hashes = (" ".join(getattr(part, key) for part in parts) for key in ("source", "sha256"))
        if parts[0].source.startswith("random:"):
            return Weights(parts[0].source, "", "none: random parameters, which give noise", True, True)
        official = all(any(s.sha256 and part.sha256.startswith(s.sha256) for s in card.sources) for part in parts)
        if official:
            return Weights(sources, hashes, card.licence, card.redistributable)
        return Weights(sources, hashes, "unknown: not the official files", None)

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        return self._graphs(portable, rows=False)

    def graphs_for(self, target: str) -> Iterator[tuple[str, onnx.ModelProto]]:
        """HTDemucs's time axis in rows for CoreML, which takes no dimension above 16384."""
        return self._graphs(portable=True, rows=target == "coreml")

    def _graphs(self, portable: bool, rows: bool) -> Iterator[tuple[str, onnx.ModelProto]]:
        for member, part in enumerate(self._parts):
            network = self._narrow(member)
            if part.network == "HTDemucs":
                graph = htdemucs_graph(network, portable=portable, rows=rows)
            elif part.network == "HDemucs":
                graph = hdemucs_graph(network, portable=portable, samples=self._length)
            else:
                graph = demucs_v3_graph(network, portable=portable, samples=self._length)
            yield self._files[member], attach_spec(graph, self._spec_of(part))

    def transform(self, mix: F32, member: int = 0) -> Complex | None:
        part = self._parts[member]
        if part.network == "Demucs":
            return None
        spectrum: Complex = part.shape._spec(_tensor(mix)[None])[0].numpy()
        return spectrum

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32 | None:
        part, z = self._parts[member], torch.from_numpy(spectrum)[None]
        if part.network == "Demucs":
            return None
        if getattr(part.shape, "hybrid_old", False):
            # HDemucs._ispec without its own frames of zeros, which the graph gives
            hop = part.shape.hop_length
            wave = ispectro(nn.functional.pad(z, (0, 0, 0, 1)), hop, length=hop * -(-samples // hop))[..., :samples]
        else:
            wave = part.shape._ispec(z, samples)
        mix: F32 = wave[0].numpy()
        return mix

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        model = self._double(member)
        mix = _tensor(inputs["mix"]).double()
        held: dict[str, torch.Tensor] = {}
        if "spectrum" in inputs:
            b, c, f, t = inputs["spectrum"].shape
            parts = _tensor(inputs["spectrum"]).double().view(b, c // 2, 2, f, t)
            spectrum = torch.complex(parts[:, :, 0], parts[:, :, 1])
            # The network's own forward, with its STFT taken from the inputs and its inverse left out.
            model._spec = lambda _: spectrum
            model._ispec = lambda spectra, _: held.setdefault("stem_spectra", _as_channels(spectra)).new_zeros(())
        with torch.no_grad():
            held["stems"] = model(mix)
        if getattr(model, "hybrid_old", False):
            held["stem_spectra"] = nn.functional.pad(held["stem_spectra"], (2, 2))
        return {name: value.numpy() for name, value in held.items()}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        part = self._parts[member]
        mean, deviation = _statistics(_tensor(mix))
        chunk = TensorChunk(((_tensor(mix) - mean) / deviation)[None], 0, self._length)
        if part.network == "HTDemucs":
            length = self._length
        else:
            length = part.shape.valid_length(chunk.length) if part.network == "Demucs" else chunk.length
        inputs = {"mix": chunk.padded(length)}
        if part.network != "Demucs":
            inputs["spectrum"] = _as_channels(part.shape._spec(inputs["mix"]))
        return {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items()}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        return "demucs, torch eager", self.separate

    def separate(self, mix: F32) -> F32:
        """As ``demucs.api.Separator.separate_tensor`` does with its defaults, but ``shifts=0``."""
        models = [self._full(member) for member in range(len(self._parts))]
        bag = BagOfModels(models, [list(part.weights) for part in self._parts])
        mean, deviation = _statistics(_tensor(mix))
        with torch.no_grad():
            normal = ((_tensor(mix) - mean) / deviation)[None]
            out = apply_model(bag, normal, shifts=0, split=True, overlap=0.25, device="cpu")[0] * deviation + mean
        stems: F32 = out[list(self._wanted)].numpy()
        return stems


def narrow(model: Any, rows: tuple[int, ...]) -> Any:
    """Keep only the stems ``rows`` of a network, in place: its last layers have a group of channels per stem."""
    count = len(model.sources)
    if rows == tuple(range(count)):
        return model
    if isinstance(model, Demucs):
        last = [model.decoder[-1][-1]]
    else:
        ends = [model.decoder[-1], model.tdecoder[-1]]
        last = [layer.conv_tr for end in ends for layer in getattr(end, "layers", [end])]
    for layer in last:
        _, outputs, *kernel = layer.weight.shape
        kept = layer.weight.data.view(-1, count, outputs // count, *kernel)[:, list(rows)]
        layer.weight.data = kept.flatten(1, 2).contiguous()
        layer.bias.data = layer.bias.data.view(count, -1)[list(rows)].flatten()
        layer.out_channels = len(rows) * (outputs // count)
    model.sources = [model.sources[k] for k in rows]
    return model


def _transforms(part: Part) -> tuple[STFT | None, STFT | None]:
    """The STFT of a network, and its inverse where that is another."""
    if part.network == "Demucs":
        return None, None
    # HDemucs._spec and _ispec: frames 2 .. 2+ceil(N/hop) of a centred STFT of the signal padded by 3/2 hops.
    hop = part.shape.hop_length
    transform = STFT(4 * hop, hop, 2 * hop, 3 * hop // 2, 3 * hop // 2, "reflect", True, True, "constant")
    if not getattr(part.shape, "hybrid_old", False):
        return transform, None
    # Zeros in place of reflections; the inverse begins where the centred one does and knows of two empty frames.
    transform = replace(transform, pad_mode="zero")
    return transform, replace(transform, pad_left=2 * hop, pad_right=2 * hop, partial=False, envelope="frames")


def _chunks(part: Part, length: int) -> Chunks:
    """HTDemucs hears its segment, HDemucs a chunk as it is, Demucs v3 the next of its valid lengths."""
    shift = part.shape.samplerate // 2
    if part.network == "HTDemucs":
        return Chunks(length, overlap=0.25, max_shift=shift)
    if part.network == "HDemucs":
        return Chunks(length, overlap=0.25, takes=Stepped(1), max_shift=shift)
    valid = part.shape.valid_length
    least = valid(1)
    step = valid(least + 1) - least
    for samples in (least + 1, least + step + 1, length - 1, length, length + 1):
        if valid(samples) != max(least, samples + (least - samples) % step):
            raise WeightsError(f"{part.source} has kernels and strides whose lengths are irregular; take another model")
    return Chunks(length, overlap=0.25, takes=Stepped(least, step), max_shift=shift)


def _describable(part: Part) -> None:
    """Refuse the networks of old experiments whose surroundings the spec has no words for."""
    shape = part.shape
    ends = [] if part.network == "Demucs" else [shape.decoder[-1], *getattr(shape, "tdecoder", [])[-1:]]
    odd = {
        "no waveform branch": not getattr(shape, "hybrid", True),
        "masks instead of complex spectra": part.network == "HTDemucs" and not shape.cac,
        "normalised output layers": any(
            isinstance(m, torch.nn.GroupNorm) for m in (getattr(e, "norm2", 0) for e in ends)
        ),
    }
    for what, there in odd.items():
        if there:
            raise WeightsError(f"{part.source} has {what}, which can't be exported; take another model")


def _tensor(array: F32) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _as_channels(spectrum: torch.Tensor) -> torch.Tensor:
    """Complex [..., C, F, T] as [..., 2C, F, T], as ``HDemucs._magnitude`` does with ``cac``."""
    return torch.view_as_real(spectrum).movedim(-1, -3).flatten(-4, -3)


def _statistics(mix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of the mono mix, as ``demucs.api`` takes them."""
    mono = mix.mean(0)
    return mono.mean(), mono.std() + 1e-8
