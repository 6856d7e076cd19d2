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
from ortsep.base.decibels import in_words
from ortsep.base.errors import OutputError
from ortsep.base.whole import whole_file

EXACT = 100.0
"""dB against ortsep's own setting that whatever ``auto`` takes has to keep: float32 in another order keeps more."""


@dataclass(frozen=True)
class Setting:
    """How a model runs: the provider (ortsep's name), the threads of a run (None: one a physical core), whether they
    wait spinning, whether tensors come from an arena, how many blocks of a song run at a time (None: as many as ortsep
    thinks best), and whether a ``portable`` form of the graph takes its place."""

    provider: str = "cpu"
    threads: int | None = None
    spinning: bool = True
    arena: bool = True
    blocks: int | None = None
    portable: bool = False

    def __post_init__(self) -> None:
        counts = all(n is None or (type(n) is int and 1 <= n <= 1024) for n in (self.threads, self.blocks))
        flags = {type(self.spinning), type(self.arena), type(self.portable)}
        if type(self.provider) is not str or not counts or flags != {bool}:
            raise ValueError(f"{self} is no setting")

    def __str__(self) -> str:
        made = ["made portable"] * self.portable
        counts = [(self.threads, "thread"), (self.blocks, "block")]
        made += [f"{n} {word}{'s' * (n != 1)}{' at a time' * (word == 'block')}" for n, word in counts if n]
        made += [word for word, left in (("no spinning", not self.spinning), ("no arena", not self.arena)) if left]
        return ", ".join([self.provider, *made])

    def apply(self, options: Any) -> None:
        """Change ``SessionOptions`` that are otherwise as ortsep makes them; the threads are theirs already."""
        if not self.spinning:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not self.arena:
            options.add_session_config_entry("session.use_env_allocators", "0")
            options.enable_cpu_mem_arena = False


@dataclass(frozen=True)
class Kept:
    """A setting, and what was found of it: its time of that of ortsep's own setting, and dB against that."""

    setting: Setting
    ratio: float
    snr_db: float

    def __str__(self) -> str:
        made = "a portable form of the graph, " * self.setting.portable
        equal = f"equal ({in_words(self.snr_db, 0)})"
        return f"{made}{equal} in {self.ratio:.2f} of the CPU's time, as ortsep doctor --tune found"


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


def read_tuned(graph: Path, versions: Callable[[], str]) -> Kept | None:
    """What was kept for this graph, machine and ``versions`` of onnxruntime; None where nothing was, or nothing exact
    enough for ``auto``."""
    try:
        if not any((cache_folder() / "doctor").glob("*.tuned.*")):  # before the file is hashed
            return None
        found = json.loads(_path(graph, versions()).read_text(encoding="utf-8"))
        kept = Kept(Setting(**found["setting"]), float(found["ratio"]), float(found["snr_db"]))
    except (OSError, OutputError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return kept if kept.snr_db >= EXACT and kept.ratio >= 0 else None


def write_tuned(graph: Path, versions: str, kept: Kept) -> bool:
    """Keep a setting; whether the cache took it."""
    try:
        with whole_file(_path(graph, versions), alone=False) as partial:
            partial.write_text(json.dumps(asdict(kept)), encoding="utf-8")
    except OutputError:
        return False
    return True
