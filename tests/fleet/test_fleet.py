"""Long lists on every executor, songs and stems at addresses: the same stems as the command line's, none twice."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS
from serving import ORTSEP

from ortsep.base.errors import AudioError, FileMissing, OrtsepError, UsageError
from ortsep.batch import Job, load
from ortsep.fleet.lists import Row, Shard
from ortsep.fleet.run import Order, errands, run
from ortsep.options import Options
from ortsep.songs import Files

pytest.importorskip("fsspec")
FACTORS = {"drums": 0.25, "vocals": 0.5}
"""What the graph ``waves`` multiplies its input by."""
WAVES = str(GRAPHS / "waves")


def songs(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in range(count):
        noise = (0.3 * np.random.default_rng(seed).standard_normal((800 + seed, 2))).astype(np.float32)
        soundfile.write(folder / f"{seed}.wav", noise, 8000, subtype="FLOAT")
        paths.append(folder / f"{seed}.wav")
    return paths


def job(output: str | Path, **files: Any) -> Job:
    return Job((WAVES,), {"provider": "cpu", "threads": 1}, Options(), Files(output=str(output), **files))


def done(given: Job, order: Order, rows: list[Row]) -> tuple[Any, dict[str, Any]]:
    outcomes: dict[str, Any] = {}
    separator = load(given.models, given.loading)
    tally = run(separator, given, order, rows, lambda number, song, value: outcomes.update({song: value}))
    return tally, outcomes


def check(song: Path, folder: Path) -> None:
    x, _ = soundfile.read(song, dtype="float32")
    for name, factor in FACTORS.items():
        y, rate = soundfile.read(folder / f"{name}.wav", dtype="float32")
        assert rate == 8000
        np.testing.assert_allclose(y, factor * x, atol=1e-6)


def test_names_are_the_same_whoever_asks() -> None:
    rows = [Row(f"/{n}/mixture.wav") for n in range(3)]
    rows += [Row("s3://b/x/mixture.wav"), Row("/0/other.wav")]
    given = job("s3://out/stems")
    separator = load(given.models, given.loading)
    whole = [e.targets["drums"] for e in errands(rows, separator, given, None)]
    assert whole[0] == "s3://out/stems/waves/mixture/drums.wav"
    assert whole[3] == "s3://out/stems/waves/mixture (4)/drums.wav" and len(set(whole)) == 5
    parts = [[e.targets["drums"] for e in errands(rows, separator, given, Shard(i, 2))] for i in (1, 2)]
    assert parts == [whole[::2], whole[1::2]]
    with pytest.raises(UsageError, match="twice"):
        list(errands([rows[0], rows[0]], separator, given, None))
    with pytest.raises(UsageError, match="no stem 'bass'"):
        list(errands([Row("a.wav", {"stems": ("bass",)})], separator, given, None))


def test_a_list_is_separated_here_and_goes_on(tmp_path: Path) -> None:
    paths = songs(tmp_path / "in", 6)
    (tmp_path / "in" / "bad.wav").write_text("no audio")
    rows = [Row(str(p), {}, {"id": p.stem}) for p in [*paths, tmp_path / "in" / "bad.wav"]]
    rows[2] = Row(rows[2].song, {"stems": ("vocals",), "duration": 0.05}, {"id": "two"})
    report = tmp_path / "report.jsonl"
    given = job(tmp_path / "out", skip_existing=True)
    tally, outcomes = done(given, Order(jobs=2, results=report), rows)
    assert (tally.done, tally.failed, tally.skipped, tally.status) == (6, 1, 0, 1)
    for path in paths[:2] + paths[3:]:
        check(path, tmp_path / "out" / "waves" / path.stem)
    assert soundfile.info(tmp_path / "out" / "waves" / "2" / "vocals.wav").frames == 400
    assert not (tmp_path / "out" / "waves" / "2" / "drums.wav").exists()
    assert isinstance(outcomes[rows[6].song], AudioError)
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["manifest.id"]: line["state"] for line in lines}["bad"] == "failed" and len(lines) == 7
    tally, _ = done(given, Order(jobs=2), rows)
    assert (tally.done, tally.failed, tally.skipped) == (0, 1, 6)


def test_songs_and_stems_at_addresses(tmp_path: Path) -> None:
    paths = songs(tmp_path / "in", 3)
    rows = [Row(p.as_uri()) for p in paths]
    out = (tmp_path / "out").as_uri()
    given = job(out, skip_existing=True)
    tally, outcomes = done(given, Order(), rows)
    assert tally.done == 3, outcomes
    for path in paths:
        check(path, tmp_path / "out" / "waves" / path.stem)
    assert outcomes[rows[0].song].stems["drums"] == f"{out}/waves/0/drums.wav"
    assert done(given, Order(), rows)[0].skipped == 3
    (tmp_path / "out" / "waves" / "1" / "drums.wav").write_bytes(b"cut")
    soundfile.write(paths[2], np.zeros((500, 2)), 8000, subtype="FLOAT")
    tally, _ = done(given, Order(), rows)
    assert (tally.done, tally.skipped) == (2, 1)
    tally, outcomes = done(given, Order(), [Row((tmp_path / "none.wav").as_uri())])
    (error,) = outcomes.values()
    assert isinstance(error, FileMissing) and not error.transient
    assert not [p for p in (tmp_path / "out").rglob("*") if "partial" in p.name]


def test_two_runs_do_not_fill_one_folder(tmp_path: Path) -> None:
    paths = songs(tmp_path / "in", 2)
    command = [*ORTSEP, "run", WAVES, "--manifest", "-", "-o", str(tmp_path / "out")]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=tmp_path)
    assert first.stdin is not None
    first.stdin.write(f"{paths[0]}\n")
    first.stdin.flush()
    deadline = time.monotonic() + 30
    while not (tmp_path / "out" / "waves" / "0" / "vocals.wav").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
        if (tmp_path / "out" / ".ortsep-run.lock").exists():
            break
    second = subprocess.run(command, input=f"{paths[1]}\n", capture_output=True, text=True, cwd=tmp_path)
    first.communicate()
    assert second.returncode == 2 and "another run fills" in second.stderr


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each, as processes of this machine."""
    ray = pytest.importorskip("ray")
    utilities = pytest.importorskip("ray.cluster_utils")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = utilities.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_ray_gives_what_the_command_line_gives_though_workers_die(tmp_path: Path, cluster: Any) -> None:
    from ortsep.fleet.onray import Cluster

    paths = songs(tmp_path / "in", 60)
    rows = [Row(str(p)) for p in paths]
    stop = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not stop.wait(1.5):
            for folder in Path("/proc").glob("[0-9]*"):
                try:
                    line = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if line.startswith(b"ray::Hands") and len(killed) < 4:
                    os.kill(int(folder.name), signal.SIGKILL)
                    killed.append(int(folder.name))
                    break

    killer = threading.Thread(target=kill)
    killer.start()
    given = job(tmp_path / "out", skip_existing=True)
    tally, outcomes = done(given, Order(cluster=Cluster(tries=8)), rows)
    stop.set()
    killer.join()
    assert killed
    assert tally.done + tally.skipped == 60, {s: o for s, o in outcomes.items() if isinstance(o, OrtsepError)}
    for path in paths:
        check(path, tmp_path / "out" / "waves" / path.stem)
    assert not [p for p in (tmp_path / "out").rglob("*") if "partial" in p.name]


