"""Batches: songs in parallel, resumed, told about; standard input and output."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.base.whole import hold, partial_path, release, sweep
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, separate_file

COMMAND = [sys.executable, "-m", "ortsep.cli", "run"]


def song(path: Path, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * 8000), 2)).astype(np.float32)
    soundfile.write(path, x, 8000, subtype="FLOAT")
    return x


def run(*arguments: str, cwd: Path, **changes: Any) -> subprocess.CompletedProcess[Any]:
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, env=env, capture_output=True, timeout=120, **changes)


def events(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.decode().splitlines()]


def test_songs_in_parallel_with_a_bad_one(tmp_path: Path) -> None:
    mixtures = [song(tmp_path / f"{k}.wav", seed=k) for k in range(3)]
    (tmp_path / "1.wav").write_bytes(b"broken")
    names = [f"{k}.wav" for k in range(3)]
    done = run("waves", *names, "--jobs", "2", "--progress", "json", "--json", cwd=tmp_path)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert [s["song"] for s in document["songs"]] == ["0.wav", "2.wav", "1.wav"]
    assert document["failed"] == 1 and "1.wav" in document["songs"][-1]["error"]
    for k in (0, 2):
        y, _ = soundfile.read(tmp_path / "separated" / "waves" / str(k) / "vocals.wav")
        np.testing.assert_allclose(y, mixtures[k] / 2, atol=1e-6)
    told = events(done.stderr)
    for k, end in enumerate(("finished", "failed", "finished")):
        kinds = [e["event"] for e in told if e["song"] == f"{k}.wav"]
        assert kinds[0] == "started" and kinds[-1] == end and set(kinds[1:-1]) <= {"progress"}
    last = [e for e in told if e["event"] == "progress" and e["song"] == "0.wav"][-1]
    assert last["done"] == last["total"] == 1.0


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_events_are_all_that_a_program_reads(tmp_path: Path, jobs: str) -> None:
    """libmpg123 prints what is odd about an MP3 to descriptor 2, whoever else writes there."""
    soundfile.write(tmp_path / "sound.mp3", np.random.default_rng(0).uniform(-0.5, 0.5, (160_000, 2)), 8000)
    whole = (tmp_path / "sound.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.mp3").write_bytes(whole[:20_000] + bytes(range(250)) * 12 + whole[23_000:])
    arguments = ["waves", "cut.mp3", "damaged.mp3", "--allow-truncated", "--jobs", jobs]
    assert b"Xing stream size" in run(*arguments, cwd=tmp_path).stderr
    told = events(run(*arguments, "--progress", "json", cwd=tmp_path).stderr)
    ends = {e["song"]: e for e in told if e["event"] in ("finished", "failed")}
    assert any("cut off" in warning for warning in ends["cut.mp3"]["warnings"])
    assert ends["damaged.mp3"]["event"] == "failed" and "damaged" in ends["damaged.mp3"]["error"]


def test_events_where_there_is_no_standard_error(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    command = [*COMMAND, "waves", "song.wav", "--progress", "json"]
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    assert subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], cwd=tmp_path, env=env).returncode == 0
    assert (tmp_path / "separated" / "waves" / "song" / "drums.wav").exists()


def test_a_job_that_is_killed_costs_its_song_only(tmp_path: Path) -> None:
    from ortsep.batch import Event, Job, Task, in_processes

    tasks = []
    for k in range(3):
        song(tmp_path / f"{k}.wav", 600.0 if k == 0 else 1.0)
        targets = {s: tmp_path / str(k) / f"{s}.wav" for s in ("drums", "vocals")}
        tasks.append(Task(tmp_path / f"{k}.wav", targets))
    told: list[Event] = []
    left: list[Path] = []

    def tell(event: Event) -> None:
        told.append(event)
        if (event.task, event.kind) == (0, "progress") and not any(e.kind == "killed" for e in told):
            import multiprocessing

            told.append(Event(0, "killed"))  # type: ignore[arg-type]
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
            left.extend((tmp_path / "0").glob(".*.partial"))

    in_processes(Job((str(GRAPHS / "waves"),), {"provider": "cpu"}, Options(), Files()), tasks, 1, tell)
    ends = {e.task: e for e in told if e.kind in ("finished", "failed")}
    assert [ends[k].kind for k in range(3)] == ["failed", "finished", "finished"]
    assert "signal 9" in str(ends[0].value)
    assert not (tmp_path / "0" / "drums.wav").exists()
    assert left and not list(tmp_path.rglob("*.partial")), "what a killed job left is gone when the batch ends"


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_batch_ends_at_once_and_goes_on_where_it_was(tmp_path: Path, jobs: str) -> None:
    song(tmp_path / "a.wav", 0.5)
    song(tmp_path / "b.wav", 2000.0)
    song(tmp_path / "c.wav", 2000.0)
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    command = [*COMMAND, "waves", "a.wav", "b.wav", "c.wav", "--jobs", jobs, "--progress", "json"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line)
        if event["song"] == "b.wav" and event["event"] == "progress":
            break
    sent = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and jobs alike
    _, rest = process.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130
    last = events(rest)[-1]
    assert last["event"] == "error" and last["status"] == 130 and "interrupted" in last["error"]
    assert [p.name for p in tmp_path.rglob("*.wav") if "separated" in str(p.parent)].count("drums.wav") == 1
    assert not list(tmp_path.rglob("*.partial"))
    song(tmp_path / "b.wav", 0.5)
    song(tmp_path / "c.wav", 0.5)
    document = json.loads(run(*command[4:8], "--skip-existing", "--json", cwd=tmp_path).stdout)
    assert [s["skipped"] for s in document["songs"]] == [True, False, False]


@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_jobs_that_have_just_begun_say_nothing_of_an_interruption(tmp_path: Path) -> None:
    slow = """
