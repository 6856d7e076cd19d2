"""``ortsep models``: which models there are for what, which are ready, and what one of them is."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortsep import __version__
from ortsep.base.errors import ModelError
from ortsep.commands.terminal import shortened, shown, wrapped
from ortsep.models.catalogue import (
    BUNDLED,
    Card,
    card_named,
    catalogue,
    exported_home,
    find_card,
    folder_name,
    model_homes,
    ready_folders,
)

if TYPE_CHECKING:
    from ortsep.graphs.library import Loose

_REDISTRIBUTABLE = {True: "yes", False: "no", None: "unstated"}
PURPOSES = {
    "song": "The instruments of a song",
    "vocals": "Vocals and the rest",
    "drums": "The parts of a drum track",
    "speech": "Speech out of noise",
    "cleaning": "Reverb, noise, breath, audience",
    "parts": "One part of a song",
}
"""What one wants, and the title of its table."""
FIRST = {
    "song": ("htdemucs", "htdemucs_ft", "htdemucs_6s", "umxhq", "spleeter:4stems"),
    "vocals": ("mel_roformer_kim", "bs_roformer_ep_317", "UVR-MDX-NET-Inst_HQ_3", "spleeter:2stems"),
    "drums": ("drums_mini", "mdx23c:drumsep", "larsnet"),
    "speech": ("umxse",),
    "cleaning": ("mel_roformer_dereverb", "mel_roformer_denoise"),
}
"""What the short list names; the long ones are a command away."""
STATES = {
    "ready": "runs at once, as does what is bundled",
    "fetch": "ortsep run NAME SONG downloads and exports it first",
    "export": "its weights are here: ortsep run NAME SONG exports it first",
    "by hand": "only a browser can download it: ortsep models NAME says where",
    "own": "weights of your own: ortsep export NAME --weights FILE",
}
_OF_TASK = {
    **dict.fromkeys(("vocals", "instrumental", "karaoke"), "vocals"),
    **dict.fromkeys(("dereverb", "denoise", "crowd"), "cleaning"),
    "drums": "drums",
    "instruments": "song",
}
_CLEANED = {"dry", "reverb", "noreverb", "no_reverb", "crowd", "no_crowd", "aspiration", "noise"}
_SUNG = {"vocals", "instrumental", "karaoke", "male", "female"}


def purpose(card: Card) -> str:
    """What a model is for, by what its card says or by its stems: a key of ``PURPOSES``."""
    if card.task:
        return _OF_TASK[card.task]
    names = {stem.lower() for stem in card.stems}
    if "speech" in names:
        return "speech"
    if "kick" in names:
        return "drums"
    if names & _CLEANED:
        return "cleaning"
    if names & _SUNG and len(names) <= 2:
        return "vocals"
    return "song" if len(names) > 2 else "parts"


def models_command(name: str | None, wanted: str | None, *, everything: bool, as_json: bool) -> int:
    """One model in full, the models for a purpose, or a few for each with what is ready here. Raises ModelError."""
    from ortsep.graphs.library import loose_files

    folders, loose = ready_folders(), loose_files(model_homes())
    weights: dict[str, Path] = {}
    for one in loose:
        if one.card:
            (weights if one.checkpoint else folders).setdefault(folder_name(one.card), one.path)
    if name is not None:
        _one(name, folders, weights, as_json)
        return 0
    rows = [_row(card, folders, weights) for card in catalogue().values() if wanted in (None, purpose(card))]
    if as_json:
        _document(rows, folders, loose)
        return 0
    width = max(80, min(120, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else 80
    tables: list[tuple[str, list[dict[str, Any]]]] = []
    for key, title in PURPOSES.items():
        of_it = [row for row in rows if row["for"] == key]
        first = (
            of_it
            if everything or wanted
            else [r for r in of_it if r["name"] in FIRST.get(key, ()) or r["exported"] or r["weights"]]
        )
        if first:
            first.sort(key=lambda row: FIRST[key].index(row["name"]) if row["name"] in FIRST.get(key, ()) else 99)
            more = f"; {len(of_it) - len(first)} more: --for {key}" if len(of_it) > len(first) else ""
            tables.append((f"{title}{more}", first))
    names = min(25, max((len(row["name"]) for _, of_it in tables for row in of_it), default=0))
    for heading, of_it in tables:
        _table(heading, of_it, names, width)
    if wanted is None:
        _others(folders, weights, loose)
    states = {row["state"] for row in rows}
    lacking = "" if find_spec("onnx") else " (that needs ortsep[onnx] for Spleeter, else ortsep[export], of pip)"
    print()
    for state, meaning in STATES.items():
        if state in states:
            print(wrapped(f"{state:<8} {meaning}{lacking if state in ('fetch', 'export') else ''}", 80))
    print("ortsep models NAME tells all of a model, its licence in full")
    return 0


def _table(title: str, rows: Sequence[dict[str, Any]], names: int, width: int) -> None:
    """A line a model: name, size, stems, the weights' licence in short, and whether it is ready."""
    room = width - names - 33
    print(f"\n{title}")
    print(f"  {'name':<{names}} {'MB':>5}  {'stems':<{room}}  {'weights':<12} here")
    for row in rows:
        stems = shortened(" ".join(row["stems"]), room)
        size = row["size_mb"] or "?"
        line = f"{shortened(row['name'], names):<{names}} {size:>5}  {stems:<{room}}  {_short(row['licence']):<12}"
        print(f"{'*' if row['exported'] else ' '} {line} {row['state']}")


