"""A real server in a process of its own, as tests and benchmarks start it."""

import json
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
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


def served(command: str, folder: Path, env: Mapping[str, str]) -> Running:
    """Start ``ortsep serve ... --json`` as a command line in ``folder``; it answers when this returns."""
    with (folder / "server.log").open("a") as log:
        words = shlex.split(command)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=dict(env))
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (folder / "server.log").read_text()
    running = Running(process, json.loads(line)["address"], folder)
    for patience in range(100):
        try:
            urllib.request.urlopen(f"{running.address}/healthz", timeout=10).close()
            break
        except OSError:
            assert patience < 99 and process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.1)
    return running
