"""Spleeter (Hennequin et al., JOSS 2020): two, four or five stems, a U-Net for each, from TensorFlow checkpoints.

All stems' networks are one graph, because every mask is a ratio over all of them. TensorFlow is not needed; where it is
installed, its operators are what the graph is validated against (``ortsep.export.families.spleeter.tensorflow_route``).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from ortsep.base.arrays import F32, Array
from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.base.whole import scratch
from ortsep.export.families.spleeter import reference, tensorflow_route
from ortsep.export.families.spleeter.config import configured
from ortsep.export.families.spleeter.graph import spleeter_graph
from ortsep.export.families.spleeter.torch_files import read_stems, stem_files
from ortsep.export.families.spleeter.weights import (
    Architecture,
    check,
    expected_shapes,
    networks,
    random_variables,
)
from ortsep.export.family import Choice, Complex, Float, Original, refuse_a_part, stereo
from ortsep.export.weights.archive import unpack_tar_gz
from ortsep.export.weights.files import file_sha256
from ortsep.export.weights.tf_bundle import graph_nodes, read_bundle
from ortsep.models.catalogue import Card, folder_name
from ortsep.models.spec import STFT, Blocks, Filter, ModelSpec, Weights

ROUTES = ("direct", "tensorflow")
CONFIG = "Spleeter's own json, with instrument_list, T, F and the model's type"
SOURCES = True
UNPACKED = 1 << 30
"""Bytes that a checkpoint's archive may hold; the largest official one is 200 MB."""
BATCH = 1
"""Blocks a run. More take no less work (CPU time a block, 2stems, one thread: 210 ms for one, 219 for two, 222 for
four) but more memory: 280, 352, 426 MB (benchmarks/spleeter_blocks.py)."""


@dataclass(frozen=True)
class Spleeter(Original):
    """A loaded model: see ``ortsep.export.family.Original``."""

    spec: ModelSpec
    architecture: Architecture
    variables: Mapping[str, Array]
    prefix: Path | None = None
    """The checkpoint's files, for TensorFlow to read itself; None for random weights."""
    route: str = "direct"

    @property
    def against(self) -> str:
        """What ``network`` computes with."""
        if tensorflow_route.available():
            return "TensorFlow's operators in float64"
        return "float64 network in numpy (TensorFlow is not installed)"

    @property
    def package(self) -> str:
        """What ``transform``, ``inverse`` and ``separate`` compute with."""
        return f"definition in numpy; {self.against}"

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """One graph, of operators of the ONNX standard only, ``portable`` or not.

        Raises MissingDependency where the route is TensorFlow's and tf2onnx is not installed.
        """
        if self.route == "tensorflow":
            yield f"{folder_name(self.spec.name)}.onnx", self._converted()
            return
        nets = networks(self.variables, len(self.spec.stems))
        yield f"{folder_name(self.spec.name)}.onnx", spleeter_graph(self.spec.name, nets, self.architecture).model()

    def _converted(self) -> onnx.ModelProto:
        with scratch("ortsep-spleeter") as folder:
            prefix = self.prefix
            if prefix is None:
                prefix = folder / "model"
                tensorflow_route.write_checkpoint(self.variables, prefix)
            return tensorflow_route.convert(prefix, self.spec.stems, self.architecture)

    def transform(self, mix: F32, member: int = 0) -> Complex:
        return reference.stft(mix)[:, : self.architecture.bins]

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32:
        return reference.istft(np.asarray(spectrum, np.complex128), samples).astype(np.float32)

    def network(self, member: int, inputs: Mapping[str, Float]) -> dict[str, Float]:
        """In TensorFlow where it is installed, else in numpy; float64 both."""
        magnitude, stems = inputs["magnitude"], len(self.spec.stems)
        if tensorflow_route.available():
            source = self.variables if self.prefix is None else self.prefix
            return {"stem_magnitudes": tensorflow_route.network(magnitude, stems, self.architecture, source)}
        nets = networks(self.variables, stems)
        parts = [reference.network(block[None], nets, self.architecture) for block in magnitude]
        return {"stem_magnitudes": np.concatenate(parts)}

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """The first block, filled with zero frames where the mixture is shorter."""
        frames = self.architecture.frames
        spectrum = self.transform(stereo(mix)[:, : frames * reference.HOP])[..., :frames]
        return {"magnitude": reference.blocks(spectrum, frames).astype(np.float32)}

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """Spleeter's own graph in TensorFlow, since its package can't be installed beside ortsep."""
        source = self.variables if self.prefix is None else self.prefix
        return "tensorflow", tensorflow_route.separator(len(self.spec.stems), self.architecture, source)

    def separate(self, mix: F32) -> F32:
        """As spleeter's Separator by default, computed in float64; mono is doubled: [S, 2, N]."""
        spectrum = self.transform(stereo(mix))
        magnitudes = self.network(0, {"magnitude": reference.blocks(spectrum, self.architecture.frames)})[
            "stem_magnitudes"
        ]
        masks = reference.ratio_masks(reference.unblock(magnitudes, spectrum.shape[-1]))
        return np.stack([self.inverse(mask * spectrum, mix.shape[-1]) for mask in masks])


