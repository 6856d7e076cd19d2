"""A store that fails, is slow, or cuts connections: every stem arrives whole, or its song fails with a sentence."""

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.base.errors import OrtsepError
from ortsep.batch import Job
from ortsep.fleet import remote
from ortsep.fleet.lists import Row
from ortsep.fleet.run import Order, Tally, run
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, SongReport

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")


FACTORS = {"drums": 0.25, "vocals": 0.5}
"""What the graph ``waves`` multiplies its input by."""
Fault = Callable[[str, str], str]
"""From method and path to what happens: "", "5xx", "slow", "cut"."""


class Proxy(ThreadingHTTPServer):
    """Hands requests on to the store behind it, with faults in between."""

    daemon_threads = True

    def __init__(self, store: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.fault: Fault = lambda method, path: ""
        self.seen: dict[str, int] = {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _any(self) -> None:
        body = self._body()
        fault = self.server.fault(self.command, self.path)
        self.server.seen[fault] = self.server.seen.get(fault, 0) + 1
        if fault == "5xx":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        behind = http.client.HTTPConnection(self.server.store, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "connection")}
        behind.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        answer = behind.getresponse()
        data = answer.read()
        behind.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        for at in range(0, len(data), 4096) if fault == "slow" else ():
            self.wfile.write(data[at : at + 4096])
            time.sleep(0.02)
        if fault != "slow":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    with Proxy(f"{host}:{port}") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = {"ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}", "ACCESS_KEY_ID": "a"}
        settings |= {"SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1", "MAX_ATTEMPTS": "2"}
        for name, value in settings.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        fsspec.filesystem("s3").clear_instance_cache()
        yield server
        server.shutdown()
    running.stop()
    fsspec.filesystem("s3").clear_instance_cache()


def filled(folder: Path, count: int) -> dict[str, np.ndarray]:
    """Songs in an empty store, and their samples by name."""
    store = fsspec.filesystem("s3")
    if store.exists("music"):  # moto's servers in one process share what they hold
        store.rm("music", recursive=True)
    store.mkdir("music")
    folder.mkdir()
    noise = {}
    for seed in range(count):
        noise[str(seed)] = (0.3 * np.random.default_rng(seed).standard_normal((8000 + seed, 2))).astype(np.float32)
        soundfile.write(folder / f"{seed}.wav", noise[str(seed)], 8000, subtype="FLOAT")
        store.put_file(str(folder / f"{seed}.wav"), f"music/in/{seed}.wav")
    return noise


def separated(count: int) -> tuple[Tally, dict[str, SongReport | OrtsepError]]:
    job = Job((str(GRAPHS / "waves"),), {"provider": "cpu"}, Options(), Files(output="s3://music/out"))
    outcomes: dict[str, SongReport | OrtsepError] = {}
    rows = [Row(f"s3://music/in/{n}.wav") for n in range(count)]
    with Separator(GRAPHS / "waves", provider="cpu") as separator:
        tally = run(separator, job, Order(), rows, lambda number, song, outcome: outcomes.__setitem__(song, outcome))
    return tally, outcomes


def test_faults_that_pass_cost_nothing_but_time(tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_WAITS", (0.01,) * 8)
    noise = filled(tmp_path / "in", 5)
    chance, lock = random.Random(0), threading.Lock()

    def fault(method: str, path: str) -> str:
        with lock:
            return chance.choices(("", "5xx", "slow", "cut"), (4, 2, 1, 2))[0]

    proxy.fault = fault
    tally, outcomes = separated(len(noise))
    proxy.fault = lambda method, path: ""
    assert tally.done == len(noise), outcomes
    assert all(proxy.seen.get(kind) for kind in ("5xx", "slow", "cut")), proxy.seen
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    for name, samples in noise.items():
        for stem, factor in FACTORS.items():
            got = tmp_path / f"{name}.{stem}.wav"
            store.get_file(f"music/out/waves/{name}/{stem}.wav", str(got))
            stem_samples, _ = soundfile.read(got, dtype="float32")
            assert stem_samples.shape == samples.shape
            assert np.abs(stem_samples - factor * samples).max() < 1e-6


@pytest.mark.parametrize("kind", ["5xx", "cut"])
def test_a_store_that_fails_for_good_fails_its_songs_alone(
    tmp_path: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Stems can't be read or written for one song; no name of it appears, the others are done."""
    monkeypatch.setattr(remote, "_WAITS", (0.01,) * 2)
    filled(tmp_path / "in", 3)
    bad = ("in/1.wav", "waves/1/")
    proxy.fault = lambda method, path: kind if any(part in path for part in bad) and method in ("GET", "PUT") else ""
    tally, outcomes = separated(3)
    proxy.fault = lambda method, path: ""
    assert (tally.done, tally.failed) == (2, 1)
    error = outcomes["s3://music/in/1.wav"]
    assert isinstance(error, OrtsepError) and error.transient and "try again later" in str(error)
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    assert not [path for path in store.find("music/out") if "/1/" in path]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "\0", '{"a": '])
def test_a_damaged_record_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    assert remote.recorded(f"file://{tmp_path}/record.json") == {}
