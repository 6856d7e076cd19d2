"""The yaml that comes with a checkpoint of MSST (Music-Source-Separation-Training) and of its editions in UVR.

Plain YAML with one tag more, ``!!python/tuple``, that these files use for lists; every other tag is refused, since
Python's would run code. What separation needs is read into ``Settings``; the sections of training are for training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.weights.plain_yaml import PlainLoader, load_plain_yaml
from ortsep.stems.manifest import name_fault

LARGEST = 1 << 20
"""Bytes: the longest of these files is 5 KB."""
OVERLAPS = 2
"""MSST's own inference.num_overlap in most of its yamls, where one has none."""
LONGEST = 1 << 26
"""Samples of a chunk, as the spec allows."""

Section = Mapping[str, Any]


class _Loader(PlainLoader):
    """Plain values, and tuples."""


def _tuple(loader: _Loader, node: yaml.Node) -> tuple[Any, ...]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple that is no list", node.start_mark)
    return tuple(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a configuration. Raises FileMissing, WeightsError."""
    if not path.is_file():
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is longer than {LARGEST >> 20} MB")
        data = load_plain_yaml(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise FileMissing(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except yaml.constructor.ConstructorError as error:
        raise WeightsError(f"{path} asks for more than values ({error.problem}); take its tag away") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(
            f"{path} is not a yaml of values ({reason}); give the one that came with the model"
        ) from error
    if not isinstance(data, dict) or not data:
        raise WeightsError(f"{path} has no sections such as 'model:'; give the yaml that came with the checkpoint")
    return data


@dataclass(frozen=True)
class Settings:
    """What a yaml says about separating, whatever the network. Lengths in samples."""

    stems: tuple[str, ...] = ()
    """Of the network's outputs, in their order; empty where nothing names them."""
    rest: str = ""
    """What the mixture without the one stem is called; empty where the file has no name for it."""
    chunk: int = 0
    """0 where nothing says it."""
    overlaps: int = OVERLAPS
    """How many chunks hear each sample: a chunk begins every chunk // overlaps samples."""
    sample_rate: int = 44100
    normalize: bool = False
    """The song is standardised by mean and deviation of its mono mix, and the stems are put back."""
    model: Section = field(default_factory=dict)
    """The arguments of the network's class."""
    audio: Section = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was assumed."""


def settings(config: Section, where: str) -> Settings:
    """Read a configuration. Raises WeightsError for a value that can't be meant.

    Chunk, overlap and stems as ``utils.model_utils.demix`` takes them; htdemucs keeps its chunk under ``training``.
    """
    sections = ("audio", "training", "inference")
    audio, training, inference = (_section(config, name, where) for name in sections)
    model = config.get("model", config.get("kwargs", {}))
    if isinstance(model, str):
        model = config.get(model, {})
    if not isinstance(model, dict):
        raise WeightsError(f"{where} has a model that is no arguments by name; give the yaml that came with the model")
    named = isinstance(config.get("model"), str)
    read = _Reader(where)
    rate = read.number(training if named else audio, "samplerate" if named else "sample_rate", 44100, 1000, 768_000)
    notes = []
    if named and "segment" in training:
        chunk = rate * read.number(training, "segment", 0, 1, 600)
    else:
        held = inference if inference.get("chunk_size") is not None else audio
        chunk = read.number(held, "chunk_size", 0, 1, LONGEST)
    if inference.get("num_overlap") is None and config:
        notes.append(f"the yaml has no inference.num_overlap: {OVERLAPS} assumed")
    overlaps = read.number(inference, "num_overlap", OVERLAPS, 1, 64)
    names = read.names(training)
    target = training.get("target_instrument")
    rest = ""
    if target is not None:
        read.name(target)
        if names and target not in names:
            raise WeightsError(
                f"{where} has the target_instrument {target} and the instruments {', '.join(names)}; name one of them"
            )
        others = [name for name in names if name != target]
        rest = others[0] if len(names) == 2 and len(others) == 1 else ""
        names = (target,)
    normalize = inference.get("normalize") is True
    return Settings(names, rest, chunk, overlaps, rate, normalize, model, audio, tuple(notes))


def _section(config: Section, name: str, where: str) -> Section:
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WeightsError(f"{where} has no values by name under {name}; give the yaml that came with the model")
    return value


class _Reader:
    """Values of a yaml, checked one by one."""

    def __init__(self, where: str) -> None:
        self.where = where

    def number(self, section: Section, key: str, default: int, least: int, most: int) -> int:
        value = section.get(key)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise WeightsError(
                f"{self.where} has {key} {str(value)[:40]}, not a number from {least} to {most}; mend it"
            )
        return value

    def name(self, value: object) -> None:
        fault = name_fault(value) if isinstance(value, str) else f"{str(value)[:40]!r} is no text"
        if fault:
            raise WeightsError(f"{self.where} has a stem that can't name a file: {fault}; write another name there")

    def names(self, training: Section) -> tuple[str, ...]:
        values = training.get("instruments") or ()
        if not isinstance(values, list | tuple) or len(values) > 64:
            raise WeightsError(f"{self.where} has training.instruments that are no list of stems; mend it")
        for value in values:
            self.name(value)
        if len({value.casefold() for value in values}) < len(values):
            raise WeightsError(f"{self.where} names a stem twice in training.instruments; mend it")
        return tuple(values)
