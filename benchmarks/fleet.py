"""A Ray cluster of several nodes on this machine, with faults; scaling; and the driver's memory over long lists.

python benchmarks/fleet.py faults [--songs 2000]     # workers, a node and the driver die
python benchmarks/fleet.py scaling [--songs 24]      # one worker and two, one thread each, drums_mini
python benchmarks/fleet.py lists [--paths 100000]    # start and memory of a run over so many paths
"""

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

GRAPHS = Path(__file__).parents[1] / "tests" / "data" / "graphs"
FACTORS = {"drums": 0.25, "vocals": 0.5}
"""What the graph ``waves`` multiplies its input by."""
ORTSEP = [sys.executable, "-m", "ortsep.cli"]


def _songs(folder: Path, count: int, seconds: float, rate: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{n}.wav" for n in range(count)]
    for seed, path in enumerate(paths):
        noise = (0.3 * np.random.default_rng(seed).standard_normal((round(seconds * rate) + seed, 2))).astype(
            np.float32
        )
        soundfile.write(path, noise, rate, subtype="FLOAT")
    return paths


def _cluster(processors: int) -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    return nodes, [nodes.add_node(num_cpus=1) for _ in range(processors)]


def faults(count: int) -> int:
    """Every stem there and equal, none twice, though workers, a node and the driver die."""
    with tempfile.TemporaryDirectory() as place:
        paths = _songs(Path(place) / "in", count, 0.1, 8000)
        nodes, members = _cluster(3)
        command = [*ORTSEP, "run", str(GRAPHS / "waves"), str(Path(place) / "in"), "-o", str(Path(place) / "out"), "-q"]
        command += ["--on", f"ray:{nodes.address}", "--skip-existing", "--tries", "20", "--json"]
        stop, killed = threading.Event(), [0]

        def kill() -> None:
            while not stop.wait(3.0):
                workers = [p for p in Path("/proc").glob("[0-9]*") if _line(p).startswith(b"ray::Hands")]
                if workers:
                    with contextlib.suppress(OSError):
                        os.kill(int(random.choice(workers).name), signal.SIGKILL)
                        killed[0] += 1

        killer = threading.Thread(target=kill)
        killer.start()
        began = time.monotonic()
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        _until(Path(place) / "out", count // 3)
        nodes.remove_node(members[0], allow_graceful=False)
        _until(Path(place) / "out", count // 2)
        driver.kill()
        driver.wait()
        again = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        stop.set()
        killer.join()
        document = json.loads(again.stdout)
        wrong = [path.stem for path in paths if not _right(path, Path(place) / "out" / "waves" / path.stem)]
        left = [p for p in (Path(place) / "out").rglob("*") if p.name.endswith(".partial")]
        nodes.shutdown()
        print(f"{count} songs, {killed[0]} workers killed, one of three nodes removed, the driver killed once:")
        passed = time.monotonic() - began
        print(f"  {passed:.0f} s; the second run: {document['done']} done, {document['skipped']} were there")
        print(f"  {len(wrong)} wrong, {len(left)} temporary files left, {document['failed']} failed")
        return 1 if wrong or left or document["failed"] else 0


def _line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def _until(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(list(folder.glob("waves/*/vocals.wav"))) < count:
        time.sleep(0.2)


def _right(song: Path, folder: Path) -> bool:
    x, _ = soundfile.read(song, dtype="float32")
    try:
        stems = {name: soundfile.read(folder / f"{name}.wav", dtype="float32")[0] for name in FACTORS}
    except soundfile.SoundFileError:
        return False
    return all(y.shape == x.shape and np.abs(y - FACTORS[n] * x).max() < 1e-6 for n, y in stems.items())


def scaling(count: int) -> int:
    """Songs a second with one worker and with two, in turns."""
    import ray

    from ortsep.batch import Job, load
    from ortsep.fleet.lists import Row
    from ortsep.fleet.onray import Cluster
    from ortsep.fleet.run import Order, run
    from ortsep.options import Options
    from ortsep.songs import Files

    with tempfile.TemporaryDirectory() as place:
        paths = _songs(Path(place) / "in", count, 20.0, 44100)
        nodes, _ = _cluster(2)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        took: dict[int, list[float]] = {1: [], 2: []}
        for round_ in range(2):
            for workers in (1, 2):
                files = Files(output=Path(place) / f"out{round_}{workers}")
                job = Job(("drums_mini",), {"provider": "cpu", "threads": 1}, Options(), files)
                moments: list[float] = []
                order = Order(cluster=Cluster(workers=workers))
                run(
                    load(job.models, job.loading),
                    job,
                    order,
                    (Row(str(p)) for p in paths),
                    lambda number, song, outcome, m=moments: m.append(time.monotonic()),
                )
                took[workers].append((moments[-1] - moments[1]) / (count - 2))
        ray.shutdown()
        nodes.shutdown()
        one, two = min(took[1]), min(took[2])
        print(f"a song of 20 s: {one:.2f} s with one worker, {two:.2f} with two; efficiency {one / (2 * two):.2f}")
        return 0


def lists(count: int) -> int:
    """From a manifest to errands with names: time to the first and to all, and the most memory of the process."""
    from ortsep.batch import Job, load
    from ortsep.fleet.lists import read_manifest
    from ortsep.fleet.run import errands
    from ortsep.options import Options
    from ortsep.songs import Files

    for paths in (1000, count):
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            continue
        with tempfile.TemporaryDirectory() as place:
            manifest = Path(place) / "list.csv"
            manifest.write_text("path\n" + "\n".join(f"/music/{n % 997}/song {n}.flac" for n in range(paths)))
            job = Job((str(GRAPHS / "waves"),), {"provider": "cpu"}, Options(), Files(output="s3://b/out"))
            separator = load(job.models, job.loading)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            began = time.monotonic()
            source = errands(read_manifest(str(manifest)), separator, job, None)
            next(source)
            first = time.monotonic() - began
            number = 1 + sum(1 for _ in source)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
            passed = time.monotonic() - began
            print(f"{number} paths: the first after {first:.2f} s, all after {passed:.1f} s, +{grown:.0f} MB")
        os._exit(0)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("faults", "scaling", "lists"))
    parser.add_argument("--songs", type=int, default=0)
    parser.add_argument("--paths", type=int, default=100_000)
    given = parser.parse_args()
    if given.what == "faults":
        return faults(given.songs or 2000)
    return scaling(given.songs or 24) if given.what == "scaling" else lists(given.paths)


if __name__ == "__main__":
    sys.exit(main())
