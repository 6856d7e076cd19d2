"""MSST's front door: any checkpoint of a known architecture, with its yaml, told by what is in it.

The architecture is read off the parameters' names, never off the file's; a yaml that describes another one is refused.
What a file holds and what was assumed is put in one table, for whoever exports it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base.errors import UsageError, WeightsError
from ortsep.export.weights.checkpoints import existing_file, file_sha256, load_any
from ortsep.export.weights.layouts import State, arrays, groups, pick
from ortsep.export.weights.msst_yaml import Section, Settings, read_yaml, settings


@dataclass(frozen=True)
class Architecture:
    """What tells an architecture: a parameter that every one of its networks has, and others it must (not) have."""

    name: str
    title: str
    anchor: str
    family: str = ""
    """The folder in export/families that exports it; empty for one that ortsep knows and can't export."""
    has: str = ""
    """A pattern that some name matches."""
    lacks: str = ""
    """A pattern that no name matches."""
    mend: str = ""
    """What to do with one that has no family here, where there is more to do than take another model."""
    folder: bool = False
    """A file is a stem, called as it is, and a folder of them the model; the configuration is none of MSST's."""

    def holds(self, names: Iterable[str]) -> bool:
        """Whether these are the names of its parameters."""
        names = set(names)
        found = self.anchor in names and (not self.has or any(re.search(self.has, name) for name in names))
        return found and not (self.lacks and any(re.search(self.lacks, name) for name in names))


BANDS, ENCODER = "band_split.to_features.0.0.gamma", "encoder.0.SDlayer.convs.0.weight"
NEWER = r"to_value_residual_mix|\.branch\.|residual_fn|pope|dynamic_alpha|static_alpha|to_v\.|learned_value"
"""Names of later editions of the RoFormers: value residuals, hyper-connections, PoPE."""

ARCHITECTURES = (
    Architecture("bs_conformer", "a BS- or Mel-Band Conformer", BANDS, has=r"\.conv\.net\."),
    Architecture("roformer_experimental", "a RoFormer of a later edition", BANDS, has=NEWER),
    Architecture("bs_roformer", "BS-RoFormer", BANDS, "roformer", has=r"^final_norm\.gamma$"),
    Architecture("mel_band_roformer", "Mel-Band RoFormer", BANDS, "roformer", lacks=r"^final_norm\.gamma$"),
    Architecture("scnet_masked", "SCNet Masked", ENCODER, has=r"^pos_embed_f$"),
    Architecture("scnet_tran", "SCNet Tran", ENCODER, has=r"time_layer\.layers\."),
    Architecture("scnet", "SCNet", ENCODER, "scnet"),
    Architecture("mdx23c", "MDX23C", "encoder_blocks.0.tfc_tdf.blocks.0.shortcut.weight", "mdx23c"),
    Architecture(
        "mdx_net", "MDX-Net's ConvTDFNet", "first_conv.0.weight", "mdx_net", has=r"^encoding_blocks\.0\.tfc\."
    ),
    Architecture("htdemucs", "HTDemucs", "tencoder.0.conv.weight", "demucs", has=r"^crosstransformer\."),
    Architecture("hdemucs", "HDemucs", "tencoder.0.conv.weight", "demucs", lacks=r"^crosstransformer\."),
    Architecture("demucs", "Demucs v3", "encoder.0.0.weight", "demucs", has=r"^decoder\.0\."),
    Architecture("vr_5_1", "UVR's VR network 5.1", "stg1_low_band_net.0.enc1.conv.0.weight", "vr"),
    Architecture("vr", "UVR's VR network", "stg1_low_band_net.enc1.conv1.conv.0.weight", "vr"),
    Architecture("open_unmix", "Open-Unmix", "input_mean", "open_unmix", has=r"^lstm\.weight_hh_l2$", folder=True),
    Architecture("larsnet", "LarsNet", "input_norm.weight", "larsnet", has=r"^dec6\.conv_trans\.", folder=True),
    Architecture("bandit_v2", "BandIt v2", "band_split.norm_fc_modules.0.combined.0.weight"),
    Architecture("bandit", "BandIt", "band_split.norm_fc_modules.0.norm.weight"),
    Architecture("apollo", "Apollo", "net.0.band_net.input_norm.weight"),
    Architecture("bs_mamba2", "BS-Mamba2", "separator_mask.0.band_rnn.norm.weight"),
    Architecture("segm_models", "a segmentation model", "first_conv.weight", has=r"^unet_model\."),
    Architecture("swin_upernet", "Swin UperNet", "first_conv.weight", has=r"^swin_upernet_model\."),
    Architecture("scnet_unofficial", "the unofficial SCNet", "sd_blocks.0.sd_layers.0.downsample.conv.weight"),
    Architecture("conformer", "a Conformer", "core.input_proj_stft.weight"),
    Architecture(
        "moises_light",
        "Moises-Light",
        "first_conv.conv.weight",
        has=r"^bottleneck\.rope_blocks\.",
        mend="export it by its preset's name: ortsep export moises_light:paper_large --weights FILE",
    ),
)
"""The first that fits is meant."""

