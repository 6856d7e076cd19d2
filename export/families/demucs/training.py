"""Checkpoints of one's own Demucs training: where their parameters lie, and what their configuration says.

demucs's trainer writes ``checkpoint.th`` with the last ``state`` and the ``best_state``, and hydra's ``config.yaml`` in
the folder ``.hydra`` beside it; others save bare parameters, and their frameworks put prefixes before the names.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.weights.checkpoints import State, plain_state
from ortsep.export.weights.layouts import network_in
from ortsep.export.weights.plain_yaml import load_plain_yaml

ANCHORS = ("encoder.0.conv.weight", "encoder.0.0.weight")
"""A parameter of every HTDemucs and HDemucs, and of every Demucs."""
LONGEST = 1 << 18
"""Bytes of a configuration."""
KINDS = {"htdemucs": "HTDemucs", "hdemucs": "HDemucs", "demucs": "Demucs"}
"""What demucs's configurations call its classes (``demucs.train.get_model``)."""


def trained_state(held: Mapping[str, Any], path: Path) -> State:
    """The network's parameters in what a training left: the best or averaged ones, prefixes taken away.

    Raises WeightsError where there are none, or several that nothing tells apart.
    """
    return plain_state(network_in(held, ANCHORS, str(path)), path)


def network_of(state: State) -> str:
    """The class that has these parameters."""
    if "tencoder.0.conv.weight" not in state and "encoder.0.conv.weight" not in state:
        return "Demucs"
    return "HTDemucs" if any(name.startswith("crosstransformer.") for name in state) else "HDemucs"


def read_arguments(path: Path) -> dict[str, Any]:
    """``arguments_of`` a file. Raises FileMissing, WeightsError."""
    if not path.is_file():
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config")
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("it is too long")
        data = load_plain_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileMissing(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except Exception as error:  # of PyYAML's many, all mean that it is no configuration
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{path} is neither yaml nor json ({reason}); mend it") from error
    return arguments_of(data, str(path))


def arguments_of(data: Any, where: str) -> dict[str, Any]:
    """A constructor's arguments from a configuration: demucs's own (hydra's), or the arguments by name.

    Those may stand below ``kwargs``, ``args`` or ``model``; a fraction may be text, "39/5". Raises WeightsError.
    """
    if isinstance(data, dict) and data.get("model") in KINDS and isinstance(data.get("dset"), dict):
        data = _of_hydra(data)
    for key in ("kwargs", "args", "model"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        raise WeightsError(f"{where} holds no arguments by name; write those of the network, such as 'channels: 48'")
    if sections := [key for key, value in data.items() if isinstance(value, dict)]:
        raise WeightsError(
            f"{where} has a section {sections[0]!r} and is no configuration of demucs; if it is MSST's, export the "
            "checkpoint by its own path: ortsep export FILE --config FILE"
        )
    return {key: _fraction(value) if key == "segment" else value for key, value in data.items()}


def _of_hydra(config: Mapping[str, Any]) -> dict[str, Any]:
    """As ``demucs.train.get_model`` gathers them."""
    data, own = config["dset"], config.get(config["model"])
    arguments = dict(own) if isinstance(own, dict) else {}
    names = {"sources": "sources", "audio_channels": "channels", "samplerate": "samplerate"}
    arguments |= {name: data[key] for name, key in names.items() if key in data}
    segment = config.get("model_segment")
    if segment is None and isinstance(data.get("segment"), int | float):
        segment = 4 * data["segment"]
    return arguments if segment is None else {**arguments, "segment": segment}


def _fraction(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return Fraction(value) if len(value) < 20 and "e" not in value.lower() else value
        except (ValueError, ZeroDivisionError):
            return value
    return value
