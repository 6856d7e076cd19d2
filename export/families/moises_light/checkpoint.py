"""Which Moises-Light a checkpoint holds: generation, preset and stems, read off its keys and shapes.

Sizes all follow from the shapes; the hop, the activation and the like do not, so that a model which is no preset needs
its constructor's arguments.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import WeightsError
from ortsep.export.families.moises_light.architecture import (
    ACTIVATIONS,
    Architecture,
    Shape,
    State,
    of_card,
    parameters,
    presets,
    rotary_frequencies,
)
from ortsep.models.catalogue import Card

TELLING = tuple(f.name for f in fields(Architecture) if f.name not in ("new", "sources"))
"""What tells presets apart."""


# -- recognising ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """A recognised checkpoint: its architecture, the preset's card (None for none), parameters, and what to tell."""

    arch: Architecture
    card: Card | None
    state: State
    notes: tuple[str, ...] = field(default=())


def sizes(shapes: Mapping[str, Shape], where: str) -> Architecture:
    """The architecture that the shapes of a checkpoint spell. Raises WeightsError where they spell none."""

    def count(pattern: str) -> int:
        return len({m[1] for name in shapes if (m := re.match(pattern, name))})

    new = "bottleneck.final_norm.gamma" in shapes or "final_conv.weight" in shapes
    try:
        first = shapes["first_conv.conv.weight"]
        final = shapes["final_conv.weight" if new else "final_conv.conv.weight"]
        small, band = shapes["bottleneck.split_merge.tdf.fc1.weight"]
        block = "bottleneck.rope_blocks.0.time_transformer.layers.0"
        heads, deep = shapes[f"{block}.0.to_gates.weight"]
        bands = final[0] // first[1]
        head = shapes.get("source_head.weight")
        stems = head[0] // first[1] if head else 1
        freq_dim = band * bands
        n_fft = shapes.get("stft_window", (6144,))[0]
        if "freq_pad" in shapes:
            n_fft = 2 * (freq_dim + shapes["freq_pad"][2] - 1)
        return Architecture(
            new=new,
            sources=tuple(f"stem{i}" for i in range(stems)),
            audio_channels=first[1] // 2,
            n_fft=n_fft,
            freq_dim=freq_dim,
            n_bands=bands,
            G=first[0],
            n_enc=count(r"encoder_blocks\.(\d+)\."),
            n_dec=count(r"dec_heavy_us\.(\d+)\."),
            n_split_enc=count(r"bottleneck\.split_merge\.split1\.(\d+)\."),
            n_split_dec=count(r"dec_heavy_blocks\.0\.split1\.(\d+)\.") or 1,
            n_rope=count(r"bottleneck\.rope_blocks\.(\d+)\."),
            bn_factor=band // small,
            edge_kernel_size=first[2],
            heads=heads,
            dim_head=shapes[f"{block}.0.to_qkv.weight"][0] // (3 * heads),
            ff_mult=shapes[f"{block}.1.net.1.weight"][0] // deep,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{where} has a first_conv but is not a Moises-Light ({error} does not fit); "
            "take a checkpoint of the package moises-light"
        ) from error


def differences(have: Mapping[str, Shape], want: Mapping[str, Shape], most: int = 6) -> str:
    """What keeps a checkpoint from being an architecture: missing, surplus and other shapes; empty for nothing."""
    lines = [f"{n} is {list(have[n])} for {list(s)}" for n, s in want.items() if n in have and have[n] != s]
    lines += [f"{n} is missing" for n in want if n not in have]
    lines += [f"{n} is surplus" for n in have if n not in want and not _spare(n)]
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return ", ".join(lines[:most]) + more


def _spare(name: str) -> bool:
    return name in ("stft_window", "freq_pad") or name.endswith(".num_batches_tracked")


def match_preset(arch: Architecture) -> tuple[Card | None, str]:
    """The preset that an architecture is, and otherwise how it differs from the nearest."""
    gaps = {}
    for card in presets().values():
        preset = of_card(card, arch.new)
        other = [
            f"{n} {getattr(arch, n)} for {getattr(preset, n)}"
            for n in TELLING
            if getattr(arch, n) != getattr(preset, n)
        ]
        if not other:
            return card, ""
        gaps[card.name] = other
    nearest = min(gaps, key=lambda name: len(gaps[name]))
    return None, f"it differs from {nearest} of {arch.generation} in {', '.join(gaps[nearest])}"


