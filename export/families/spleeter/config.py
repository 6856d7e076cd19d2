"""Spleeter's own configuration file (resources/*.json), as ``spleeter train`` and ``separate`` take it with ``-p``."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ortsep.base.errors import FileMissing, WeightsError
from ortsep.export.families.spleeter.weights import FRAMES
from ortsep.models.catalogue import Card
from ortsep.stems.manifest import name_fault

TYPES = {"unet.unet": False, "unet.softmax_unet": True}
"""Its networks, and whether their masks are a softmax over the stems."""
FIXED = {"frame_length": 4096, "frame_step": 1024, "n_channels": 2}
"""What every published model has, and the exported graph is made for."""
CHOSEN: dict[str, Any] = {"separation_exponent": 2, "mask_extension": "zeros"}
"""What is an option of ``ortsep run``, as every published model has it."""
LONGEST = 1 << 16
"""Bytes."""


def configured(card: Card, path: Path) -> Card:
    """The card with the instruments, bins, frames, activations and filter of a configuration.

    Raises FileMissing, and WeightsError for a file that is no such configuration or asks for what can't be exported.
    """
    data = _read(path)
    for key, value in FIXED.items():
        if data.get(key, value) != value:
            raise WeightsError(
                f"{path} has {key} {str(data[key])[:20]}, and only {value}, which every published model has, can be "
                "exported: there is nothing to prove another one with; mend it, if the model was trained so"
            )
    for key, standing in CHOSEN.items():
        if data.get(key, standing) != standing:
            raise WeightsError(
                f"{path} has {key} {str(data[key])[:20]}, which is chosen when the model runs (--exponent, "
                f"--mask-extension); write {standing} there"
            )
    stems, bins, rate = data.get("instrument_list"), data.get("F", 1024), data.get("sample_rate", card.sample_rate)
    if not isinstance(stems, list) or not 1 <= len(stems) <= 16 or not all(isinstance(s, str) for s in stems):
        raise WeightsError(
            f"{path} has no instrument_list of 1 to 16 names; give the file that the model was trained with"
        )
    faults = [fault for stem in stems if (fault := name_fault(stem))]
    if faults or len(set(stems)) < len(stems):
        fault = (faults or ["two of one name"])[0]
        raise WeightsError(f"{path} has instruments that can't be files ({fault}); rename them")
    frames = data.get("T", FRAMES)
    for key, value in (("F", bins), ("T", frames)):
        if type(value) is not int or not 64 <= value <= 2048 or value % 64:
            raise WeightsError(f"{path} has {key} {str(value)[:20]}, which is no multiple of 64 up to 2048; mend it")
    if type(rate) is not int or not 1000 <= rate <= 768_000:
        raise WeightsError(f"{path} has sample_rate {str(rate)[:20]}, which can't be; mend it")
    return replace(
        card, stems=tuple(stems), sample_rate=rate, arguments={"bins": bins, "frames": frames, **_network(data, path)}
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileMissing(f"there is no configuration at {path}; check the path given to --config")
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError("it is too long")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileMissing(f"{path} can't be read ({error.strerror}); change its permissions") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON ({str(error)[:160]}); give Spleeter's configuration") from error
    if not isinstance(data, dict):
        raise WeightsError(f"{path} holds no settings by name; give Spleeter's configuration")
    return data


def _network(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The architecture: the type of network and its activations, with the defaults of ``unet.py``."""
    model = data.get("model", {})
    params = model.get("params", {}) if isinstance(model, dict) else None
    kind = model.get("type", "unet.unet") if isinstance(model, dict) else None
    if not isinstance(kind, str) or kind not in TYPES or not isinstance(params, dict):
        raise WeightsError(f"{path} has a model of type {str(kind)[:40]!r}; {' and '.join(TYPES)} can be exported")
    defaults = {"conv_activation": "LeakyReLU", "deconv_activation": "ReLU"}
    chosen = {key: params.get(key, default) for key, default in defaults.items()}
    if unknown := [str(value)[:20] for value in chosen.values() if value not in ("LeakyReLU", "ReLU", "ELU")]:
        raise WeightsError(f"{path} has the activation {unknown[0]}; ReLU, LeakyReLU and ELU can be exported")
    return {**chosen, "softmax": TYPES[kind]}
