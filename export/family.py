"""What a family's exporter gives: one module per family with a function ``load``, which returns an ``Original``.

The exporter, the validation and the tests know families only through this.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.base.errors import UsageError
from ortsep.base.interrupt import at_once
from ortsep.models.catalogue import Card
from ortsep.models.spec import ModelSpec

if TYPE_CHECKING:  # it needs torch, which not every family does
    from ortsep.export.weights.frontdoor import Checkpoint

F32 = npt.NDArray[np.float32]
Float = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
Downloading = Callable[[str, int, int], None]

SUFFIXES = (".ckpt", ".chpt", ".th", ".pt", ".pth", ".safetensors", ".bin")
"""Of files that ``ortsep export FILE`` takes for checkpoints."""


@dataclass(frozen=True)
class Choice:
    """Which weights: the card's official ones (both None), a local path, or seeded random ones."""

    path: Path | None = None
    seed: int | None = None
    config: Path | None = None
    """Constructor arguments of a model that is no preset, where a family takes them (yaml or json)."""
    stems: tuple[str, ...] = ()
    """Only these stems, where a family can export a subset."""
    downloading: Downloading | None = field(default=None, compare=False)
    """Told how official files come: name, bytes so far, bytes in all (0 where nobody knows)."""
    route: str = ""
    """How the graph is made, where a family has ``ROUTES``; its first one by default."""

    @property
    def official(self) -> bool:
        return self.path is None and self.seed is None


class Original(Protocol):
    """A loaded checkpoint: what is exported, and what the export is compared with.

    Arrays are numpy. C channels, N samples, F bins, T frames, S stems.
    """

    @property
    def spec(self) -> ModelSpec:
        """The model's spec: weights, bag and parameters filled in, validation empty."""

    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """File name and graph of each member, made one at a time so that one is in memory.

        No spec is attached, except to the graphs of a bag whose members differ in domain, transform or chunks.
        ``portable``: operators of the ONNX standard only.
        """

    def transform(self, mix: F32, member: int = 0) -> Complex | None:
        """The original's own STFT of [C, N], cut to the graph's bins: [C, F, T]; None for waveform models."""

    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32 | None:
        """The original's own inverse of [C, F, T]: [C, N]; None for waveform models."""

    def network(self, member: int, inputs: Mapping[str, F32]) -> dict[str, Float]:
        """The original network of one member in float64, on a graph's inputs by name: its outputs by name."""

    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """A member's graph inputs for the beginning of the mixture [C, N], made with the original's own code."""

    def separate(self, mix: F32) -> F32:
        """The original package's own separation of [C, N] with its default options, shifts off: [S, C, N]."""

    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """What ``ortsep bench`` times: a name, and the separation at the original's own precision and speed.

        Raises MissingDependency where the original can't be run here.
        """


def load_original(card: Card, choice: Choice) -> Original:
    """Load a checkpoint with its family's module. Raises WeightsError, DownloadError, FileMissing, UsageError."""
    with at_once():
        module = import_module(f"ortsep.export.families.{card.family}.original")
    routes = getattr(module, "ROUTES", ())
    if choice.route and choice.route not in routes:
        known = f"only by way of {', '.join(routes)}" if routes else "in one way only"
        raise UsageError(f"{card.name} can't be exported by way of {choice.route}, {known}; leave --route out")
    original: Original = module.load(card, choice)
    return original


def is_checkpoint(name: str) -> bool:
    """Whether ``name`` is meant as a checkpoint's path and not as a model of the catalogue."""
    return Path(name).suffix.lower() in SUFFIXES


def open_original(checkpoint: "Checkpoint", choice: Choice) -> Original:
    """The original in a recognised checkpoint, by its family's function ``from_checkpoint``.

    Raises WeightsError for parameters that are not the architecture's, UsageError for stems that it has not.
    """
    module = import_module(f"ortsep.export.families.{checkpoint.architecture.family}.original")
    original: Original = module.from_checkpoint(checkpoint, choice)
    return original
