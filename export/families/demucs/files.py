"""Demucs checkpoints: which files make a model, and networks built from them or from a seed."""

import re
import reprlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from demucs.demucs import Demucs
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs

from ortsep.base.errors import FileMissing, UsageError, WeightsError
from ortsep.export.families.demucs.package import MEND, Package, bag_yaml, find_member, load_demucs_package
from ortsep.export.families.demucs.training import network_of, read_arguments
from ortsep.export.weights.checkpoints import existing_file
from ortsep.export.weights.random_weights import randomise
from ortsep.models.catalogue import Card
from ortsep.stems.manifest import name_fault

CLASSES: dict[str, Any] = {"HTDemucs": HTDemucs, "HDemucs": HDemucs, "Demucs": Demucs}
LIMITS = {"depth": 12, "t_layers": 48, "lstm_layers": 8, "dconv_depth": 8, "segment": 600, "audio_channels": 8}
"""Largest values taken from a checkpoint, so that a hostile one can't build for hours."""


@dataclass(frozen=True)
class Part:
    """A member of the bag, not built yet: its shape without storage, how to build it, a weight per stem, its origin."""

    network: str
    shape: Any
    build: Callable[[], torch.nn.Module]
    weights: tuple[float, ...]
    source: str
    sha256: str = ""


def local_files(card: Card, path: Path) -> tuple[list[Path], Any, Any]:
    """The files, bag weights and segment behind a path given to --weights."""
    if path.is_dir():
        bags = sorted(path.glob("*.yaml"))
        bag = path / f"{card.name}.yaml"
        if bag in bags or len(bags) == 1:
            return local_files(card, bag if bag in bags else bags[0])
        held = sorted(p for p in path.iterdir() if p.suffix in (".th", ".safetensors"))
        if len(held) == 1 and len(card.sources) == 1:
            return local_files(card, held[0])
        signatures = [re.split(r"[-.]", source.url.rsplit("/", 1)[-1])[0] for source in card.sources]
        if not held:
            raise FileMissing(f"{path} holds no Demucs model (.th, .safetensors or a bag's .yaml); check the path")
        files = [find_member(path, one) for one in signatures]
        return files, card.arguments.get("weights"), card.arguments.get("segment")
    if existing_file(path).suffix in (".yaml", ".yml"):
        read = bag_yaml(path)
        return list(read.files), read.weights, read.segment
    if len(card.sources) > 1:
        raise WeightsError(
            f"{path.name} is one file and {card.name} is a bag of {len(card.sources)}; "
            "name its .yaml or the folder that holds them all"
        )
    return [path], card.arguments.get("weights"), card.arguments.get("segment")


def open_package(card: Card, path: Path, config: Path | None = None, stems: tuple[str, ...] = ()) -> Package:
    """A file's package. Bare parameters get the arguments of ``config``, or the card's; ``stems`` name its sources.

    Raises FileMissing, WeightsError, and UsageError for a configuration beside a package that brings its own.
    """
    package = load_demucs_package(path)
    if package.network is not None:
        if config is not None:
            raise UsageError(
                f"{path} brings its own configuration, so {config} would change nothing; leave --config out"
            )
        return package
    hydra = path.parent / ".hydra" / "config.yaml"
    config = hydra if config is None and hydra.is_file() else config
    if config is None and "config" not in card.arguments:
        raise WeightsError(
            f"{path} holds parameters without their configuration; give it with --config FILE, or take the file as "
            "demucs ships it"
        )
    arguments = {"sources": list(card.stems), **_config(card)} if config is None else read_arguments(config)
    if "sources" not in arguments or (config is None and stems):
        arguments["sources"] = list(stems or card.stems)
    return Package(network_of(package.state), (), arguments, package.state, package.sha256)


def stems_of(package: Package, path: Path) -> tuple[str, ...]:
    """The names of what a package's network gives. Raises WeightsError for names that can't be."""
    sources = _arguments(str(package.network), package, path).get("sources", ())
    if not isinstance(sources, list | tuple) or not all(isinstance(s, str) for s in sources) or not sources:
        raise WeightsError(f"{path} doesn't name its stems; give a configuration with 'sources: [...]'")
    faults = [fault for name in sources if (fault := name_fault(name))]
    if faults or len(set(sources)) < len(sources):
        raise WeightsError(f"{path} has stems that can't be files ({(faults or ['two of one name'])[0]}); rename them")
    return tuple(sources)