@dataclass(frozen=True)
class _Files:
    variables: Mapping[str, Array]
    source: str
    sha256: str
    prefix: Path | None = None


def load(card: Card, choice: Choice) -> Spleeter:
    """A model from the official archive, from one's own checkpoint, or random.

    ``choice.path``: a folder with ``model.index`` and ``model.data-*`` (or whichever its file ``checkpoint`` names), an
    ``.index`` file, an archive like the official one, or PyTorch ports' files of arrays, the folder or one of them;
    ``choice.config`` is the json that it was trained with, where that is none of Spleeter's own. Raises DownloadError,
    FileMissing, WeightsError, and UsageError for a part of the stems, and MissingDependency where the route is
    TensorFlow's and it is not installed.
    """
    if choice.config is not None:
        if choice.official:
            raise UsageError(f"the official weights of {card.name} need no configuration; leave --config out")
        card = configured(card, choice.config)
    refuse_a_part(card, choice.stems, "each mask is a ratio over all stems")
    if choice.route == "tensorflow":
        tensorflow_route.load_tensorflow()  # before anything is half made
    architecture = Architecture(**card.arguments)
    if choice.seed is not None:
        files = _Files(random_variables(len(card.stems), choice.seed), f"random:{choice.seed}", "")
    elif choice.path is not None:
        files = _local(choice.path)
    else:
        files = _official(card, choice)
    if files.prefix is not None:
        _check_meta(files.prefix.with_name(files.prefix.name + ".meta"), card, architecture)
    check(files.variables, len(card.stems), files.source)
    if choice.path is not None and choice.config is None:
        reach = architecture.bins * card.sample_rate / reference.N_FFT / 1000
        choice.say(
            f"{card.name} separates up to {reach:.0f} kHz, by its {architecture.bins} bins: a checkpoint doesn't say "
            "how many it was trained for, and the same one serves a model with more or fewer; --config FILE says it"
        )
    return Spleeter(
        _spec(card, choice, architecture, files), architecture, files.variables, files.prefix, choice.route or ROUTES[0]
    )


def _official(card: Card, choice: Choice) -> _Files:
    from ortsep.export.weights.official import official_files

    found = official_files(card, choice)
    prefix = _prefix(found.path) if found.path.is_dir() else _unpacked(found.path, found.sha256)
    return _Files(read_bundle(prefix), found.source, found.sha256, prefix)


def _local(path: Path) -> _Files:
    if not path.exists():
        raise FileMissing(f"there is nothing at {path}; give the folder that holds model.index to --weights")
    if files := stem_files(path):
        return _Files(read_stems(files), path.name, " ".join(map(file_sha256, files)))
    if path.is_file() and path.name.endswith((".tar.gz", ".tgz")):
        sha256 = file_sha256(path)
        prefix = _unpacked(path, sha256)
    else:
        prefix = _prefix(path) if path.is_dir() else path.with_suffix("")
        sha256 = ""
    variables = read_bundle(prefix)
    sha256 = sha256 or " ".join(file_sha256(p) for p in sorted(prefix.parent.glob(f"{prefix.name}.data-*")))
    return _Files(variables, path.name, sha256, prefix)