def configured(arch: Architecture, config: Mapping[str, Any], where: str) -> Architecture:
    """``arch`` with what shapes don't tell from the constructor's arguments. Raises WeightsError if they clash."""
    given = dict(config)
    transformer = given.pop("transformer_params", None) or {}
    if not isinstance(transformer, Mapping):
        raise WeightsError(f"{where} has transformer_params that are not arguments by name; write 'heads: 4' and so on")
    given |= {k: v for k, v in transformer.items() if k != "flash_attn" and "dropout" not in str(k)}
    only = {"use_mask": True, "norm_name": "BatchNorm", "win_size": given.get("n_fft", arch.n_fft)}
    for name, value in only.items():
        if given.pop(name, value) != value:
            raise WeightsError(f"{where} has {name} = {config[name]!r} and the exporter can only do {value!r}")
    known = {f.name for f in fields(Architecture)} - {"new"}
    if unknown := [n for n in given if n not in known]:
        raise WeightsError(f"{where} has arguments that MoisesLight does not take: {', '.join(map(str, unknown))}")
    hop = given.get("hop_size", arch.hop_size)
    if type(hop) is not int or not 1 <= hop <= arch.n_fft:
        raise WeightsError(f"{where} has hop_size {hop!r}; it is a number of samples up to {arch.n_fft}")
    if type(given.get("normalized", True)) is not bool:
        raise WeightsError(f"{where} has normalized {given['normalized']!r}; it is true or false")
    if "sources" in given:
        if not isinstance(given["sources"], list | tuple):
            raise WeightsError(f"{where} has sources {given['sources']!r}; they are a list of stem names")
        given["sources"] = tuple(map(str, given["sources"]))
        if len(given["sources"]) != len(arch.sources):
            raise WeightsError(
                f"{where} names {len(given['sources'])} sources and the checkpoint has {len(arch.sources)}"
            )
    free = ("sources", "hop_size", "normalized", "act_name")
    wrong = [f"{n} {v!r} for {getattr(arch, n)!r}" for n, v in given.items() if n not in free and v != getattr(arch, n)]
    if wrong:
        raise WeightsError(f"{where} does not fit the checkpoint: {', '.join(wrong)} by its shapes")
    if given.get("act_name", "ReLU") not in ACTIVATIONS:
        raise WeightsError(f"{where} has act_name {given['act_name']!r}; it is one of {', '.join(ACTIVATIONS)}")
    return replace(arch, **given)


# -- finding the network in a training framework's file ---------------------------------------------------------------

ANCHOR = "first_conv.conv.weight"
AVERAGED = re.compile(r"(?<![a-z])(ema|shadow|averaged?|swa)(?![a-z])")
SETTINGS = ("hyper_parameters", "hparams", "config", "args", "kwargs", "model")


def networks(held: Mapping[str, Any], path: str = "") -> dict[str, State]:
    """Every Moises-Light in nested mappings of tensors, by where it lies: keys of mappings, then the names' prefix."""
    names = [k for k in held if isinstance(k, str)]
    prefixes = sorted((n.removesuffix(ANCHOR) for n in names if n.endswith(ANCHOR)), key=len, reverse=True)
    found: dict[str, State] = {}
    taken: set[str] = set()
    for prefix in prefixes:
        own = [n for n in names if n.startswith(prefix) and n not in taken and hasattr(held[n], "shape")]
        taken |= set(own)
        found[path + prefix] = {n.removeprefix(prefix): _array(held[n]) for n in own}
    for name in names:
        if isinstance(held[name], Mapping) and path.count("/") < 4:
            found |= networks(held[name], f"{path}{name}/")
    return dict(sorted(found.items()))


