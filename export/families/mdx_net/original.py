"""MDX-Net: UVR's .onnx files and checkpoints of kuielab's ConvTDFNet (.ckpt), one stem a network.

Kim, Choi, Chung, Lee, Jung, "KUIELab-MDX-Net: a two-stream neural network for music demixing" (2021). Around the
network as UVR has it (separate.py); its parameters come from UVR's table, or for a checkpoint its hyper_parameters.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ortsep.base.arrays import F32
from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.families.mdx_net.double import run_double
from ortsep.export.families.mdx_net.graph import build_graph
from ortsep.export.families.mdx_net.network import ConvTDFNet, Shape, load_network, parameter_count
from ortsep.export.family import Choice, Complex, Float, Original, stereo, with_the_rest
from ortsep.export.graph.rename import with_our_tensors
from ortsep.export.passes import optimize
from ortsep.export.weights.frontdoor import Checkpoint
from ortsep.models.catalogue import Card
from ortsep.models.contracts.contract import Wishes
from ortsep.models.contracts.mdx_net import ENTRIES, HOP, Entry, mdx_spec
from ortsep.models.contracts.read import file_key, read_file
from ortsep.models.contracts.recognise import Recognised, recognise
from ortsep.models.spec import ModelSpec, Tensors, Weights

ROUTES: tuple[str, ...] = ()
CONFIG = ""
Spectra = Callable[[torch.Tensor], torch.Tensor]
"""The stem's spectrum [B, 4, F, T] from the mixture's."""


@dataclass(frozen=True)
class MdxNet(Original):
    """A loaded model: see ``ortsep.export.family.Original``. ``source`` is its .onnx file or its network in torch."""

    spec: ModelSpec
    source: onnx.ModelProto | ConvTDFNet
    file: str
    given: ModelSpec | None = None
    """The spec of the .onnx file as it is, whose tensors have other names."""

    @property
    def package(self) -> str:
        return "UVR's formula in float64"

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """n_fft, frames of a chunk, samples of a chunk."""
        assert self.spec.stft and self.spec.chunks
        return self.spec.stft.n_fft, self.spec.chunks.length // HOP + 1, self.spec.chunks.length

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """The graph has operators of the ONNX standard only, ``portable`` or not."""
        if isinstance(self.source, ConvTDFNet):
            yield self.file, build_graph(self.source, self._sizes[1], self.spec.name)
            return
        assert self.given is not None
        made, _ = optimize(with_our_tensors(self.source, self.given), portable=True)
        yield self.file, made

    def transform(self, mix: F32, member: int = 0) -> Complex:
        """With the bins that the network hears as zero, which the graph's tensors do not show."""
        assert self.spec.stft
        result: Complex = _stft(torch.from_numpy(mix).double(), self.spec.stft.n_fft)[:, : self.spec.stft.bins].numpy()
        return result

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        n_fft = self._sizes[0]
        whole = torch.zeros(*spectrum.shape[:-2], n_fft // 2 + 1, spectrum.shape[-1], dtype=torch.complex128)
        whole[..., : spectrum.shape[-2], :] = torch.from_numpy(spectrum)
        result: F32 = _istft(whole, n_fft, samples).float().numpy()
        return result

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        stem = self._double()(torch.from_numpy(inputs["spectrum"]).double())
        return {"stem_spectra": stem[:, None].numpy()}

    def _double(self) -> Spectra:
        """The network in float64."""
        source = self.source
        if isinstance(source, ConvTDFNet):
            network = ConvTDFNet(source.shape)
            network.load_state_dict(source.state_dict())
            return _inference(network.double().eval())
        return lambda x: run_double(source, x)

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The spectrum of the first chunk, after the zeros that UVR puts before the song."""
        n_fft, _, length = self._sizes
        chunk = np.zeros((2, length), np.float32)
        part = stereo(mix)[:, : length - n_fft // 2]
        chunk[:, n_fft // 2 : n_fft // 2 + part.shape[-1]] = part
        assert self.spec.stft
        heard = _heard(torch.from_numpy(chunk).double(), n_fft, self.spec.stft.bins, self.spec.stft.zero_before)
        return {"spectrum": heard.float().numpy()}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """UVR's formula in float32; a checkpoint's network in torch, a .onnx file in ONNX Runtime, as UVR does."""
        if isinstance(self.source, ConvTDFNet):
            return "ConvTDFNet, torch eager", self._separation(_inference(self.source), torch.float32)
        import onnxruntime as ort

        session = ort.InferenceSession(self.source.SerializeToString(), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run(None, {name: x.numpy()})[0])

        return "UVR's formula, ONNX Runtime", self._separation(run, torch.float32)

    def separate(self, mix: F32) -> F32:
        """UVR's formula in float64: the stem times its gain, and the mixture less that, [2, 2, N]."""
        return self._separation(self._double(), torch.float64)(mix)

    def _separation(self, network: Spectra, dtype: torch.dtype) -> Callable[[F32], F32]:
        spec, (n_fft, _, length) = self.spec, self._sizes
        assert spec.stft and spec.chunks
        bins, zeroed, step = spec.stft.bins, spec.stft.zero_before, int((1 - spec.chunks.overlap) * length)

        def chunk(part: torch.Tensor) -> torch.Tensor:
            return _sound(network(_heard(part, n_fft, bins, zeroed)), n_fft, length)

        def run(mix: F32) -> F32:
            whole = torch.from_numpy(stereo(mix)).to(dtype)
            stem = demix(whole, chunk, n_fft, length, step) * spec.gains[0]
            return np.asarray(torch.stack([stem, whole - stem]).float().numpy(), np.float32)

        return run


def demix(mix: torch.Tensor, chunk: Spectra, n_fft: int, length: int, step: int) -> torch.Tensor:
    """UVR's: the song [2, N] padded by half a window, chunks of ``length`` every ``step`` joined with Hann windows."""
    trim, samples = n_fft // 2, mix.shape[-1]
    room = length - 2 * trim
    padded = torch.nn.functional.pad(mix, (trim, room + trim - samples % room))
    total, weight = torch.zeros_like(padded), torch.zeros_like(padded)
    for start in range(0, padded.shape[-1], step):
        part = padded[:, start : start + length]
        own = part.shape[-1]
        window = torch.from_numpy(np.hanning(own)).to(mix.dtype)
        total[:, start : start + own] += chunk(torch.nn.functional.pad(part, (0, length - own)))[:, :own] * window
        weight[:, start : start + own] += window
    return (total / weight)[:, trim:-trim][:, :samples]


def _heard(part: torch.Tensor, n_fft: int, bins: int, zeroed: int) -> torch.Tensor:
    """A chunk [2, N] as the network hears it, [1, 4, F, T]."""
    spectrum = _stft(part, n_fft)[:, :bins]
    spectrum[:, :zeroed] = 0
    return torch.view_as_real(spectrum).permute(0, 3, 1, 2).reshape(1, 4, bins, -1).contiguous()


def _sound(stem: torch.Tensor, n_fft: int, samples: int) -> torch.Tensor:
    """The network's spectrum [1, 4, F, T] as samples [2, N]."""
    _, _, bins, frames = stem.shape
    parts = stem.reshape(2, 2, bins, frames)
    whole = torch.nn.functional.pad(torch.complex(parts[:, 0], parts[:, 1]), (0, 0, 0, n_fft // 2 + 1 - bins))
    return _istft(whole, n_fft, samples)


def _stft(mix: torch.Tensor, n_fft: int) -> torch.Tensor:
    window = torch.hann_window(n_fft, dtype=mix.dtype)
    return torch.stft(mix, n_fft, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)


def _istft(spectrum: torch.Tensor, n_fft: int, samples: int) -> torch.Tensor:
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype)
    return torch.istft(spectrum, n_fft, HOP, window=window, center=True, length=samples)


def _inference(network: ConvTDFNet) -> Spectra:
    def run(x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            stem: torch.Tensor = network(x)
        return stem

    return run


# -- checkpoints ------------------------------------------------------------------------------------------------------


def load(card: Card, choice: Choice) -> MdxNet:
    """UVR's file, official or local, a ConvTDFNet's .ckpt, or a network of the card's sizes with random weights.

    Raises what ``fetch`` raises, FileMissing, WeightsError, UsageError.
    """
    with_the_rest(card.stems[:1], card.stems[1], choice.stems, card.name)
    if choice.seed is not None:
        return _random(card, choice.seed)
    path = choice.path
    if path is None:
        from ortsep.export.weights.download import fetch

        (source,) = card.sources
        path = fetch(source, progress=choice.downloading, offline=choice.offline)
        wanted = card.arguments["key"]
        if wanted and file_key(path) != wanted:
            raise WeightsError(f"{path} has not the key {wanted} of {card.name}: it is cut short or another; delete it")
    made = from_file(path, Wishes(), entry=ENTRIES.get(card.arguments["key"]))
    weights = replace(
        made.spec.weights,
        source=card.sources[0].url if choice.official else path.name,
        licence=card.licence if choice.official else "",
        redistributable=card.redistributable if choice.official else None,
    )
    return replace(made, spec=replace(made.spec, name=card.name, weights=weights), file=f"{card.name}.onnx")


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> MdxNet:
    """The model in a recognised .ckpt, whose hyper_parameters are read too. Raises WeightsError, UsageError."""
    made = from_file(checkpoint.path, Wishes())
    with_the_rest(made.spec.stems, made.spec.names[1], choice.stems, checkpoint.path)
    return made


def from_file(path: Path, wishes: Wishes, entry: Entry | None = None) -> MdxNet:
    """The model in a .onnx file of UVR's or in a .ckpt of ConvTDFNet. ``entry`` holds what the file does not say."""
    from ortsep.export.weights.checkpoints import existing_file, file_sha256

    sha256 = file_sha256(existing_file(path))
    if path.suffix.lower() != ".onnx":
        return _from_checkpoint(path, sha256, entry)
    file = read_file(path)
    if entry is not None and file.key not in ENTRIES:
        known = {"n_fft": entry.n_fft, "compensate": entry.compensate, "primary": entry.primary}
        wishes = replace(wishes, settings={**{k: str(v) for k, v in known.items()}, **wishes.settings})
    found = recognise(file, wishes)
    if not isinstance(found, Recognised) or found.contract != "mdx-net":
        raise WeightsError(f"{path} is no MDX-Net: {found if not isinstance(found, Recognised) else found.title}")
    spec = replace(found.spec, tensors=Tensors(), weights=replace(found.spec.weights, sha256=sha256))
    return MdxNet(spec, onnx.load(str(path)), path.name, found.spec)


def _from_checkpoint(path: Path, sha256: str, entry: Entry | None) -> MdxNet:
    from ortsep.export.weights.checkpoints import load_state

    held = load_state(path)
    state = held.get("state_dict", held)
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path} has no parameters by name under state_dict; it is another kind of file")
    network = load_network(state, str(path))
    settings = held.get("hyper_parameters", {})
    parameters = _settings(settings if isinstance(settings, Mapping) else {}, network.shape, entry, path)
    spec = mdx_spec(parameters, path.stem)
    notes = () if entry else ("a checkpoint says nothing of the gain that UVR calls compensate: 1 is taken",)
    weights = Weights(source=path.name, sha256=sha256)
    spec = replace(spec, weights=weights, parameters=parameter_count(network), notes=(*spec.notes, *notes))
    return MdxNet(spec, network, f"{path.stem}.onnx")


def _settings(held: Mapping[str, Any], shape: Shape, entry: Entry | None, path: Path) -> Entry:
    """What hyper_parameters say of the surroundings, completed by the card's entry."""
    known = {
        "n_fft": held.get("n_fft", entry.n_fft if entry else None),
        "dim_t": held.get("dim_t", entry.dim_t if entry else None),
        "target_name": held.get("target_name", entry.primary if entry else None),
    }
    numbers = (known["n_fft"], known["dim_t"])
    if not all(type(n) is int and 2 <= n <= 1 << 16 for n in numbers) or not isinstance(known["target_name"], str):
        raise WeightsError(
            f"{path} doesn't say its n_fft, its dim_t and its stem (hyper_parameters: {known}); export it under "
            "the name of UVR's file that it is"
        )
    if held.get("hop_length", HOP) != HOP:
        raise WeightsError(f"{path} has a hop of {held['hop_length']}, and all MDX-Nets have {HOP}; take another file")
    n_fft, dim_t = numbers
    if dim_t % shape.multiple or n_fft % 2 or n_fft // 2 + 1 < shape.dim_f or n_fft >= HOP * (dim_t - 1):
        raise WeightsError(f"{path}: {shape.dim_f} bins, n_fft {n_fft} and {dim_t} frames don't go together")
    return Entry(path.stem, shape.dim_f, n_fft, dim_t, entry.compensate if entry else 1.0, known["target_name"])


def _random(card: Card, seed: int) -> MdxNet:
    from ortsep.export.weights.random_weights import randomise

    entry = ENTRIES.get(card.arguments["key"])
    if entry is None:
        raise UsageError(
            f"nobody says how large {card.name} is, so there are no random weights of it; take UVR-MDX-NET-Inst_HQ_3"
        )
    network = ConvTDFNet(Shape(entry.dim_f, 48 if card.parameters else 32, 5, 3, 3, 8, False, True))
    randomise(network, seed)
    network.eval()
    spec = mdx_spec(entry, card.name)
    weights = Weights(f"random:{seed}", random=True)
    spec = replace(spec, weights=weights, parameters=parameter_count(network))
    return MdxNet(spec, network, f"{card.name}.onnx")
