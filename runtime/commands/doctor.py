"""``ortsep doctor``: what works here, measured."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.cache import cache_folder
from ortsep.base.decibels import PERFECT
from ortsep.base.errors import OutputError
from ortsep.commands.terminal import screen
from ortsep.graphs.model import Model, load_model
from ortsep.graphs.portable import MOST, forms
from ortsep.graphs.providers import MEND, PROVIDERS, WHOLE, Verdict, choose_provider, runtime_packages, write_verdict

_HAVE_OURS = ("cpu", "cuda")
"""Providers with the com.microsoft operators that exports use."""


def doctor_command(reference: str | None, *, as_json: bool, runs: int = 3) -> int:
    """Examine every provider here, on ``reference`` or a small graph. Status 1 where CPU is wrong or packages fight."""
    from ortsep.measure.doctor import PROBE, golden_feeds, probe_feeds

    if reference is None:
        graph, feeds, files, model = PROBE, probe_feeds(), [], None
    else:
        model = load_model(reference)
        graph, feeds = golden_feeds(model)
        files = [model.file(member) for member in model.members]
    parts = model is not None and bool(model.spec.parts)
    verdicts = [_examined(name, graph, feeds, bool(files), runs, parts=parts) for name in _providers()]
    for verdict in verdicts:
        for file in files if verdict.installed and verdict.provider in PROVIDERS else []:
            write_verdict(file, verdict)
    choice = choose_provider("auto", graph)
    screen.clear()
    conflict = _conflict()
    document = {
        "version": __version__,
        "versions": _versions(),
        "packages": runtime_packages(),
        "conflict": conflict,
        "decoders": _decoders(),
        "cache": _cache(),
        "portable_forms": {"count": len(forms()), "bytes": sum(forms().values()), "most": MOST},
        "model": reference,
        "providers": [asdict(verdict) for verdict in verdicts],
        "auto": choice.provider,
        "auto_reason": choice.reason,
        "advice": None if model is None else advice(model, verdicts),
    }
    if as_json:
        print(json.dumps(document))
    else:
        _table(document)
    cpu = next(v for v in verdicts if v.provider == "cpu")
    return 1 if conflict or not cpu.usable else 0


def advice(model: Model, verdicts: Sequence[Verdict]) -> str | None:
    """What would make a model's graph fit a provider better; None where nothing is known to."""
    cut = [v for v in verdicts if v.provider not in _HAVE_OURS and (v.partitions or 0) > 1]
    if not cut or not model.described or model.spec.portable:
        return None
    pieces = " and ".join(f"{v.provider} in {v.partitions} pieces" for v in cut)
    return (
        f"the graph runs on {pieces}, between which its com.microsoft operators stay on the CPU; without them it may "
        f"be faster there: ortsep doctor {model.spec.name} --tune tries it, "
        f"ortsep export {model.spec.name} --portable makes such a file"
    )


def _providers() -> list[str]:
    """ortsep's own providers, then whatever else this onnxruntime has, by ONNX Runtime's names."""
    import onnxruntime

    others = [name for name in onnxruntime.get_available_providers() if name not in PROVIDERS.values()]
    return [*PROVIDERS, *others]


def _examined(provider: str, graph: Path, feeds: Any, real: bool, runs: int, *, parts: bool) -> Verdict:
    import onnxruntime

    from ortsep.measure.doctor import examine_apart, short_name

    name = short_name(provider)
    if PROVIDERS.get(provider, provider) not in onnxruntime.get_available_providers():
        return Verdict(name, reason=f"is not in this onnxruntime: {MEND.get(name, 'install the package that has it')}")
    if parts and name in WHOLE:
        return Verdict(name, installed=True, reason="takes nothing of a graph that runs in parts")
    screen.doing(f"examining {name} ...")
    return examine_apart(graph, provider, feeds, judge_speed=real, runs=runs)


def _conflict() -> str | None:
    packages = runtime_packages()
    if len(packages) < 2:
        return None
    return (
        f"{' and '.join(packages)} are installed and overwrite each other: pip uninstall -y {' '.join(packages)}, then "
        "install the one you want"
    )


def _versions() -> dict[str, str]:
    import soundfile

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("numpy", "soundfile", "soxr"):
        found[name] = metadata.version(name)
    found["libsndfile"] = soundfile.__libsndfile_version__
    found["cores"] = str(os.cpu_count())
    return found


def _decoders() -> dict[str, Any]:
    import soundfile

    return {"libsndfile": sorted(soundfile.available_formats()), "ffmpeg": _ffmpeg()}


def _cache() -> str | None:
    """Where verdicts are kept; None for an account without a home."""
    try:
        return str(cache_folder())
    except OutputError:
        return None


def _ffmpeg() -> str | None:
    """The version of the ffmpeg on the PATH that has its ffprobe; None where there is none that works."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None or shutil.which("ffprobe") is None:
        return None
    try:
        done = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[2] if done.returncode == 0 and len(words) > 2 else None


def _table(document: dict[str, Any]) -> None:
    print("  ".join(f"{name} {version}" for name, version in document["versions"].items()))
    print("  ".join(f"{name} {version}" for name, version in document["packages"].items()))
    if document["conflict"]:
        print(f"CONFLICT: {document['conflict']}")
    print(f"libsndfile reads {', '.join(document['decoders']['libsndfile'])}")
    print(f"ffmpeg: {document['decoders']['ffmpeg'] or 'none; m4a, aac and wma need it'}")
    held = document["portable_forms"]
    sizes = f"{held['bytes'] / 1e6:.0f} of at most {held['most'] / 1e6:.0f} MB"
    count = f"{held['count']} graph{'s' * (held['count'] != 1)}"
    print(f"cache: {document['cache'] or 'none'}; portable forms of {count}, {sizes}\n")
    print(f"{'provider':<13} {'loads':<6} {'runs':<6} {'dB':>6} {'nodes':>11} {'pieces':>7} {'s a run':>9}  verdict")
    for found in document["providers"]:
        nodes = "unknown" if found["nodes"] is None else f"{found['nodes']} of {found['of_nodes']}"
        equal = "equal" if found["snr_db"] == PERFECT else _mark(found["snr_db"])
        row = (
            f"{found['provider']:<13} {_mark(found['loads']):<6} {_mark(found['runs']):<6} "
            f"{equal:>6} {nodes if found['runs'] else '-':>11} {_mark(found['partitions']):>7} "
            f"{_mark(found['seconds']):>9}"
        )
        print(f"{row}  {'usable' if found['usable'] else found['reason']}")
    print(f"\nauto means {document['auto']}{'; ' if document['auto_reason'] else ''}{document['auto_reason']}")
    if document["advice"]:
        print(document["advice"])
    if document["model"] is None:
        print("speed was not judged: name a model to have its verdict kept for auto")


def _mark(value: Any) -> str:
    return {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else f"{value:g}"
