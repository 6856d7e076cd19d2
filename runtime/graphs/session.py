"""ONNX Runtime sessions: loading a graph on an execution provider, honestly."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import FileMissing, ModelError, OrtsepError, ProviderError
from ortsep.graphs.binding import Bound, bindable
from ortsep.graphs.providers import MEND, PROVIDERS, choose_provider, provider_options
from ortsep.models.onnx_file import external_files

F32 = npt.NDArray[np.float32]
BOUND = ("cuda",)
"""Providers whose memory is not the CPU's, by ONNX Runtime's names of their devices."""


@dataclass(frozen=True)
class Tensor:
    """Name and shape of a graph's input or output; a free dimension is a name or None."""

    name: str
    shape: tuple[int | str | None, ...]


class Cancelled(OrtsepError):
    """The run was ended by ``Session.cancel``."""


class Session:
    """One graph loaded on one provider.

    ``provider`` is the name of the provider that really took the graph, ``inputs`` and ``outputs`` its tensors,
    ``metadata`` the file's metadata_props. ``reason`` says why the provider is not the one to be expected, where so.
    """

    def __init__(self, path: Path, *, provider: str = "auto", threads: int | None = None) -> None:
        import onnxruntime as ort

        if not path.exists():
            raise FileMissing(f"there is no model file {path}; export one with: ortsep export NAME")
        if path.is_dir():
            raise ModelError(f"{path} is a folder where a .onnx file was expected; name the file inside it")
        self.path = path
        external_files(path)
        chosen, self.reason = choose_provider(provider, path)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        # Measured on HTDemucs: 1435 MB at the peak with patterns, 858-945 without, 570-608 without reuse too, for no
        # time: reuse gives decoder tensors the buffers of encoder tensors of their shape, and keeps them all the way.
        options.enable_mem_pattern = False
        options.enable_mem_reuse = False
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
        try:
            self._session = _open(path, options, chosen, threads)
        except Exception as error:
            if chosen == "cpu" or provider != "auto":
                raise _no_model(path, error) from error
            self.reason = f"provider {chosen} was not taken: it can't load {path.name} ({_first_line(error)})"
            try:
                self._session = _open(path, options, "cpu", threads)
            except Exception as again:
                raise _no_model(path, again) from again
            chosen = "cpu"
        self._session.disable_fallback()
        active = self._session.get_providers()[0]
        names = [chosen, *PROVIDERS]  # several may be one of ONNX Runtime's
        self.provider = next((name for name in names if PROVIDERS[name] == active), active)
        if self.provider != chosen:
            if provider != "auto":
                raise ProviderError(
                    f"provider {chosen} was asked for but {self.provider} took {path.name}, because its libraries did "
                    f"not load: {MEND[chosen]}"
                )
            self.reason = f"provider {chosen} was not taken, because its libraries did not load: {MEND[chosen]}"
        try:
            self.inputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_inputs())
            self.outputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_outputs())
            self._half = frozenset(t.name for t in self._session.get_inputs() if t.type == "tensor(float16)")
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except (UnicodeDecodeError, RuntimeError) as error:
            raise _no_model(path, error) from error
        self._run_options = _run_options()
        self._bindable = self.provider in BOUND and bindable(self._session)
        self._bound: dict[tuple[str, ...], Bound] = {}
        self._binding = threading.Lock()

    def run(self, feeds: Mapping[str, F32], outputs: Sequence[str] | None = None) -> list[F32]:
        """Run the graph. Raises Cancelled after ``cancel``, ModelError where the graph refuses the inputs."""
        given = {name: value.astype(np.float16) if name in self._half else value for name, value in feeds.items()}
        try:
            results = self._run(given, tuple(outputs or [t.name for t in self.outputs]))
        except Exception as error:
            if self._run_options.terminate:
                raise Cancelled(f"the run of {self.path.name} was cancelled") from error
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise ModelError(f"{self.path.name} failed on {shapes} ({_first_line(error)}); export it again") from error
        return [value.astype(np.float32) if value.dtype == np.float16 else value for value in results]

    def _run(self, feeds: dict[str, Any], outputs: tuple[str, ...]) -> list[F32]:
        if not self._bindable:
            results: list[F32] = self._session.run(outputs, feeds, self._run_options)
            return results
        with self._binding:
            if outputs not in self._bound:
                self._bound[outputs] = Bound(self._session, self.provider, outputs)
        return self._bound[outputs].run(feeds, self._run_options)

    def cancel(self) -> None:
        """End the run in progress, from another thread, and every later one until ``renew``."""
        self._run_options.terminate = True

    def renew(self) -> None:
        """Run again after a ``cancel``."""
        if self._run_options.terminate:
            self._run_options = _run_options()


def _open(path: Path, options: Any, provider: str, threads: int | None) -> Any:
    import onnxruntime as ort

    names: list[Any] = [] if provider == "cpu" else [(PROVIDERS[provider], provider_options(provider, path, threads))]
    return ort.InferenceSession(str(path), options, [*names, PROVIDERS["cpu"]])


def _no_model(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} can't be loaded as an ONNX model ({_first_line(error)}); export it again")


@cache
def _share_arena() -> None:
    """One CPU arena for all sessions of the process: the graphs of a bag then reuse each other's memory.

    It grows by powers of two. Regions of just what was asked for never join, so that a tensor of another size finds
    none that is free: Hybrid Demucs on 44 s took 1717 MB then and takes 1346 MB now, the others the same within 30 MB.
    """
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    power_of_two, default = 0, -1
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(0, power_of_two, default, default))


def _run_options() -> Any:
    import onnxruntime as ort

    options = ort.RunOptions()
    options.log_severity_level = 4
    return options


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
