"""Execution providers: their names, their options, which one to take, and what ``ortsep doctor`` found of them."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ortsep import __version__
from ortsep.base.cache import cache_folder, sha256_of
from ortsep.base.errors import OutputError, ProviderError, UsageError
from ortsep.base.whole import whole_file
from ortsep.graphs.portable import portable_path
from ortsep.graphs.tuned import EXACT, Setting, read_tuned

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "openvino-bf16": "OpenVINOExecutionProvider",
}
"""ortsep's names of execution providers and ONNX Runtime's."""

ALIASES = {"mps": "coreml"}
"""What others call a provider."""

LOWER = {"openvino-bf16": 25.0}
"""Providers that compute in less than float32, and the dB against the CPU that they must keep. Never automatic."""

WHOLE = ("coreml", "openvino", "openvino-bf16")
"""Providers that take nothing of a part cut out of a graph, whose tensors have no shapes: the CPU runs it alone."""

_OPENVINO = "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-openvino"
MEND = {
    "cuda": "pip uninstall -y onnxruntime && pip install 'ortsep[cuda]', and check the driver with nvidia-smi",
    "coreml": "it comes with onnxruntime on macOS only",
    "openvino": _OPENVINO,
    "openvino-bf16": _OPENVINO,
}
_NO_RUNTIME = ("onnxruntime-extensions", "onnxruntime-genai", "onnxruntime-tools")


def runtime_packages() -> dict[str, str]:
    """The installed distributions that provide ``onnxruntime``, with versions; two of them overwrite each other."""
    found = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith("onnxruntime") and not name.startswith(_NO_RUNTIME):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def provider_options(provider: str, graph: Path, threads: int | None = None) -> dict[str, str]:
    """The options of a provider (ortsep's name) that matter for fixed shapes and exact float32.

    ``threads`` is for OpenVINO, which has threads of its own. Sources: ONNX Runtime's pages of its CUDA, CoreML and
    OpenVINO execution providers.
    """
    if provider == "cuda":
        return {
            # A growing arena doubles its size each time (onnxruntime#13500); shapes are fixed, so ask for what is used.
            "arena_extend_strategy": "kSameAsRequested",
            # An exhaustive search of convolution algorithms costs more at the start than a song.
            "cudnn_conv_algo_search": "HEURISTIC",
            # TF32 keeps 10 bits of the mantissa: 60 dB at best.
            "use_tf32": "0",
        }
    if provider == "coreml":
        options = {
            # Partitions as ML programs on static shapes; the older NeuralNetwork format leaves far more to the CPU.
            "ModelFormat": "MLProgram",
            "RequireStaticInputShapes": "1",
            "MLComputeUnits": "ALL",
        }
        # Compiling takes minutes; a folder per graph, since the cache knows a model by its path alone.
        folder = cache_folder() / "coreml" / sha256_of(graph)[:16]
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            options["ModelCacheDirectory"] = str(folder)
        return options
    if provider in ("openvino", "openvino-bf16"):
        # Left to itself OpenVINO may take bfloat16 where the CPU has it. ``precision`` knows no bf16 on a CPU, its
        # property does.
        hint = "bf16" if provider == "openvino-bf16" else "f32"
        options = {"device_type": "CPU", "load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": hint}})}
        return options if threads is None else {**options, "num_of_threads": str(threads)}
    return {}


@dataclass(frozen=True)
class Verdict:
    """What a provider did with a graph. None is for what could not be found out.

    ``snr_db`` compares with the CPU provider, ``seconds`` are medians of a run; ``nodes`` of ``of_nodes`` (after
    ONNX Runtime's own fusions; a partition that is compiled as a whole counts as one) ran in ``partitions`` pieces.
    """

    provider: str
    installed: bool = False
    loads: bool | None = None
    runs: bool | None = None
    correct: bool | None = None
    snr_db: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    nodes: int | None = None
    of_nodes: int | None = None
    partitions: int | None = None
    usable: bool = False
    """Correct and as exact as float32 is, or as its precision can be; and where it was measured on a real model, faster
    than the CPU."""
    reason: str = ""
    """Why it is not usable, as a clause."""


def versions() -> str:
    """The installed distributions of onnxruntime, as part of a file's name."""
    return "_".join(f"{name}-{version}" for name, version in runtime_packages().items())


def _verdict_path(graph: Path, provider: str) -> Path:
    return cache_folder() / "doctor" / f"{sha256_of(graph)[:24]}.{provider}.{versions()}.{__version__}.json"


def read_verdict(graph: Path, provider: str) -> Verdict | None:
    """What an earlier doctor found about this graph and provider with these versions, if it is known."""
    try:
        data = json.loads(_verdict_path(graph, provider).read_text(encoding="utf-8"))
        known = {field.name for field in fields(Verdict)}
        verdict = Verdict(**{key: value for key, value in data.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    usable = type(verdict.usable) is bool and isinstance(verdict.reason, str)
    return verdict if usable and verdict.provider == provider else None


def write_verdict(graph: Path, verdict: Verdict) -> None:
    """Keep a verdict for ``choose``, or not at all where the cache can't be written."""
    with contextlib.suppress(OutputError), whole_file(_verdict_path(graph, verdict.provider), alone=False) as partial:
        partial.write_text(json.dumps(asdict(verdict)), encoding="utf-8")


class Choice(NamedTuple):
    """A provider, why where it is not what one would expect, and how a model runs on it."""

    provider: str
    reason: str = ""
    setting: Setting = Setting()


def choose_provider(wanted: str | Setting, graph: Path | None = None) -> Choice:
    """What ``wanted`` (``auto``, ortsep's name of a provider, or a whole setting) means here for ``graph``.

    ``auto`` is what ``doctor --tune`` found fastest. Without that it is CUDA where this onnxruntime has it, unless the
    doctor found it wrong or slow on this graph; CoreML and OpenVINO only where the doctor found them right and faster;
    else CPU. One of ``LOWER`` has to be asked for.
    Raises UsageError for an unknown name, ProviderError for one that this onnxruntime lacks.
    """
    import onnxruntime

    have = onnxruntime.get_available_providers()
    if isinstance(wanted, Setting):
        return Choice(_named(wanted.provider, have), "", wanted)
    if wanted != "auto":
        name = _named(wanted, have)
        verdict = read_verdict(graph, name) if graph is not None and name != "cpu" else None
        if verdict is not None and not verdict.usable:
            return Choice(name, f"provider {name} was asked for though ortsep doctor found that it {verdict.reason}")
        return Choice(name)
    exact = [name for name, full in PROVIDERS.items() if full in have and name not in LOWER]
    kept = None if graph is None else read_tuned(graph, versions)
    if kept is None or graph is None or kept.setting.provider not in exact:
        return _automatic([name for name in exact if name != "cpu"], graph)
    setting, name = kept.setting, kept.setting.provider
    if setting.portable and not portable_path(graph).exists():
        return Choice(
            "cpu",
            f"provider {name} was not taken: the portable form of the graph is no longer in the cache; ortsep doctor "
            "MODEL --tune makes it again",
        )
    return Choice(name, "" if name == "cpu" else f"provider {name}: {kept}", setting)


def _named(wanted: str, have: Sequence[str]) -> str:
    """ortsep's name of a provider that is wanted by name. Raises UsageError and ProviderError."""
    wanted = ALIASES.get(wanted, wanted)
    if wanted not in PROVIDERS:
        raise UsageError(f"there is no provider {wanted!r}; choose auto, {', '.join(PROVIDERS)}")
    if PROVIDERS[wanted] not in have:
        packages = ", ".join(f"{n} {v}" for n, v in runtime_packages().items()) or "onnxruntime"
        raise ProviderError(f"provider {wanted} is not in the onnxruntime installed here ({packages}): {MEND[wanted]}")
    return wanted


def _automatic(candidates: list[str], graph: Path | None) -> Choice:
    reasons = []
    for name in candidates:
        verdict = read_verdict(graph, name) if graph is not None else None
        if verdict is None:
            if name == "cuda":
                return Choice(name)
        elif verdict.usable and (verdict.snr_db or 0.0) >= EXACT:
            return Choice(name)
        else:
            found = verdict.reason or f"keeps {verdict.snr_db or 0:.0f} dB of the CPU, and {EXACT:.0f} are needed"
            reasons.append(f"provider {name} was not taken: ortsep doctor found that it {found}")
    return Choice("cpu", "; ".join(reasons))
