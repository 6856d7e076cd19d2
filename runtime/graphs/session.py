"""ONNX Runtime sessions: loading a graph on an execution provider, honestly."""

import contextlib
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ortsep.base.arrays import F32
from ortsep.base.cancel import Cancel
from ortsep.base.errors import Cancelled, FileMissing, ModelError, OrtsepError, ProviderError
from ortsep.graphs.binding import Bound, bindable
from ortsep.graphs.cut import cut
from ortsep.graphs.portable import portable_path, used
from ortsep.graphs.providers import MEND, PROVIDERS, WHOLE, choose_provider, provider_options
from ortsep.graphs.tuned import Setting
from ortsep.models.onnx_file import external_files
from ortsep.models.onnx_signature import read_signature
from ortsep.models.parts import Part

BOUND = ("cuda",)
"""Providers whose memory is not the CPU's, by ONNX Runtime's names of their devices."""
FIXED = ("coreml",)
"""Providers that take no node of which a dimension is free."""
Sizes = Mapping[str, Mapping[int, int]]
"""By the names of inputs and by axes."""
FOLDER_SINCE = (1, 21)
"""Since this version ONNX Runtime takes the folder of a model's weights where the model itself is no file."""
KEPT_APART = ["MatMulAddFusion"]
"""Fusions of ONNX Runtime that make what CoreML refuses: a Gemm of all tokens at once, more than 16384 of them."""
TYPES: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""ONNX Runtime's names of the element types that a graph may take and give."""


@dataclass(frozen=True)
class Tensor:
    """Name and shape of a graph's input or output; a free dimension is a name or None."""

    name: str
    shape: tuple[int | str | None, ...]


class Observer:
    """What a measurement may see of sessions: subclass it and hand it to those that it is for."""

    def opening(self, options: Any) -> None:
        """Before a graph is loaded with these ``SessionOptions``, which may be changed."""

    def opened(self, session: Any) -> None:
        """After it has become an ``InferenceSession``."""

    def running(self) -> AbstractContextManager[None]:
        """Surrounds each run of a graph, in the thread that it runs in."""
        return contextlib.nullcontext()