def _array(tensor: Any) -> npt.NDArray[Any]:
    if isinstance(tensor, np.ndarray):
        return tensor
    tensor = tensor.detach().cpu()
    array: npt.NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def pick(found: Mapping[str, State], where: str) -> tuple[State, str]:
    """The one network that a checkpoint means, and what to tell: of a model and its moving average the average.

    An average that leaves BatchNorm's statistics out takes them from the model. Raises WeightsError for a choice that
    the names don't settle.
    """
    averaged = [n for n in found if AVERAGED.search(n.lower())]
    raw = [n for n in found if n not in averaged]
    if len(averaged) == 1 and raw:
        buffers = {k: v for k, v in found[raw[0]].items() if k not in found[averaged[0]]}
        lent = ", with the statistics of " + repr(raw[0]) if any(".running_" in k for k in buffers) else ""
        if len(raw) == 1 or not lent:
            return {**buffers, **found[averaged[0]]}, f"took the moving average {averaged[0]!r}{lent}"
    first = next(iter(found))
    if all(_same(found[first], state) for name, state in found.items() if name != first):
        return found[first], f"took the parameters under {first!r}" if first else ""
    raise WeightsError(
        f"{where} holds {len(found)} different networks, under {', '.join(map(repr, found))}; "
        "save the one that is meant to a file of its own"
    )


def _same(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def settings(held: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The constructor's arguments that a training framework stored beside the parameters, as far as there are any."""
    known = {f.name for f in fields(Architecture)} - {"new"} | {"use_mask", "norm_name", "win_size"}
    out = {k: v for k, v in held.items() if k in known and isinstance(v, str | int | float | list | tuple)}
    for key in SETTINGS:
        inner = held.get(key)
        if isinstance(inner, Mapping) and depth < 3 and not any(hasattr(v, "shape") for v in inner.values()):
            out |= settings(inner, depth + 1)
    return out


def recognise(held: Mapping[str, Any], where: str, config: Mapping[str, Any] | None = None) -> Found:
    """Find the network in a loaded checkpoint and say what it is. ``where`` names the file in messages.

    ``config``: the constructor's arguments, needed for a model that is no preset. Stems that nothing names are called
    ``stem0``... Raises WeightsError for a foreign, damaged or ambiguous checkpoint.
    """
    found = networks(held)
    if not found:
        names = [f"{k}" for k in held][:4]
        raise WeightsError(
            f"{where} is not a Moises-Light: no name ends in {ANCHOR} (it holds {', '.join(names) or 'nothing'}...); "
            "take a checkpoint of the package moises-light"
        )
    state, told = pick(found, where)
    shapes = {name: tuple(map(int, array.shape)) for name, array in state.items()}
    arch = sizes(shapes, where)
    freqs = [n for n in parameters(arch) if n.endswith("rotary_embed.freqs")]
    for name in freqs:  # not learned, and left out by some averages
        state.setdefault(name, rotary_frequencies(arch).astype(np.float32))
    shapes |= {name: tuple(map(int, state[name].shape)) for name in freqs}
    want = parameters(arch)
    if not any(".running_mean" in name for name in shapes):
        raise WeightsError(f"{where} has no BatchNorm statistics; models with another norm_name can't be exported")
    if gap := differences(shapes, want):
        raise WeightsError(f"{where} is not a whole Moises-Light of {arch.generation}: {gap}; save it again")
    state = {name: state[name] for name in (*want, *(n for n in ("stft_window",) if n in state))}
    if bad := [n for n, array in state.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{where} has values in {bad[0]} that are not finite; take an earlier checkpoint")
    if (window := state.pop("stft_window", None)) is not None:
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(arch.n_fft) / arch.n_fft)
        if window.shape != hann.shape or np.abs(window - hann).max() > 1e-5:
            raise WeightsError(
                f"{where} has a window that is not Hann's of {arch.n_fft} samples, the only one exported"
            )
    stored = settings(held)
    if config is not None:
        arch = configured(arch, config, "the configuration")
    elif stored:
        arch = configured(arch, stored, f"{where} in its settings")
    card, gap = match_preset(arch)
    if card is None and config is None and len({"G", "hop_size"} & set(stored)) < 2:
        raise WeightsError(f"{where} is no preset: {gap}; give the constructor's arguments with --config FILE")
    what = f"{card.name} of moises-light {arch.generation}" if card else f"no preset: {gap}"
    return Found(arch, card, state, tuple(filter(None, (f"recognised {what}", told, _unnamed_average(held)))))


def _unnamed_average(held: Mapping[str, Any]) -> str:
    """Averages stored as a list of tensors can't be matched with names."""
    for name, value in held.items():
        inner = value.values() if isinstance(value, Mapping) else [value]
        lists = any(isinstance(v, list | tuple) and v and hasattr(v[0], "shape") for v in inner)
        if isinstance(name, str) and AVERAGED.search(name.lower()) and lists:
            return f"left aside the average {name!r}, whose tensors have no names"
    return ""
