"""Faults against ``ortsep serve``, on this machine only and in bounded number.

    python benchmarks/serve_faults.py [--kills 100] [--requests 10000] [--examples 300] [--schemathesis PATH]

Kills the server in all states and starts it again, kills its workers, sends songs that stop half-way and reads answers
that it then drops, and sends malformed requests: bytes changed by chance, and what schemathesis (4 or later, where it
is installed) makes of the OpenAPI document, some fifty requests an example. In the end every job has ended well or with
a reason, no half-written stem is served, and no file is left of what was deleted.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile

ORTSEP = [sys.executable, "-m", "ortsep.cli"]
GRAPHS = Path(__file__).parents[1] / "tests" / "data" / "graphs"
FACTORS = {"drums": 0.25, "vocals": 0.5}
"""What the graph ``waves`` multiplies its input by."""


class Server:
    def __init__(self, data: Path) -> None:
        command = [
            *ORTSEP,
            "serve",
            "--port",
            "0",
            "--json",
            "--models",
            "waves",
            "--data",
            str(data),
            "--max-rate",
            "1000000",
            "--max-queue",
            "100000",
        ]
        env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["address"]

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()

    def workers(self) -> list[int]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ours = f"PPid:\t{self.process.pid}\n" in (folder / "status").read_text()
                if ours and b"spawn_main" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found


def _song(seed: int, seconds: float) -> tuple[bytes, np.ndarray]:
    noise = (0.2 * np.random.default_rng(seed).standard_normal((round(seconds * 8000), 2))).astype(np.float32)
    file = io.BytesIO()
    soundfile.write(file, noise, 8000, format="WAV", subtype="FLOAT")
    return file.getvalue(), noise


def _kills(data: Path, count: int, rng: random.Random) -> list[str]:
    sent: dict[str, np.ndarray] = {}
    wrong: list[str] = []
    for number in range(count):
        server = Server(data)
        with contextlib.suppress(httpx.HTTPError):
            song, noise = _song(number, rng.choice((0.1, 1.0, 30.0)))
            job = httpx.post(f"{server.address}/v1/separations", files={"song": ("s.wav", song)}, timeout=30).json()
            sent[job["id"]] = noise
            time.sleep(rng.choice((0.0, 0.05, 0.2, 1.0, 2.5)))
            if number % 4 == 3:
                for worker in server.workers():
                    os.kill(worker, signal.SIGKILL)
                time.sleep(0.3)
        server.kill(rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
    server = Server(data)
    ends: dict[str, int] = {}
    for id_, noise in sent.items():
        where = f"{server.address}/v1/separations/{id_}"
        while (job := httpx.get(where, timeout=30).json()).get("state") in ("queued", "running"):
            time.sleep(0.2)
        ends[job["state"]] = ends.get(job["state"], 0) + 1
        if job["state"] == "done":
            for name, factor in FACTORS.items():
                stem, _ = soundfile.read(io.BytesIO(httpx.get(f"{where}/stems/{name}").content), dtype="float32")
                if stem.shape != noise.shape or np.abs(stem - factor * noise).max() > 1e-6:
                    wrong.append(f"{id_}: {name} is not whole")
        elif not job.get("error"):
            wrong.append(f"{id_}: {job}")
        httpx.delete(where)
    time.sleep(1.0)
    left = [p for folder in ("jobs", "incoming") for p in (data / folder).iterdir()]
    wrong += [f"left: {p}" for p in left]
    server.kill(signal.SIGTERM)
    print(f"{count} kills over {len(sent)} jobs: {ends}, {len(wrong)} wrong")
    return wrong


def _requests(data: Path, count: int, rng: random.Random) -> list[str]:
    """Malformed requests, and clients that stop sending or reading."""
    server = Server(data)
    host, port = urlsplit(server.address).hostname, urlsplit(server.address).port
    song, _ = _song(0, 0.2)
    good = httpx.Request("POST", f"{server.address}/v1/separations", files={"song": ("s.wav", song)})
    body = good.read()
    head = f"POST /v1/separations HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n"
    whole = head.encode() + b"Content-Type: " + good.headers["content-type"].encode() + b"\r\n\r\n" + body
    codes: dict[str, int] = {}
    held: list[socket.socket] = []
    wrong: list[str] = []
    for number in range(count):
        data_ = bytearray(whole[: rng.choice((len(whole), rng.randrange(1, len(whole))))])
        for _ in range(rng.randrange(1, 8)):
            at = rng.randrange(min(len(data_), rng.choice((200, 700, len(data_)))))
            data_[at] = rng.randrange(256)
        connection = socket.create_connection((host, port), 10)
        with contextlib.suppress(OSError):
            connection.sendall(data_)
            if number % 50 == 0:
                held.append(connection)  # says no more, and reads nothing
                continue
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            code = connection.recv(64).split(b" ")[1:2]
            codes[(code or [b"closed"])[0].decode()] = codes.get((code or [b"closed"])[0].decode(), 0) + 1
        connection.close()
    if httpx.get(f"{server.address}/healthz", timeout=10).status_code != 200:
        wrong.append("the server is not well")
    for connection in held:
        connection.close()
    wrong += [f"{codes[code]} answers of {code}" for code in codes if code.startswith("5") and code != "507"]
    for job in httpx.get(f"{server.address}/v1/separations?limit=200").json()["separations"]:
        httpx.delete(server.address + job["links"]["self"])
    server.kill(signal.SIGTERM)
    print(f"{count} malformed requests: {dict(sorted(codes.items()))}, {len(wrong)} wrong")
    return wrong


def _schema(data: Path, examples: int, program: str) -> list[str]:
    """Requests made from the OpenAPI document: no 5xx, and no answer that the document doesn't describe.

    Left out is the check that whatever fits the schema is done: options depend on each other and on the model.
    """
    server = Server(data)
    command = [program, "run", f"{server.address}/v1/openapi.json", "-n", str(examples), "--checks", "all"]
    command += ["--exclude-checks", "positive_data_acceptance", "--no-color", "--request-timeout", "60"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=data.parent)
    well = httpx.get(f"{server.address}/healthz", timeout=10).status_code == 200
    server.kill(signal.SIGTERM)
    told = finished.stdout.splitlines()
    print("schemathesis:", next((line.strip() for line in told if " generated, " in line), "made no requests"))
    return [] if well and finished.returncode == 0 else ["schemathesis:", *told[-80:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--requests", type=int, default=10000)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--schemathesis", default=shutil.which("schemathesis"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wrong = _kills(Path(place) / "kills", given.kills, random.Random(given.seed))
        wrong += _requests(Path(place) / "requests", given.requests, random.Random(given.seed))
        if given.schemathesis and given.examples:
            wrong += _schema(Path(place) / "schema", given.examples, given.schemathesis)
        else:
            print(
                "schemathesis is not here (pip install schemathesis): requests from the OpenAPI document were not tried"
            )
    print("\n".join(wrong[:100]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