class Session:
    """One graph, or a ``part`` cut out of it, loaded on one provider, for any number of threads at a time.

    ``provider`` is the name of the provider that really took the graph, ``inputs`` and ``outputs`` its tensors,
    ``metadata`` the file's metadata_props. ``reason`` says why the provider is not the one to be expected, where so.
    A provider by name runs as ortsep thinks best, ``auto`` as ``doctor --tune`` found best, a whole ``Setting`` as it
    says. ``sizes``: what free dimensions are fixed at for a provider that takes nothing of a graph of any size; what is
    of another size runs on the CPU.
    """

    def __init__(
        self,
        path: Path,
        *,
        provider: str | Setting = "auto",
        threads: int | None = None,
        observer: Observer | None = None,
        part: Part | None = None,
        sizes: Sizes = MappingProxyType({}),
    ) -> None:
        if not path.exists():
            raise FileMissing(f"there is no model file {path}; export one with: ortsep export NAME")
        if path.is_dir():
            raise ModelError(f"{path} is a folder where a .onnx file was expected; name the file inside it")
        self.path = path
        self._observer = observer or Observer()
        if part is None:  # else ``cut`` does
            external_files(path)
        chosen, self.reason, setting = choose_provider(provider, path)
        if part is not None and chosen in WHOLE:
            self.reason = f"provider {chosen} was not taken: it takes nothing of a graph that runs in parts"
            chosen = provider = "cpu"
        threads = threads or setting.threads
        options = _options(threads)
        setting.apply(options)
        self._observer.opening(options)
        try:
            self._session = _open(_form(path, setting), options, chosen, threads, part, sizes)
        except Exception as error:
            if isinstance(error, OrtsepError):
                raise
            if chosen == "cpu" or provider != "auto":
                raise (_no_model(path, error) if chosen == "cpu" else _not_taken(path, chosen, error)) from error
            self.reason = f"provider {chosen} was not taken: it can't load {path.name} ({_first_line(error)})"
            try:
                self._session = _open(path, options, "cpu", threads, part)
            except Exception as again:
                raise _no_model(path, again) from again
            chosen = "cpu"
        self._observer.opened(self._session)
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
        self._describe()
        self._bindable = self.provider in BOUND and bindable(self._session)
        self._bound: dict[tuple[str, ...], Bound] = {}
        self._lock = threading.Lock()
        self._threads, self._fixed = threads, bool(sizes) and self.provider in FIXED
        self._of_any_size: Session | None = None

    def _describe(self) -> None:
        """Keep the names, shapes, types and metadata of the graph. Raises ModelError."""
        try:
            for tensor in (*self._session.get_inputs(), *self._session.get_outputs()):
                if tensor.type not in TYPES:
                    raise ModelError(
                        f"{self.path}: {tensor.name} is a {tensor.type}, where audio is floats; export it again"
                    )
            self.inputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_inputs())
            self.outputs = tuple(Tensor(t.name, tuple(t.shape)) for t in self._session.get_outputs())
            self._types = {t.name: TYPES[t.type] for t in self._session.get_inputs()}
            self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        except (UnicodeDecodeError, RuntimeError) as error:
            raise _no_model(self.path, error) from error

    @property
    def batch(self) -> int | None:
        """How many of a batch every run takes, where the graph fixes that."""
        sizes = {t.shape[0] if t.shape else None for t in self.inputs}
        size = sizes.pop() if len(sizes) == 1 else None
        return size if isinstance(size, int) else None

    def run(
        self, feeds: Mapping[str, F32], outputs: Sequence[str] | None = None, cancel: Cancel | None = None
    ) -> list[F32]:
        """Run the graph on float32 arrays, and give float32 arrays, whatever float type the graph has.

        A batch of another size than the graph takes is filled with zeros, or run in parts. Raises Cancelled as soon as
        ``cancel`` is set, ModelError where the graph refuses the inputs.
        """
        if self._fixed and any(_other(t.shape, feeds[t.name]) for t in self.inputs if t.name in feeds):
            return self._free().run(feeds, outputs, cancel)
        names = tuple(outputs or [t.name for t in self.outputs])
        given = {len(value) if value.ndim else 0 for value in feeds.values()}
        size, count = self.batch, max(given, default=0)
        if size is None or count == size or len(given) != 1:
            return self._once(feeds, names, cancel)
        parts = []
        for at in range(0, count, size):
            part = {name: _filled(value[at : at + size], size) for name, value in feeds.items()}
            parts.append([result[: count - at] for result in self._once(part, names, cancel)])
        return [np.concatenate(results) if len(parts) > 1 else results[0] for results in zip(*parts, strict=True)]

    def _free(self) -> "Session":
        """The same graph on the CPU, which takes any size; loaded when it is first needed, and said."""
        with self._lock:
            if self._of_any_size is None:
                self._of_any_size = Session(self.path, provider="cpu", threads=self._threads, observer=self._observer)
                self.reason = f"what is of another size than provider {self.provider} was fixed at ran on the CPU"
            return self._of_any_size

    def given(self, feeds: Mapping[str, F32]) -> dict[str, npt.NDArray[Any]]:
        """``feeds`` as the graph itself takes them at a time: its names, axes, element types and batch."""
        size = self.batch
        return self._fed(feeds if size is None else {k: _filled(value[:size], size) for k, value in feeds.items()})

    def _fed(self, feeds: Mapping[str, F32]) -> dict[str, npt.NDArray[Any]]:
        return {name: _as_type(value, self._types.get(name)) for name, value in feeds.items()}

    def _once(self, feeds: Mapping[str, F32], outputs: tuple[str, ...], cancel: Cancel | None) -> list[F32]:
        cancel = cancel or Cancel()
        cancel.check()
        options = _run_options()
        cast = self._fed(feeds)

        def terminate() -> None:
            options.terminate = True

        try:
            with cancel.calling(terminate), self._observer.running():
                results = self._run(cast, outputs, options)
        except Exception as error:
            if cancel.cancelled:
                raise Cancelled(f"the run of {self.path.name} was cancelled") from error
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise ModelError(f"{self.path.name} failed on {shapes} ({_first_line(error)}); export it again") from error
        return [_as_type(result, np.float32, (np.float16, np.float64)) for result in results]

    def _run(self, feeds: dict[str, npt.NDArray[Any]], outputs: tuple[str, ...], options: Any) -> list[F32]:
        if not self._bindable:
            results: list[F32] = self._session.run(outputs, feeds, options)
            return results
        with self._lock:
            if outputs not in self._bound:
                self._bound[outputs] = Bound(self._session, self.provider, outputs)
        return self._bound[outputs].run(feeds, options)


