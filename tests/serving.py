"""A real server in a process of its own, as tests and benchmarks start it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ORTSEP = [sys.executable, "-m", "ortsep.cli"]


@dataclass
class Running:
    """A server: its process, its address, its data folder."""

    process: subprocess.Popen[str]
    address: str
    data: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; gives its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


Serve = Callable[..., Running]