def test_a_song_that_kills_its_process_is_set_aside(tmp_path: Path, cluster: Any) -> None:
    from ortsep.fleet.onray import Cluster

    paths = songs(tmp_path / "in", 4)
    poison = tmp_path / "in" / "poison.wav"
    soundfile.write(poison, np.random.default_rng(0).uniform(-0.1, 0.1, (8000 * 2000, 2)), 8000)
    stop = threading.Event()

    def kill() -> None:
        """Whichever worker has the song open."""
        while not stop.wait(0.05):
            for link in Path("/proc").glob("[0-9]*/fd/*"):
                try:
                    if str(link.readlink()) == str(poison):
                        os.kill(int(link.parts[2]), signal.SIGKILL)
                except OSError:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        rows = [Row(str(p)) for p in [poison, *paths]]
        tally, outcomes = done(job(tmp_path / "out"), Order(cluster=Cluster(tries=2)), rows)
    finally:
        stop.set()
        killer.join()
    assert tally.done == 4 and tally.failed == 1
    assert "died 2 times" in str(outcomes[str(poison)])


@pytest.fixture
def s3() -> Iterator[str]:
    """An S3 server on loopback."""
    server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


def test_an_object_store(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    settings = {"ENDPOINT_URL": s3, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    store = fsspec.filesystem("s3")
    if store.exists("music"):  # moto's servers in one process share what they hold
        store.rm("music", recursive=True)
    store.mkdir("music")
    paths = songs(tmp_path / "in", 3)
    for path in paths:
        store.put_file(str(path), f"music/in/{path.name}")
    given = job("s3://music/out", skip_existing=True)
    command = [*ORTSEP, "run", WAVES, "s3://music/in/*.wav", "-o", "s3://music/out", "--json", "-q"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    rows = [Row(f"s3://music/in/{p.name}") for p in paths]
    tally, outcomes = done(given, Order(), rows)
    assert tally.skipped == 3, outcomes
    for path in paths:
        (tmp_path / "got").mkdir(exist_ok=True)
        for stem in FACTORS:
            store.get_file(f"music/out/waves/{path.stem}/{stem}.wav", str(tmp_path / "got" / f"{stem}.wav"))
        check(path, tmp_path / "got")
    tally, outcomes = done(given, Order(), [Row("s3://nowhere/a.wav")])
    (error,) = outcomes.values()
    assert isinstance(error, OrtsepError) and "s3://nowhere/a.wav" in str(error)


def test_from_python(tmp_path: Path) -> None:
    from ortsep.fleet import separate

    paths = songs(tmp_path / "in", 3)
    told: list[str] = []
    listed = [paths[0], str(paths[1]), {"path": str(paths[2]), "stems": ("vocals",), "id": 7}]
    tally = separate(WAVES, listed, tmp_path / "out", told=lambda n, song, outcome: told.append(song), format="flac")
    assert tally.done == 3 and sorted(told) == sorted(map(str, paths))
    assert sorted(p.name for p in (tmp_path / "out" / "waves" / "2").iterdir() if p.suffix == ".flac") == [
        "vocals.flac"
    ]
    with pytest.raises(UsageError, match="no cluster"):
        separate(WAVES, paths, tmp_path, on="slurm")


def test_an_estimate_reads_headers_only(tmp_path: Path) -> None:
    songs(tmp_path / "in", 3)
    (tmp_path / "in" / "bad.wav").write_text("no audio")
    command = [*ORTSEP, "run", WAVES, str(tmp_path / "in"), "-o", (tmp_path / "out").as_uri(), "--dry-run", "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    plan = json.loads(finished.stdout)
    assert (plan["songs"], plan["unread"]) == (4, 1)
    assert plan["hours"] == pytest.approx((800 + 801 + 802) / 8000 / 3600)
    assert plan["bytes_out"] == (800 + 801 + 802) * 2 * 2 * 4
    assert plan["pace"] > 0 and not (tmp_path / "out").exists()


def test_what_an_executor_prints_is_no_part_of_the_document(tmp_path: Path) -> None:
    """Ray prints of dead workers on the driver's stdout."""
    (path,) = songs(tmp_path / "in", 1)
    (tmp_path / "list.txt").write_text(f"{path}\n")
    code = (
        "import sys; import ortsep.commands.fleet as fleet; real = fleet.run\n"
        "def noisy(*given):\n    print('a worker died'); return real(*given)\n"
        "fleet.run = noisy\nfrom ortsep.__main__ import main\nsys.exit(main())"
    )
    words = ["run", WAVES, "--manifest", str(tmp_path / "list.txt"), "-o", str(tmp_path / "out"), "--json"]
    finished = subprocess.run([ORTSEP[0], "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["done"] == 1
    assert "a worker died" in finished.stderr