def _as_type(value: Any, wanted: Any, known: tuple[Any, ...] = (np.float32,)) -> Any:
    """``value`` as ``wanted``, if it is of one of the types ``known``; others are left for the graph to refuse."""
    if wanted is None or value.dtype == wanted or value.dtype not in known:
        return value
    return value.astype(wanted)


def _filled(value: F32, size: int) -> F32:
    """A batch of ``size``, filled with zeros."""
    if len(value) == size:
        return value
    out = np.zeros((size, *value.shape[1:]), value.dtype)
    out[: len(value)] = value
    return out


def _options(threads: int | None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    # Measured on HTDemucs: 1435 MB at the peak with patterns, 858-945 without, 570-608 without reuse too, for no
    # time: reuse gives decoder tensors the buffers of encoder tensors of their shape, and keeps them all the way.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    _share_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _form(path: Path, setting: Setting) -> Path:
    """The file that is loaded for a graph. Raises ProviderError for a portable form that is gone."""
    if not setting.portable:
        return path
    form = portable_path(path)
    if not form.exists():
        raise ProviderError(
            f"the portable form of {path.name} is not in the cache; make it with: ortsep doctor MODEL --tune"
        )
    return used(form)


def _open(
    path: Path,
    options: Any,
    provider: str,
    threads: int | None,
    part: Part | None,
    sizes: Sizes = MappingProxyType({}),
) -> Any:
    import onnxruntime as ort

    names: list[Any] = [] if provider == "cpu" else [(PROVIDERS[provider], provider_options(provider, path, threads))]
    names.append(PROVIDERS["cpu"])
    settings = {}
    if provider in WHOLE:
        fix_batch(options, path, sizes if provider in FIXED else {})
    if provider == "coreml":
        settings["disabled_optimizers"] = KEPT_APART
    if part is None:
        return ort.InferenceSession(str(path), options, names, **settings)
    folder = str(path.parent.resolve())
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    copied = tuple(map(int, ort.__version__.split(".")[:2])) < FOLDER_SINCE
    session = ort.InferenceSession(cut(path, part, copied=copied), options, names, **settings)
    session._model_bytes = None  # kept to make the session anew on another provider, which ortsep never lets it do
    return session


def fix_batch(options: Any, path: Path, sizes: Sizes = MappingProxyType({})) -> None:
    """Have a free batch be one, and other free dimensions what ``sizes`` says: CoreML takes no node of a graph whose
    dimensions are free, and OpenVINO 2025.4 mistakes the channels of an MDX-Net for its bins then."""
    for tensor in read_signature(path).inputs:
        for axis, dimension in enumerate(tensor.shape):
            size = {0: 1, **sizes.get(tensor.name, {})}.get(axis)
            if isinstance(dimension, str) and size is not None:
                options.add_free_dimension_override_by_name(dimension, size)


def _other(shape: tuple[int | str | None, ...], value: F32) -> bool:
    """Whether an array is of another size than ``shape`` fixes, the batch aside."""
    return any(isinstance(n, int) and n != size for n, size in zip(shape[1:], value.shape[1:], strict=False))


def _no_model(path: Path, error: Exception) -> ModelError:
    for kind, said in _TOO_NEW.items():
        if found := re.search(said, str(error), re.S):
            return ModelError(
                f"{path} is of {kind} {found[1]}, and this onnxruntime reads up to {found[2]}; upgrade onnxruntime, or "
                f"save the model in an older {kind}"
            )
    return ModelError(f"{path} can't be loaded as an ONNX model ({_first_line(error)}); export it again")


_TOO_NEW = {
    "opset": r"Opset (\d+) is under development.*till opset (\d+)",
    "IR version": r"model IR version: (\d+), max supported IR version: (\d+)",
}
"""What onnxruntime says of files newer than itself."""


def _not_taken(path: Path, provider: str, error: Exception) -> ProviderError:
    return ProviderError(
        f"provider {provider} can't load {path.name} ({_first_line(error)}); choose --provider cpu, or export the "
        "model with --portable"
    )


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