_ANCHORS = tuple(dict.fromkeys(kind.anchor for kind in ARCHITECTURES))


@dataclass(frozen=True)
class Checkpoint:
    """A recognised file: its architecture, parameters by name (floats as float32), and what its yaml says."""

    path: Path
    architecture: Architecture
    state: State
    settings: Settings
    config: Section
    """The yaml whole; empty without one."""
    sha256: str
    table: tuple[tuple[str, str], ...]
    """What was found, a row a fact."""

    @property
    def where(self) -> str:
        return str(self.path)


def open_checkpoint(path: Path, config: Path | None = None) -> Checkpoint:
    """Load and recognise a checkpoint. A yaml of the same name beside it, or hydra's, is taken without ``config``.

    Raises FileMissing, and WeightsError for a file that is damaged, asks for code to run, holds no or several
    networks, an adapter (LoRA) without its model, an architecture that can't be exported, or another than its yaml.
    """
    existing_file(path)
    beside = (*map(path.with_suffix, (".yaml", ".yml")), path.parent / ".hydra" / "config.yaml")  # hydra's: demucs
    config = config or next((place for place in beside if place.is_file()), None)
    sections = {} if config is None or config.suffix.lower() == ".json" else read_yaml(config)
    described = described_architecture(sections)
    _refuse_described(described, config)
    held = load_any(path)
    place, tensors = _parameters(held, path)
    kind = next(kind for kind in ARCHITECTURES if kind.holds(tensors))
    _refuse(kind, f"{path} is")
    if described and not _agree(described, kind.name):
        raise WeightsError(
            f"{path} is {kind.title} by its parameters and {config} describes {described}; "
            "give the yaml that came with this checkpoint"
        )
    state, stored = arrays(tensors, str(path))
    read = settings({} if kind.folder else sections, str(config))
    table = _table(path, config, kind, place, state, stored, read)
    return Checkpoint(path, kind, state, read, sections, file_sha256(path), table)


def _refuse(kind: Architecture, what: str) -> None:
    """Raise WeightsError for an architecture without a family."""
    if not kind.family and kind.mend:
        raise WeightsError(f"{what} {kind.title}; {kind.mend}")
    if not kind.family:
        raise WeightsError(f"{what} {kind.title}, which ortsep can't export; it exports {exported()}")


