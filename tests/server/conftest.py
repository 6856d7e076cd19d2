"""A real server in a process of its own, on a free port."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import GRAPHS
from serving import ORTSEP, Running, Serve

pytest.importorskip("fastapi")
pytest.importorskip("httpx")


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server with these options, over the tests' small graphs; all are ended with the test."""
    begun: list[Running] = []

    def start(*options: str, data: Path | None = None, models: Path = GRAPHS) -> Running:
        folder = data or tmp_path / "data"
        command = [*ORTSEP, "serve", "--port", "0", "--json", "--data", str(folder), *options]
        env = {**os.environ, "ORTSEP_MODELS": str(models)}
        log = (tmp_path / "log").open("a")
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env, cwd=tmp_path)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (tmp_path / "log").read_text()
        running = Running(process, json.loads(line)["address"], folder)
        begun.append(running)
        return running

    yield start
    for running in begun:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
