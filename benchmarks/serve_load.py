"""Load on ``ortsep serve``: clips from many clients at once, each checked against the command line sample for sample.

    python benchmarks/serve_load.py [--uploads 200] [--clients 20] [--seconds 10] [--jobs 2]

Prints what was lost or mixed up, memory of server and workers over time, and the 99th percentile of a status request
while jobs run. Then what one song of 60 s takes through the server and through the command line, in turns.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import soundfile

ORTSEP = [sys.executable, "-m", "ortsep.cli"]
KINDS = 10
"""Different clips."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        songs = [_song(folder / f"clip{n}.wav", n, given.seconds) for n in range(KINDS)]
        subprocess.run([*ORTSEP, "run", "drums_mini", *map(str, songs), "-o", str(folder / "cli"), "-q"], check=True)
        with Server(folder, given.jobs) as server:
            wrong = _load(server, songs, folder / "cli", given)
            _overhead(server, folder, given.rounds)
    return 1 if wrong else 0


class Server:
    """``ortsep serve`` as a process, and what it takes."""

    def __init__(self, folder: Path, jobs: int) -> None:
        command = [*ORTSEP, "serve", "--port", "0", "--json", "--models", "drums_mini", "--jobs", str(jobs)]
        command += ["--data", str(folder / "data"), "--max-rate", "1000000"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = json.loads(self.process.stdout.readline())["address"]

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()

    def memory(self) -> float:
        """MB of the server and all its workers."""
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "status").read_text()
            except OSError:
                continue
            own = f"PPid:\t{self.process.pid}\n" in status or folder.name == str(self.process.pid)
            line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0")
            total += int(line.split()[1]) if own else 0
        return total / 1024


def _song(path: Path, seed: int, seconds: float) -> Path:
    noise = 0.2 * np.random.default_rng(seed).standard_normal((round(seconds * 44100), 2))
    soundfile.write(path, noise.astype(np.float32), 44100, subtype="PCM_16")
    return path


def _load(server: Server, songs: list[Path], right: Path, given: argparse.Namespace) -> int:
    wrong: list[str] = []
    took: list[float] = []
    memory: list[float] = []
    done = threading.Event()

    def one(number: int) -> None:
        song = songs[number % KINDS]
        with httpx.Client(base_url=server.address, timeout=600) as client:
            job = client.post("/v1/separations", files={"song": (song.name, song.read_bytes())}).json()
            while job.get("state") in ("queued", "running"):
                time.sleep(0.5)
                job = client.get(job["links"]["self"]).json()
            if job.get("state") != "done":
                wrong.append(f"{number}: {job}")
                return
            for name, link in job["result"]["stems"].items():
                theirs, _ = soundfile.read(io.BytesIO(client.get(link).content), dtype="float32")
                ours, _ = soundfile.read(right / "drums_mini" / song.stem / f"{name}.wav", dtype="float32")
                if not np.array_equal(theirs, ours):
                    wrong.append(f"{number}: {name} of {song.name} is another's")
        memory.append(server.memory())

    def watch() -> None:
        with httpx.Client(base_url=server.address, timeout=60) as client:
            while not done.wait(0.02):
                newest = client.get("/v1/separations", params={"limit": 1}).json()["separations"]
                if newest:
                    began = time.perf_counter()
                    client.get(newest[0]["links"]["self"])
                    took.append(time.perf_counter() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    with ThreadPoolExecutor(given.clients) as clients:
        list(clients.map(one, range(given.uploads)))
    passed = time.monotonic() - began
    done.set()
    watcher.join()
    quarter = max(1, len(memory) // 4)
    what = f"{given.uploads} uploads of {given.seconds:g} s from {given.clients} clients"
    print(f"{what} in {passed:.0f} s: {len(wrong)} wrong")
    print("\n".join(wrong[:10]))
    print(f"memory: {statistics.median(memory[:quarter]):.0f} MB in the first quarter, {memory[-1]:.0f} at the end")
    print(
        f"a status request: median {1e3 * statistics.median(took):.1f} ms, 99% {1e3 * np.percentile(took, 99):.1f} ms"
    )
    return len(wrong)


def _overhead(server: Server, folder: Path, rounds: int) -> None:
    song = _song(folder / "song.wav", 99, 60.0)
    ratios = []
    for _ in range(rounds):
        began = time.perf_counter()
        command = [*ORTSEP, "run", "drums_mini", str(song), "-o", str(folder / "one"), "-q", "--threads", "1", "--json"]
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        whole = time.perf_counter() - began
        began = time.perf_counter()
        job = httpx.post(f"{server.address}/v1/separations", files={"song": (song.name, song.read_bytes())}, timeout=60)
        job = job.json()
        while job["state"] in ("queued", "running"):
            time.sleep(0.05)
            job = httpx.get(server.address + job["links"]["self"]).json()
        served = time.perf_counter() - began
        ratios.append((served / whole, job["result"]["processing_time"] / report["processing_time"]))
    whole, inside = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(
        f"one song of 60 s, server over command line: {whole:.3f} from sending to done, {inside:.3f} of processing time"
    )


if __name__ == "__main__":
    sys.exit(main())