def _parameters(held: Mapping[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """The one network of a loaded file, and where it lies."""
    found = {place: tensors for place, tensors in groups(held, _ANCHORS) if _known(tensors)}
    adapters = [name for tensors in found.values() for name in tensors if ".lora_" in name or ".lora." in name]
    if adapters or (not found and any("lora_" in name for name in _names(held))):
        raise WeightsError(
            f"{path} holds LoRA adapters, which change a model that isn't all here; merge them into it "
            "(MSST: merge_weights) and save that"
        )
    if not found:
        names = list(_names(held))[:4]
        raise WeightsError(
            f"{path} holds no network that ortsep knows (its first names are {', '.join(names) or 'none'}); "
            f"it exports {exported()}"
        )
    return pick(found, str(path))


def _known(tensors: Iterable[str]) -> bool:
    names = set(tensors)
    return any(kind.holds(names) for kind in ARCHITECTURES)


def _names(held: Mapping[str, Any], depth: int = 0) -> Iterable[str]:
    """Names of tensors, those of nested mappings too."""
    for name, value in held.items():
        if hasattr(value, "shape"):
            yield str(name)
        elif isinstance(value, Mapping) and depth < 4:
            yield from _names(value, depth + 1)


def exported() -> str:
    """The titles of the architectures that can be exported from a file, for messages."""
    return ", ".join(kind.title for kind in ARCHITECTURES if kind.family)


# -- what a yaml describes --------------------------------------------------------------------------------------------

_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("bs_conformer", ("freq_conformer_depth",)),
    ("bs_roformer", ("freqs_per_bands",)),
    ("mel_band_roformer", ("num_bands", "dim", "depth")),
    ("scnet_tran", ("sources", "band_SR", "tran_depth")),
    ("scnet", ("sources", "band_SR")),
    ("scnet_unofficial", ("bandsplit_ratios",)),
    ("bandit", ("band_specs",)),
    ("bandit_v2", ("band_type", "n_sqm_modules")),
    ("apollo", ("feature_dim", "layer", "win")),
    ("bs_mamba2", ("feature_dim", "num_repeat_mask")),
    ("segm_models", ("encoder_name", "decoder_type")),
    ("mdx23c", ("num_subbands", "num_scales")),
    ("swin_upernet", ("num_subbands", "num_channels")),
    ("moises_light", ("n_rope", "n_bands")),
    ("conformer", ("freq_bins", "embed_dim")),
)
"""Arguments that only this architecture's constructor takes together; the first that fits is meant."""


def described_architecture(config: Section) -> str:
    """MSST's name of the architecture that a yaml describes, "" where that can't be told (it has no key for it)."""
    model, training = config.get("model", config.get("kwargs")), config.get("training")
    said = training.get("model_type") if isinstance(training, Mapping) else None
    if isinstance(said, str):
        return said
    if isinstance(model, str):
        return model
    if not isinstance(model, Mapping):
        return ""
    return next((name for name, marks in _MARKS if all(mark in model for mark in marks)), "")


def _agree(described: str, name: str) -> bool:
    """Whether a yaml's description fits. ``htdemucs`` is what MSST calls every Demucs."""
    return described == name or (described, name) in {("htdemucs", "hdemucs"), ("demucs", "hdemucs")}


def _refuse_described(described: str, config: Path | None) -> None:
    """Say what can't be exported before reading gigabytes of it."""
    kind = next((kind for kind in ARCHITECTURES if kind.name == described), None)
    if kind is not None:
        _refuse(kind, f"{config} describes")


# -- what was found ---------------------------------------------------------------------------------------------------


def _table(
    path: Path, config: Path | None, kind: Architecture, place: str, state: State, stored: str, read: Settings
) -> tuple[tuple[str, str], ...]:
    count = sum(int(np.prod(array.shape)) for array in state.values())
    unnamed = "by the files' names" if kind.folder else "not named"
    rows = [
        ("architecture", kind.title),
        ("parameters", f"{count:,} in {path.name}" + (f", under {place!r}" if place else "") + f", as {stored}"),
        ("configuration", config.name if config else "none"),
        ("stems", ", ".join(read.stems) + (f"; mixture minus it: {read.rest}" if read.rest else "") or unnamed),
        *(("assumed", note) for note in read.notes),
    ]
    return tuple(rows)


def text_of(table: Iterable[tuple[str, str]]) -> str:
    """The table as lines."""
    rows = list(table)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def name_stems(checkpoint: Checkpoint, count: int, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Names for the ``count`` outputs of a network: the yaml's, or those of ``--stems`` where it names none.

    Raises WeightsError for another number of names, UsageError for a stem that isn't there.
    """
    names = checkpoint.settings.stems or wanted
    if not names:
        raise WeightsError(
            f"nothing names the {count} stem{'s' * (count > 1)} of {checkpoint.path}; give its yaml with --config, "
            "or the names in order with --stems"
        )
    if len(names) != count:
        raise WeightsError(
            f"{checkpoint.path} gives {count} stem{'s' * (count > 1)} and its configuration names {len(names)} "
            f"({', '.join(names)}); give the yaml that came with it"
        )
    if unknown := [name for name in wanted if name not in (*names, checkpoint.settings.rest)]:
        raise UsageError(f"{checkpoint.path} has no stem {' or '.join(unknown)}; it has {', '.join(names)}")
    return names


def missing_setting(checkpoint: Checkpoint, what: str) -> WeightsError:
    """An error for what neither the parameters nor the yaml say."""
    return WeightsError(
        f"{checkpoint.path} doesn't say its {what}, and nor does a yaml; give the yaml that came with it with --config"
    )


def check_names(
    checkpoint: Checkpoint, wanted: Mapping[str, tuple[int, ...]], given: State | None = None, most: int = 6
) -> None:
    """Refuse a checkpoint whose parameters aren't those of its architecture, all of them and no others.

    ``wanted``: name and shape of each; ``given``: the parameters, the checkpoint's by default. Raises WeightsError with
    what is missing, unknown or of another shape.
    """
    have = {name: tuple(map(int, array.shape)) for name, array in (given or checkpoint.state).items()}
    lines = [f"{n} is {list(have[n])} for {list(s)}" for n, s in wanted.items() if n in have and have[n] != s]
    lines += [f"{n} is missing" for n in wanted if n not in have]
    lines += [f"{n} is unknown" for n in have if n not in wanted]
    if lines:
        more = f" and {len(lines) - most} more" if len(lines) > most else ""
        raise WeightsError(
            f"{checkpoint.path} is not a whole {checkpoint.architecture.title}, or of another edition: "
            f"{', '.join(lines[:most])}{more}; take the edition that loads in MSST"
        )