def _check_meta(meta: Path, card: Card, architecture: Architecture) -> None:
    """Raise WeightsError where the graph beside a checkpoint has other activations or another order of stems.

    The variables show neither. Each stem's network ends in a layer ``<stem>_spectrogram`` (spleeter,
    model/functions/unet.py). Without a ``.meta`` there is nothing to be known.
    """
    nodes = graph_nodes(meta)
    operators = {kind for _, kind in nodes}
    elu = "ELU" in (architecture.conv_activation, architecture.deconv_activation)
    if operators and (("Elu" in operators) != elu or ("Softmax" in operators) != architecture.softmax):
        raise WeightsError(
            f"{meta.with_suffix('')} was trained with {'ELU' if 'Elu' in operators else 'no ELU'} and "
            f"{'a softmax' if 'Softmax' in operators else 'no softmax'} over the stems, as its .meta says, which "
            f"{card.name} is not; choose the model it was made for"
        )
    stems = tuple(name.removesuffix("_spectrogram/mul") for name, _ in nodes if name.endswith("_spectrogram/mul"))
    stems = tuple(stem for stem in stems if "/" not in stem)
    if stems and stems != card.stems:
        raise WeightsError(
            f"{meta.with_suffix('')} holds the networks of {', '.join(stems)} in this order, as its .meta says, and "
            f"{card.name} is {', '.join(card.stems)}; choose the model it was made for"
        )


def _unpacked(archive: Path, sha256: str) -> Path:
    """The prefix of the checkpoint in ``archive``, unpacked once into the cache."""
    from ortsep.base.cache import cache_folder

    folder = cache_folder() / f"{archive.name.partition('.')[0]}-{sha256[:16]}"
    unpack_tar_gz(archive, folder, UNPACKED)
    return _prefix(folder)


def _prefix(folder: Path) -> Path:
    """The checkpoint that a folder's file ``checkpoint`` names, or else its only one."""
    listing = folder / "checkpoint"
    if listing.is_file() and listing.stat().st_size <= 1 << 16:
        text = listing.read_text(encoding="utf-8", errors="replace")
        if match := re.search(r'^model_checkpoint_path: "([^"]+)"', text, re.MULTILINE):
            name = re.split(r"[/\\]", match[1])[-1]
            if name and (folder / f"{name}.index").is_file():
                return folder / name
    found = sorted(p for p in folder.glob("*.index") if not p.name.startswith("."))
    if not found:
        raise FileMissing(f"{folder} holds no checkpoint (model.index); name the folder that does")
    if len(found) > 1:
        names = ", ".join(p.name for p in found[:4])
        raise WeightsError(f"{folder} holds {len(found)} checkpoints ({names}); name one of the .index files")
    return found[0].with_suffix("")


def _spec(card: Card, choice: Choice, architecture: Architecture, files: _Files) -> ModelSpec:
    n_fft, hop = reference.N_FFT, reference.HOP
    return ModelSpec(
        name=card.name,
        family=card.family,
        stems=card.stems,
        sample_rate=card.sample_rate,
        channels=card.channels,
        domain="magnitude",
        output="stem_magnitudes",
        stft=STFT(
            n_fft,
            hop,
            architecture.bins,
            pad_left=n_fft,
            pad_right=n_fft - hop,
            pad_mode="zero",
            partial=True,
            envelope="constant",
        ),
        blocks=Blocks(architecture.frames, batch=BATCH, padded=True),
        filter=Filter(method="ratio", exponent=2.0, eps=reference.RATIO_EPS, above="zeros"),
        bandwidth=architecture.bins * card.sample_rate / n_fft,
        weights=Weights(
            source=files.source,
            sha256=files.sha256,
            licence=card.licence if choice.official else "",
            redistributable=card.redistributable if choice.official else None,
            random=choice.seed is not None,
        ),
        parameters=sum(files.variables[name].size for name in expected_shapes(len(card.stems))),
    )