import os, sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
"""
    (tmp_path / "sitecustomize.py").write_text(slow)
    for name in ("a.wav", "b.wav"):
        song(tmp_path / name)
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS), "PYTHONPATH": str(tmp_path)}
    process = subprocess.Popen(
        [*COMMAND, "waves", "a.wav", "b.wav", "--jobs", "2"],
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    for _ in range(2):
        os.kill(int(process.stdout.readline()), signal.SIGINT)  # a terminal sends it to all; the jobs may be faster
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130
    assert errors.decode() == "ortsep: interrupted; nothing half-written was left\n"


def test_what_was_made_otherwise_is_made_again(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    shutil.copytree(GRAPHS / "waves", tmp_path / "waves")
    files = Files(tmp_path / "out", skip_existing=True)

    def skipped(options: Options | None = None, files: Files = files) -> bool:
        return separate_file(Separator(tmp_path / "waves"), tmp_path / "song.wav", files, options or Options()).skipped

    assert [skipped(), skipped()] == [False, True]
    other = Options(overlap=0.5)
    assert [skipped(other), skipped(other), skipped()] == [False, True, False]
    assert not skipped(files=Files(tmp_path / "out", skip_existing=True, subtype="16"))
    assert not skipped()
    song(tmp_path / "song.wav", seed=1)
    assert [skipped(), skipped()] == [False, True]
    graph = tmp_path / "waves" / "waves.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x12\x05again")  # producer_name once more: another file, the same graph
    assert [skipped(), skipped()] == [False, True]
    (sidecar,) = (tmp_path / "out").rglob(".*.json")
    sidecar.write_text("[" * 100_000)
    assert [skipped(), skipped()] == [False, True]
    (tmp_path / "out" / "waves" / "song" / "vocals.wav").unlink()
    assert [skipped(), skipped()] == [False, True]


def test_partial_files_of_the_dead_are_removed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    mine = partial_path(tmp_path / "drums.wav")
    hold(mine)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{done.stdout.strip()}-"))
    machine = mine.name.split(".")[-2].split("-")[0]
    away = dead.with_name(dead.name.replace(machine, "00000" if machine != "00000" else "11111"))
    old = away.with_name(away.name.replace("drums", "bass"))
    kept = [mine, away, tmp_path / "drums.partial", tmp_path / ".drums.1.partial", tmp_path / "drums.wav"]
    for path in (*kept, dead, old):
        path.touch()
    os.utime(old, (0, 0))
    sweep(tmp_path)
    release(mine)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    sweep(tmp_path / "nothing")


def test_a_skipped_song_loses_what_the_dead_left_beside_it(tmp_path: Path) -> None:
    """A run without --skip-existing is killed over stems that are right; the next skips them."""
    song(tmp_path / "song.wav")
    files = Files(tmp_path / "out", skip_existing=True)
    separator = Separator(GRAPHS / "waves")
    made = separate_file(separator, tmp_path / "song.wav", files)
    killed = [sys.executable, "-c", "import os; print(os.getpid(), flush=True); os.kill(os.getpid(), 9)"]
    pid = subprocess.run(killed, capture_output=True, text=True).stdout.strip()
    stem = Path(made.outputs[0].path or "")
    mine = partial_path(stem)
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{pid}-"))
    left.touch()
    assert separate_file(separator, tmp_path / "song.wav", files).skipped
    assert not left.exists() and stem.exists()


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
def test_from_pipe_to_pipe(tmp_path: Path, subtype: str) -> None:
    x = song(tmp_path / "song.wav")
    soundfile.write(tmp_path / "in.wav", x, 8000, subtype=subtype)
    x, _ = soundfile.read(tmp_path / "in.wav")
    data = (tmp_path / "in.wav").read_bytes()
    done = run("waves", "-", "--stems", "vocals", "-o", "-", cwd=tmp_path, input=data)
    assert done.returncode == 0, done.stderr
    (tmp_path / "out.wav").write_bytes(done.stdout)
    y, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 8000 and soundfile.info(tmp_path / "out.wav").subtype == "FLOAT"
    np.testing.assert_allclose(y, x / 2, atol=1e-6)
    raw = np.rint(x * 32768).astype("<i2").tobytes() + b"\x01"
    done = run("waves", "-", "--raw", "s16le:8000:2", "--json", cwd=tmp_path, input=raw)
    document = json.loads(done.stdout)
    assert document["song"] == "-" and document["outputs"][0]["samples"] == 8000
    y, _ = soundfile.read(tmp_path / "separated" / "waves" / "stdin" / "vocals.wav")
    np.testing.assert_allclose(y, x / 2, atol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["waves", "-"], 1, "standard input is empty"),
        (["waves", "-", "--raw", "s16le:8000:2"], 1, "standard input is empty"),
        (["waves", "-", "--raw", "s16:8000:2"], 2, "FORMAT:RATE:CHANNELS"),
        (["waves", "-", "--raw", "s16le:10:2"], 2, "10"),
        (["waves", "-", "-"], 2, "once"),
        (["waves", "song.wav", "--raw", "s16le:8000:2"], 2, "--raw"),
        (["waves", "song.wav", "-o", "-"], 2, "drums, vocals"),
        (["waves", "song.wav", "-o", "-", "--stems", "drums", "--json"], 2, "--json"),
        (["waves", "song.wav", "-o", "-", "--stems", "drums", "--format", "flac"], 2, "float WAV"),
    ],
)
def test_pipes_that_can_not_be(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    song(tmp_path / "song.wav")
    done = run(*arguments, cwd=tmp_path, input=b"")
    assert done.returncode == status and message in done.stderr.decode(), done.stderr
    assert (len(done.stderr.splitlines()) == 1 and done.stdout in (b"", b"")) or "--json" in arguments
    assert not (tmp_path / "separated").exists()


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    song(tmp_path / "song.wav", 100.0)
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    command = [*COMMAND, "waves", "song.wav", "--stems", "drums", "-o", "-"]
    process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(100)
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(30) == 1
    assert "standard output" in errors and "Traceback" not in errors and "Exception" not in errors


@pytest.mark.parametrize(("subtype", "gate"), [(None, 140.0), ("24", 130.0), ("16", 84.0)])
def test_the_null_depth_is_that_of_the_files(tmp_path: Path, subtype: str | None, gate: float) -> None:
    x = song(tmp_path / "song.wav").astype(np.float64)
    files = Files(tmp_path / "out", subtype=subtype)
    report = separate_file(Separator(GRAPHS / "waves"), tmp_path / "song.wav", files, Options(residual=True))
    total = sum(soundfile.read(path)[0] for path in report.stems.values() if path)
    expected = 10 * np.log10(np.sum(x**2) / max(np.sum((x - total) ** 2), 1e-30))
    assert report.null_db is not None and report.null_db > gate
    assert report.null_db == pytest.approx(min(300.0, expected), abs=0.01)
    assert report.document()["null_db"] == round(report.null_db, 1)
