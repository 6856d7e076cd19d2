"""What ``ortsep doctor --tune`` found to be fastest for a graph on this machine, kept for provider ``auto``."""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ortsep import __version__
from ortsep.base.cache import cache_folder, sha256_of
from ortsep.base.errors import OutputError
from ortsep.base.whole import whole_file


@dataclass(frozen=True)
class Setting:
    """How a session is made: the provider (ortsep's name), the threads of a run (None: one a physical core), whether
    they wait spinning, and whether tensors come from an arena."""

    provider: str = "cpu"
    threads: int | None = None
    spinning: bool = True
    arena: bool = True

    def __post_init__(self) -> None:
        threads = self.threads is None or (type(self.threads) is int and 1 <= self.threads <= 1024)
        if type(self.provider) is not str or not threads or {type(self.spinning), type(self.arena)} != {bool}:
            raise ValueError(f"{self} is no setting")

    def __str__(self) -> str:
        threads = "a thread a core" if self.threads is None else f"{self.threads} thread{'s' * (self.threads != 1)}"
        rest = [word for word, left in (("no spinning", not self.spinning), ("no arena", not self.arena)) if left]
        return ", ".join([self.provider, threads, *rest])

    def apply(self, options: Any) -> None:
        """Change ``SessionOptions`` that are otherwise as ortsep makes them; the threads are theirs already."""
        if not self.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not self.arena:
            options.add_session_config_entry("session.use_env_allocators", "0")
            options.enable_cpu_mem_arena = False


def machine() -> str:
    """This machine in a few letters: its processor and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return hashlib.sha256(f"{name} {cores}".encode()).hexdigest()[:12]


def _path(graph: Path, versions: str) -> Path:
    return cache_folder() / "doctor" / f"{sha256_of(graph)[:24]}.tuned.{machine()}.{versions}.{__version__}.json"


def read_tuned(graph: Path, versions: Callable[[], str]) -> Setting | None:
    """What was kept for this graph, machine and ``versions`` of onnxruntime; None where nothing was."""
    try:
        if not any((cache_folder() / "doctor").glob("*.tuned.*")):  # before the file is hashed
            return None
        return Setting(**json.loads(_path(graph, versions()).read_text(encoding="utf-8")))
    except (OSError, OutputError, ValueError, TypeError, RecursionError):
        return None


def write_tuned(graph: Path, versions: str, setting: Setting) -> bool:
    """Keep a setting; whether the cache took it."""
    try:
        with whole_file(_path(graph, versions), alone=False) as partial:
            partial.write_text(json.dumps(asdict(setting)), encoding="utf-8")
    except OutputError:
        return False
    return True
