"""What a family gives: a module with a function ``load``, which returns an ``Original``; and the table of families.

The exporter, the validation and the tests know families only through this.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx

from ortsep.base.arrays import F32
from ortsep.base.errors import UsageError
from ortsep.base.interrupt import at_once
from ortsep.models.catalogue import CHECKPOINTS, Card, card_named
from ortsep.models.spec import ModelSpec

if TYPE_CHECKING:  # it needs torch, which not every family does
    from ortsep.export.weights.frontdoor import Checkpoint

Float = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
Downloading = Callable[[str, int, int], None]

OWN = "torch:"
"""How the name of a network of one's own begins: ``torch:MODULE:FACTORY``, and ``;NAME=VALUE`` for each setting."""

FAMILIES = {
    "demucs": "ortsep.export.families.demucs.original",
    "drums_mini": "ortsep.export.families.drums_mini.original",
    "larsnet": "ortsep.export.families.larsnet.original",
    "mdx23c": "ortsep.export.families.mdx23c.original",
    "mdx_net": "ortsep.export.families.mdx_net.original",
    "moises_light": "ortsep.export.families.moises_light.original",
    "open_unmix": "ortsep.export.families.open_unmix.original",
    "roformer": "ortsep.export.families.roformer.original",
    "scnet": "ortsep.export.families.scnet.original",
    "spleeter": "ortsep.export.families.spleeter.original",
    "vr": "ortsep.export.families.vr.original",
}
"""A card's family (the name of its file in models/cards) and the module that is a ``Family``."""


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
    source: str = ""
    """Where official files come from: ``url``, ``package``, a path of them, or whichever can be had."""
    offline: bool = False
    """Take official files from the cache only."""
    say: Callable[[str], None] = field(default=lambda _: None, compare=False)
    """Told what happens meanwhile, a line each."""
    route: str = ""
    """How the graph is made, of the family's ``ROUTES``; its first one by default."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What no file and no table says of the weights (``--set``), of the family's ``SETTINGS``."""
    contract: str = ""
    """``waveform``: one graph with the transforms inside; by default the family's graphs, the STFT outside."""

    @property
    def official(self) -> bool:
        return self.path is None and self.seed is None


class Original(ABC):
    """A loaded checkpoint: what is exported, and what the export is compared with.

    Arrays are numpy. C channels, N samples, F bins, T frames, S stems.
    """

    spec: ModelSpec
    """Weights, bag and parameters filled in, validation empty."""

    @property
    def package(self) -> str:
        """What ``transform``, ``inverse`` and ``separate`` compute with, for the figures of a validation."""
        return "original package"

    @property
    def against(self) -> str:
        """What ``network`` computes with."""
        return "float64 network"

    @abstractmethod
    def graphs(self, portable: bool = False) -> Iterator[tuple[str, onnx.ModelProto]]:
        """File name and graph of each member, made one at a time so that one is in memory.

        No spec is attached, except to the graphs of a bag whose members differ in domain, transform or chunks.
        ``portable``: operators of the ONNX standard only.
        """

    def graphs_for(self, target: str) -> Iterator[tuple[str, onnx.ModelProto]]:
        """``graphs`` for a target that takes less than ONNX Runtime's CPU provider does (``coreml``, ``web``)."""
        return self.graphs(portable=True)

    @abstractmethod
    def transform(self, mix: F32, member: int = 0) -> Complex | None:
        """The original's own STFT of [C, N], cut to the graph's bins: [C, F, T]; None for waveform models."""

    @abstractmethod
    def inverse(self, spectrum: Complex, samples: int, member: int = 0) -> F32 | None:
        """The original's own inverse of [C, F, T]: [C, N]; None for waveform models."""

    @abstractmethod
    def network(self, member: int, inputs: Mapping[str, F32]) -> Mapping[str, Float]:
        """The original network of one member in float64, on a graph's inputs by name: its outputs by name."""

    @abstractmethod
    def example(self, member: int, mix: F32) -> dict[str, F32]:
        """A member's graph inputs for the beginning of the mixture [C, N], made with the original's own code."""

    @abstractmethod
    def separate(self, mix: F32) -> F32 | None:
        """The original package's own separation of [C, N] with its default options, shifts off: [S, C, N]; None where
        the original is a network alone."""

    def beside(self, oracle: Path) -> "Original":
        """The same, with the original's own code out of a checkout at ``oracle`` in ``separate``. Raises UsageError."""
        raise UsageError(f"{self.spec.name} has no oracle but its own package; leave --oracle out")

    @abstractmethod
    def baseline(self) -> tuple[str, Callable[[F32], F32]]:
        """What ``ortsep bench`` times: a name, and the separation at the original's own precision and speed.

        Raises MissingDependency where the original can't be run here.
        """


