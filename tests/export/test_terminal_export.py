"""Exporting, validating and optimising, typed into a terminal."""

import hashlib
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from places import GRAPHS
from terminal import render, typed

from ortsep.models.catalogue import BUNDLED

ORTSEP = [sys.executable, "-m", "ortsep.cli"]
DATA = hashlib.shake_256(b"no checkpoint").digest(3_000_000)
FROM_HERE = """
import sys
from dataclasses import replace
from ortsep.models.catalogue import Source, catalogue
catalogue()["umxhq"] = replace(catalogue()["umxhq"], sources=tuple(Source({url!r}, {sha!r}, {size}) for _ in range(4)))
sys.argv = ["ortsep", "export", "umxhq"]
from ortsep.cli import main
if __name__ == "__main__":
    main()
"""
"""Exports a model whose official files come from a server on this machine."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        try:
            for at in range(0, len(DATA), 100_000):
                self.wfile.write(DATA[at : at + 100_000])
                time.sleep(0.05)
        except OSError:  # who asked is gone
            pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/weights.pth"
    server.shutdown()


def exporting(url: str) -> list[str]:
    return [sys.executable, "-c", FROM_HERE.format(url=url, sha=hashlib.sha256(DATA).hexdigest(), size=len(DATA))]


@pytest.mark.parametrize("columns", [80, 40])
def test_a_download_is_drawn_and_gives_way_to_what_follows(tmp_path: Path, url: str, columns: int) -> None:
    env = {"ORTSEP_CACHE": "cache"}
    done = typed(exporting(url), cwd=tmp_path, columns=columns, env=env)
    assert done.status == 1  # the file came whole and is no checkpoint
    assert "of 3.0 MB" in done.text
    assert not any("of 3.0 MB" in line for line in done.left(columns))
    assert done.flowing(columns).splitlines()[-1].startswith("ortsep: ") and "weights.pth" in done.flowing(columns)
    assert (tmp_path / "cache" / "weights.pth").read_bytes() == DATA
    assert not (tmp_path / "models").exists()


def test_ctrl_c_in_a_download(tmp_path: Path, url: str) -> None:
    env = {"ORTSEP_CACHE": "cache"}
    done = typed(exporting(url), cwd=tmp_path, env=env, then=lambda _, seen: b"\x03" if "of 3.0 MB" in seen else False)
    assert done.status == 130
    assert done.left(80)[-1] == "ortsep: interrupted; nothing half-written was left"
    assert not any("of 3.0 MB" in line for line in done.left(80))
    assert not (tmp_path / "cache" / "weights.pth").exists()


def test_validate_shows_each_figure_once(tmp_path: Path) -> None:
    shutil.copytree(BUNDLED / "drums_mini", tmp_path / "drums_mini")
    command = [*ORTSEP, "validate", "drums_mini", "--weights", str(BUNDLED / "drums_mini" / "drums_mini.safetensors")]
    done = typed([*command, "--seconds", "3"], cwd=tmp_path, timeout=300)
    lines, folded = render(done.raw, 80)
    assert done.status == 0 and folded == 0, done.text
    assert "comparing: end to end ..." in done.text and not any("..." in line for line in lines)
    figures = [line for line in lines if line.startswith("ok ")]
    assert len(figures) == len({line[:40] for line in figures}) >= 4
    assert lines[-1] == "drums_mini equals its original"


def test_optimize_leaves_its_table(tmp_path: Path) -> None:
    graph = next((GRAPHS / "waves").glob("*.onnx"))
    done = typed([*ORTSEP, "optimize", graph, "-o", "faster.onnx"], cwd=tmp_path, timeout=300)
    assert done.status == 0, done.text
    assert (tmp_path / "faster.onnx").exists()
    assert any(line.startswith("after ") for line in done.left(80)) and render(done.raw, 80)[1] == 0


def test_optimize_ends_at_ctrl_c(tmp_path: Path) -> None:
    graph = next((GRAPHS / "waves").glob("*.onnx"))
    command = [*ORTSEP, "optimize", graph, "-o", "faster.onnx"]
    done = typed(command, cwd=tmp_path, then=lambda _, seen: b"\x03" if " ..." in seen else False)
    # While torch is imported the signal itself ends the process: then nothing is said, and nothing held.
    assert done.status in (130, -signal.SIGINT)
    if done.status == 130:
        assert done.left(80)[-1] == "ortsep: interrupted; nothing half-written was left"
    assert not any(part in done.left(80)[-1] for part in ("%", "━"))
    assert not (tmp_path / "faster.onnx").exists()
