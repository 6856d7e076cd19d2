"""What a server is told when it starts."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from ortsep.base.errors import UsageError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """``host`` and ``port`` (0: any that is free) to listen on; the folder ``data`` holds the jobs and their files.

    ``jobs`` separations run side by side and share the processors. Sizes in bytes, times in seconds unless named
    otherwise. Raises UsageError for values that can't be meant.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 8000
    models: tuple[str, ...] = ()
    """The models that are offered; empty for every one that is ready here. The first is what a request gets that
    names none."""
    jobs: int = 1
    threads: int | None = None
    """Of each graph; the processors divided by ``jobs`` by default."""
    provider: str = "auto"
    max_upload: int = 1024 * MEGABYTE
    max_length: float = 3 * 3600.0
    """Seconds of audio that one song may have."""
    max_queue: int = 1000
    """Jobs that may wait; one more is answered 429."""
    max_rate: float = 600.0
    """Uploads a minute from one address."""
    keep: float = 24 * 3600.0
    """How long a finished job and its files are kept."""
    timeout: float = 2 * 3600.0
    """How long one job may take."""
    memory: int = 0
    """Bytes of memory for all jobs together; 0: three quarters of what the machine has."""
    token: str = field(default="", repr=False)
    """What clients must show; required where the server can be reached from other machines."""
    hosts: tuple[str, ...] = ()
    """Further names by which the server is called, as behind a proxy."""

    def __post_init__(self) -> None:
        checks = [
            (0 <= self.port <= 65535, f"port {self.port} is not from 0 to 65535; change --port"),
            (1 <= self.jobs <= 64, f"{self.jobs} jobs is not from 1 to 64; change --jobs"),
            (self.max_upload >= 1, "an upload of no bytes; change --max-upload"),
            (self.keep > 0, f"keeping files for {self.keep:g} s; change --keep"),
            (self.timeout > 0 and self.max_length > 0, "a time limit of nothing; change --timeout or --max-length"),
            (not self.token or len(self.token) >= 12, "a token of fewer than 12 characters is guessed; make it longer"),
            (
                self.token.isascii() and not any(c.isspace() for c in self.token),
                "a token with spaces or letters beyond ASCII can't be sent in a header; use letters and digits",
            ),
            (
                bool(self.token) or self.loopback,
                f"{self.host} can be reached from other machines, and whoever reaches it could separate songs and hear "
                "those of others: set a token (--token or $ORTSEP_TOKEN), or listen on 127.0.0.1",
            ),
        ]
        for ok, message in checks:
            if not ok:
                raise UsageError(message)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def memory_of_a_job(self) -> int:
        """Bytes that one job's process may take."""
        return (self.memory or _physical() * 3 // 4) // self.jobs

    def threads_of_a_job(self) -> int:
        """Threads of a graph in one of the jobs."""
        return self.threads or max(1, (os.cpu_count() or 1) // self.jobs)


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 16 << 30