class Family(Protocol):
    """A family's module."""

    @property
    def ROUTES(self) -> tuple[str, ...]:
        """The ways in which its graphs can be made (``--route``), the best first; none where there is but one."""

    @property
    def CONFIG(self) -> str:
        """What its ``--config`` is, in a few words; empty where it takes none.

        A family whose official files ``--source`` can choose among has ``SOURCES = True`` besides, one that ``--set``
        can tell something ``SETTINGS``, their names.
        """

    def load(self, card: Card, choice: Choice) -> Original:
        """Load a checkpoint. Raises WeightsError, DownloadError, FileMissing, UsageError, MissingDependency."""


class Recognises(Protocol):
    """A family's module whose checkpoints are known by what is in them (``ortsep.export.weights.frontdoor``)."""

    def from_checkpoint(self, checkpoint: "Checkpoint", choice: Choice) -> Original:
        """The original in a recognised checkpoint. Raises WeightsError, UsageError."""


def load_original(card: Card, choice: Choice) -> Original:
    """Load a checkpoint with its family's module. Raises what that raises; UsageError for an option it can't use."""
    with at_once():
        family: Family = import_module(FAMILIES[card.family])  # which a test holds every one to be
    if choice.route and choice.route not in family.ROUTES:
        known = f"only by way of {', '.join(family.ROUTES)}" if family.ROUTES else "in one way only"
        raise UsageError(f"{card.name} can't be exported by way of {choice.route}, {known}; leave --route out")
    if choice.config and not family.CONFIG:
        raise UsageError(
            f"{card.name} takes no configuration, so {choice.config} would change nothing; leave --config out"
        )
    if choice.source not in ("", "url") and not getattr(family, "SOURCES", False):
        raise UsageError(
            f"the weights of {card.name} come from their address alone; leave --source out, or name a copy of them "
            "with --weights PATH"
        )
    _refuse_settings(family, choice, card.name)
    return family.load(card, choice)


def _refuse_settings(family: object, choice: Choice, name: str) -> None:
    """Raise UsageError for settings that mean nothing to a family."""
    known = getattr(family, "SETTINGS", ())
    if foreign := [setting for setting in choice.settings if setting not in known]:
        takes = f"--set takes {', '.join(known)}" if known else "leave --set out"
        raise UsageError(f"{', '.join(foreign)} means nothing to {name}; {takes}")


def is_checkpoint(name: str) -> bool:
    """Whether ``name`` is meant as the path of a checkpoint, or of a folder of them, and not as a model of the
    catalogue, whose names go before folders of the same name."""
    return Path(name).suffix.lower() in CHECKPOINTS or (Path(name).is_dir() and card_named(name) is None)


def is_own(name: str) -> bool:
    """Whether ``name`` is a torch network of one's own (``ortsep.export.own``)."""
    return name.startswith(OWN)


def open_original(checkpoint: "Checkpoint", choice: Choice) -> Original:
    """The original in a recognised checkpoint, by its family's function ``from_checkpoint``.

    Raises WeightsError for parameters that are not the architecture's, UsageError for stems that it has not.
    """
    family: Recognises = import_module(FAMILIES[checkpoint.architecture.family])
    _refuse_settings(family, choice, checkpoint.where)
    return family.from_checkpoint(checkpoint, choice)


def wanted_stems(available: tuple[str, ...], stems: tuple[str, ...], where: object) -> tuple[str, ...]:
    """The available stems that are asked for (all for none), in the available order. Raises UsageError."""
    if unknown := [stem for stem in stems if stem not in available]:
        raise UsageError(f"{where} has no stem {' or '.join(unknown)}; it has {', '.join(available)}")
    return tuple(stem for stem in available if not stems or stem in stems)


def with_the_rest(stems: tuple[str, ...], rest: str, wanted: tuple[str, ...], where: object) -> tuple[str, ...]:
    """The stems of a network that are asked for; what a single one leaves of the mixture, ``rest``, comes with it.

    Raises UsageError for a stem that isn't there, and for the rest alone.
    """
    rest = rest if len(stems) == 1 else ""
    found = wanted_stems((*stems, *filter(None, [rest])), wanted, where)
    if found == (rest,):
        raise UsageError(
            f"{rest} of {where} is the mixture without {stems[0]}, so it can't be exported alone; choose it when "
            "running the model"
        )
    return tuple(stem for stem in stems if stem in found)


def refuse_config(card: Card, choice: Choice) -> None:
    """Raise UsageError for a configuration beside weights that are no file of the user's, which it would not change."""
    if choice.config is not None and choice.path is None:
        kind = "official" if choice.official else "random"
        raise UsageError(f"the {kind} weights of {card.name} need no configuration; leave --config out")


def refuse_a_part(card: Card, stems: tuple[str, ...], why: str) -> None:
    """Raise UsageError where a model whose stems can't be exported one by one is asked for some of them."""
    if stems and set(wanted_stems(card.stems, stems, card.name)) != set(card.stems):
        raise UsageError(
            f"{card.name} can't be exported for {', '.join(stems)} alone, since {why}; export it whole and choose "
            "stems when running it"
        )


def stereo(mix: F32) -> F32:
    """Mono [1, N] as two equal channels; anything else as it is."""
    return np.repeat(mix, 2, axis=0) if len(mix) == 1 else mix
