"""ONNX Runtime sessions: loading a graph on an execution provider, honestly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.models.errors import FileMissing, ModelError, OrtsepError, ProviderError, UsageError

F32 = npt.NDArray[np.float32]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""ortsep's names of execution providers and ONNX Runtime's."""

_OPTIONS: dict[str, dict[str, str]] = {
    # A growing arena doubles its size each time (onnxruntime#13500); shapes are fixed, so ask for what is needed.
    "cuda": {"arena_extend_strategy": "kSameAsRequested"},
    # Partitions as ML programs on static shapes; the older NeuralNetwork format falls back to CPU far more often.
    "coreml": {"ModelFormat": "MLProgram", "RequireStaticInputShapes": "1"},
}

_MEND = {
    "cuda": "pip uninstall -y onnxruntime && pip install 'ortsep[cuda]', and check the driver with nvidia-smi",
    "coreml": "it comes with onnxruntime on macOS only",
}


@dataclass(frozen=True)
class Tensor:
    """Name and shape of a graph's input or output; a free dimension is a name or None."""

    name: str
    shape: tuple[int | str | None, ...]


class Cancelled(OrtsepError):
    """The run was ended by ``Session.cancel``."""


def runtime_packages() -> dict[str, str]:
    """The installed distributions that provide ``onnxruntime``, with versions; two of them overwrite each other."""
    found = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if name.startswith("onnxruntime") and name != "onnxruntime-extensions":
            found[name] = distribution.version
    return found


def choose_provider(wanted: str) -> str:
    """The provider (ortsep's name) that ``wanted`` (``auto`` or a name) means here.

    ``auto`` is CUDA where this onnxruntime has it, else CPU: CoreML is often slower than CPU on these graphs, and is
    only taken by name. Raises UsageError for an unknown name, ProviderError for one that this onnxruntime lacks.
    """
    import onnxruntime

    have = onnxruntime.get_available_providers()
    if wanted == "auto":
        return "cuda" if PROVIDERS["cuda"] in have else "cpu"
    if wanted not in PROVIDERS:
        raise UsageError(f"there is no provider {wanted!r}; choose auto, {', '.join(PROVIDERS)}")
    if PROVIDERS[wanted] not in have:
        packages = ", ".join(f"{n} {v}" for n, v in runtime_packages().items()) or "onnxruntime"
        raise ProviderError(f"provider {wanted} is not in the onnxruntime installed here ({packages}): {_MEND[wanted]}")
    return wanted


class Session:
    """One graph loaded on one provider.

    ``provider`` is the name of the provider that really took the graph, ``inputs`` and ``outputs`` its tensors,
    ``metadata`` the file's metadata_props.

    ``low_memory`` does without ONNX Runtime's arena: somewhat slower, with a much lower peak.
    """

    def __init__(
        self, path: Path, *, provider: str = "auto", threads: int | None = None, low_memory: bool = False
    ) -> None:
        import onnxruntime as ort

        if not path.exists():
            raise FileMissing(f"there is no model file {path}; export one with: ortsep export NAME")
        if path.is_dir():
            raise ModelError(f"{path} is a folder where a .onnx file was expected; name the file inside it")
        self.path = path
        chosen = choose_provider(provider)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        options.enable_cpu_mem_arena = not low_memory
        # Measured on HTDemucs: 1435 MB at the peak with patterns, 858-945 without, 570-608 without reuse too, for no
        # time: reuse gives decoder tensors the buffers of encoder tensors of their shape, and keeps them all the way.
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        if not low_memory:
            _share_arena()
            options.add_session_config_entry("session.use_env_allocators", "1")
        names: list[Any] = [(PROVIDERS[chosen], _OPTIONS[chosen])] if chosen != "cpu" else []
        try:
            self._session = ort.InferenceSession(str(path), options, [*names, PROVIDERS["cpu"]])
        except Exception as error:
            raise ModelError(
                f"{path} can't be loaded as an ONNX model ({_first_line(error)}); export it again"
            ) from error
        self._session.disable_fallback()
        active = self._session.get_providers()[0]
        self.provider = next((n for n, full in PROVIDERS.items() if full == active), active)
        if self.provider != chosen and provider != "auto":
            raise ProviderError(
                f"provider {chosen} was asked for but {self.provider} took {path.name}, because its libraries did "
                f"not load: {_MEND[chosen]}"
            )
        self.inputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_inputs())
        self.outputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._run_options = _run_options()

    def run(self, feeds: Mapping[str, F32], outputs: Sequence[str] | None = None) -> list[F32]:
        """Run the graph. Raises Cancelled after ``cancel``, ModelError where the graph refuses the inputs."""
        try:
            results: list[F32] = self._session.run(outputs, dict(feeds), self._run_options)
        except Exception as error:
            if self._run_options.terminate:
                raise Cancelled(f"the run of {self.path.name} was cancelled") from error
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise ModelError(f"{self.path.name} failed on {shapes} ({_first_line(error)}); export it again") from error
        return results

    def cancel(self) -> None:
        """End the run in progress, from another thread, and every later one until ``renew``."""
        self._run_options.terminate = True

    def renew(self) -> None:
        """Run again after a ``cancel``."""
        if self._run_options.terminate:
            self._run_options = _run_options()


@cache
def _share_arena() -> None:
    """One CPU arena for all sessions of the process: the graphs of a bag then reuse each other's memory."""
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    as_requested, default = 1, -1
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, as_requested, default, default))


def _run_options() -> Any:
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    return options


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
