"""Demucs v4 and v3 (Défossez 2021; Rouard, Massa, Défossez 2023): official models, bags, packages, MSST's networks."""

from dataclasses import replace
from pathlib import Path

from ortsep.base.errors import WeightsError
from ortsep.export.families.demucs import msst
from ortsep.export.families.demucs.bag import DemucsOriginal
from ortsep.export.families.demucs.files import local_files, open_package, random_part, read_part, stems_of
from ortsep.export.families.demucs.package import Package
from ortsep.export.family import Choice, refuse_config, wanted_stems
from ortsep.export.weights.download import fetch
from ortsep.export.weights.frontdoor import Checkpoint
from ortsep.models.catalogue import Card

ROUTES: tuple[str, ...] = ()
CONFIG = "demucs's configuration, its network's arguments by name, or the yaml of MSST"


def load(card: Card, choice: Choice) -> DemucsOriginal:
    """A Demucs model from official files, ``--weights`` or a seed. Only the members that the wanted stems need.

    ``choice.path``: a .th, .safetensors or bag .yaml, or a folder with these; whatever stems it has are the model's.
    ``choice.config`` describes parameters that come bare. Raises WeightsError, DownloadError,
    FileMissing; UsageError for a stem that the model lacks.
    """
    if "yaml" in card.arguments:
        return msst.load(card, choice)
    refuse_config(card, choice)
    weights, segment = card.arguments.get("weights"), card.arguments.get("segment")
    files: list[Path] = []
    packages: dict[int, Package] = {}
    if choice.path is not None:
        files, weights, segment = local_files(card, choice.path)
        packages[0] = open_package(card, files[0], choice.config, choice.stems)
        stems = stems_of(packages[0], files[0])
        weights = weights if len(files) > 1 or stems == card.stems else None
        card = replace(card, stems=stems)
    wanted = tuple(card.stems.index(stem) for stem in wanted_stems(card.stems, choice.stems, card.name))
    count = len(files) or len(card.sources)
    rows = [tuple(float(w) for w in row) for row in weights or [[1.0] * len(card.stems)] * count]
    if len(rows) != count or any(len(row) != len(card.stems) for row in rows):
        raise WeightsError(f"the bag does not weigh {count} models for {len(card.stems)} stems; mend it")
    if any(not sum(row[k] for row in rows) for k in wanted):
        raise WeightsError("this bag gives a stem to no model at all; mend its weights")
    parts = []
    for k in (k for k, row in enumerate(rows) if any(row[s] for s in wanted)):
        if choice.seed is not None:
            parts.append(random_part(card, choice.seed + k, k, rows[k]))
        elif choice.path is not None:
            package = packages.pop(k, None) or open_package(card, files[k], choice.config)
            parts.append(read_part(card, files[k], files[k].name, rows[k], package))
        else:
            path = fetch(card.sources[k], progress=choice.downloading, offline=choice.offline)
            parts.append(read_part(card, path, card.sources[k].url, rows[k]))
    return DemucsOriginal(card, parts, wanted, segment)


def from_checkpoint(checkpoint: Checkpoint, choice: Choice) -> DemucsOriginal:
    """A recognised checkpoint, of MSST or of demucs. Raises WeightsError, UsageError."""
    return msst.from_checkpoint(checkpoint, choice)