def _short(licence: str) -> str:
    """The plain name of a licence, or the one word of a sentence about it: the version is in the details."""
    name = re.split(r"[(:;]| for | by ", licence)[0].strip()
    return re.sub(r" \d\.\d$", "", name)[:12]


def _own(folders: dict[str, Path]) -> list[tuple[str, Path]]:
    """The folders of one model each that are in no catalogue."""
    from ortsep.graphs.library import of_one_model

    known = {folder_name(card.name) for card in catalogue().values()}
    return [(name, folder) for name, folder in folders.items() if name not in known and of_one_model(folder)]


def _others(folders: dict[str, Path], weights: dict[str, Path], loose: "Sequence[Loose]") -> None:
    """What is ready and in no catalogue: exports of one's own, and other people's files."""
    own = [(name, str(folder)) for name, folder in _own(folders)]
    told = {*folders.values(), *weights.values()}
    for one in (one for one in loose if one.path not in told):
        what = f"{one.title}: {', '.join(one.stems)}" if not one.reason else f"can't run: {one.reason}"
        own.append((one.path.stem, what))
    if own:
        print("\nOf your own")
        for name, what in own:
            print(wrapped(f"* {shown(name)}  {shown(what)}", 80))


def _one(name: str, folders: dict[str, Path], weights: dict[str, Path], as_json: bool) -> None:
    if card_named(name) is None and name in folders:
        raise ModelError(f"{name} is not of the catalogue; ortsep inspect {name} shows what it is")
    row = _row(find_card(name), folders, weights)
    if as_json:
        print(json.dumps({"version": __version__, **row}))
        return
    name = row["name"]
    how = {
        "ready": f"ready in {row['exported']}: ortsep run {name} SONG",
        "bundled": f"comes with ortsep: ortsep run {name} SONG",
        "fetch": f"ortsep run {name} SONG fetches it first, into {exported_home()}",
        "export": f"ortsep run {name} SONG exports it first from {row['weights']}, into {exported_home()}",
        "by hand": f"download it from {row['download']}, then: ortsep export {name} --weights FILE",
        "own": f"ortsep export {name} --weights FILE, with weights of your own",
    }[row["state"]]
    size = f"{row['size_mb']} MB" if row["size_mb"] else "size unknown"
    facts = {
        "title": row["title"],
        "take it": row["advice"],
        "stems": ", ".join(row["stems"]),
        "sound": f"{row['sample_rate']} Hz, {'mono' if row['channels'] == 1 else 'stereo'}",
        "size": f"{size}, {row['parameters'] / 1e6:.1f} million parameters" if row["parameters"] else size,
        "weights": row["licence"],
        "pass on": {"yes": "allowed", "no": "not allowed", "unstated": "the publisher doesn't say"}[
            row["redistributable"]
        ],
        "quality": ", ".join(f"{stem} {db:g} dB" for stem, db in row["sdr"].items()) + " of SDR" * bool(row["sdr"]),
        "aliases": ", ".join(row["aliases"]),
        "export": f"takes pip install 'ortsep[{row['extra']}]'" if row["state"] != "bundled" else "",
        "from": row["homepage"],
        "here": how,
    }
    print(name)
    for key, text in facts.items():
        if text:
            print(wrapped(f"  {key:<8} {text}", 80).replace("\n    ", "\n" + " " * 11))


def _document(rows: list[dict[str, Any]], folders: dict[str, Path], loose: "Sequence[Loose]") -> None:
    extra = [{"name": name, "exported": str(folder)} for name, folder in _own(folders)]
    files = [{**asdict(one), "path": str(one.path)} for one in loose]
    print(json.dumps({"version": __version__, "models": rows + extra, "files": files}))


def _row(card: Card, folders: dict[str, Path], weights: dict[str, Path]) -> dict[str, Any]:
    place, checkpoint = folders.get(folder_name(card.name)), weights.get(folder_name(card.name))
    return {
        "name": card.name,
        "aliases": list(card.aliases),
        "family": card.family,
        "for": purpose(card),
        "title": card.title,
        "stems": list(card.stems),
        "sample_rate": card.sample_rate,
        "channels": card.channels,
        "size_mb": card.size_mb,
        "parameters": card.parameters,
        "licence": card.licence,
        "redistributable": _REDISTRIBUTABLE[card.redistributable],
        "advice": card.advice,
        "homepage": card.homepage,
        "download": str(card.arguments.get("download", "")),
        "extra": card.extra,
        "sdr": dict(card.sdr),
        "exported": str(place) if place else None,
        "weights": str(checkpoint) if checkpoint else None,
        "state": _state(card, place, checkpoint),
    }


def _state(card: Card, place: Path | None, checkpoint: Path | None) -> str:
    if place is not None:
        return "bundled" if place.parent == BUNDLED else "ready"
    if checkpoint is not None:
        return "export"
    if card.sources:
        return "fetch"
    return "by hand" if card.arguments.get("download") else "own"