def read_part(card: Card, path: Path, source: str, weights: tuple[float, ...], package: Package | None = None) -> Part:
    """A member of the card's model, of the card's stems, in the card's order. Raises FileMissing, WeightsError."""
    package = package or open_package(card, path)
    expected = card.arguments.get("networks") or list(CLASSES)
    network = str(package.network)
    if network not in expected:
        raise WeightsError(f"{path} holds a {network} and {card.name} is made of {expected[0]}; name another model")
    arguments = _arguments(network, package, path)
    if tuple(arguments.get("sources", ())) != card.stems:
        found = ", ".join(map(str, arguments.get("sources", ())))
        raise WeightsError(f"{path} gives {found} and {card.name} gives {', '.join(card.stems)}; name another model")
    shape = fill(shape_of(lambda: CLASSES[network](**arguments), network, path), package, path)
    bad = next((name for name, value in package.state.items() if not torch.isfinite(value).all()), None)
    if bad:
        raise WeightsError(f"{path} holds values that are not numbers in {bad}; take an earlier checkpoint")

    def build() -> torch.nn.Module:
        model: torch.nn.Module = CLASSES[network](**arguments)
        return fill(model, package, path)

    return Part(network, shape, build, weights, source, package.sha256)


def _arguments(network: str, package: Package, path: Path) -> dict[str, Any]:
    """Constructor arguments by name; names that the class lacks are dropped, as ``demucs.states.load_model`` does."""
    names = list(signature(CLASSES[network]).parameters)
    if len(package.args) > len(names):
        raise WeightsError(f"{path} has {len(package.args)} arguments for a {network}; {MEND}")
    arguments = {**dict(zip(names, package.args, strict=False)), **package.kwargs}
    for name, most in LIMITS.items():
        value = arguments.get(name, 1)
        if not isinstance(value, int | float | Fraction) or not 0 <= value <= most:
            raise WeightsError(f"{path} asks for a {network} with {name} {reprlib.repr(value)[:40]}; {MEND}")
    return {name: value for name, value in arguments.items() if name in names}


def shape_of(make: Callable[[], torch.nn.Module], network: str, where: object) -> torch.nn.Module:
    """The network without storage for its parameters: cheap and bounded, whatever the arguments."""
    try:
        with torch.device("meta"):
            model = make()
    except Exception as error:
        reason = str(error).split("\n")[0][:160] or type(error).__name__
        raise WeightsError(f"{where} describes no {network} that works ({reason}); {MEND}") from error
    return model.eval()


def fill(model: torch.nn.Module, package: Package, path: Path) -> torch.nn.Module:
    """Load the parameters, converted to float32; every one must be there and have its shape."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*meta parameter.*")
            model.load_state_dict(dict(package.state))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split("\n\t")[1:2]).strip()[:160] or "other names or shapes"
        raise WeightsError(
            f"{path} does not fit its {package.network} ({reason}); give the configuration that it was trained with"
        ) from error
    return model.eval()


def _config(card: Card, member: int = 0) -> dict[str, Any]:
    """A card's constructor arguments, for all members or each; a fraction stands there as text, "39/5"."""
    configs = card.arguments.get("configs")
    config = dict(configs[member] if configs else card.arguments.get("config", {}))
    return {key: Fraction(value) if isinstance(value, str) else value for key, value in config.items()}


def random_part(card: Card, seed: int, member: int, weights: tuple[float, ...]) -> Part:
    networks = card.arguments.get("networks")
    if networks is None:
        raise WeightsError(
            f"{card.name} can't be made of random weights, since only its checkpoints say how its networks are built; "
            "give --weights PATH"
        )
    network = networks[member]
    arguments = {"sources": list(card.stems), **_config(card, member)}

    def build() -> torch.nn.Module:
        model = CLASSES[network](**arguments)
        randomise(model, seed)
        filled: torch.nn.Module = model.eval()
        return filled

    shape = shape_of(lambda: CLASSES[network](**arguments), network, f"the card of {card.name}")
    return Part(network, shape, build, weights, f"random:{seed}")
