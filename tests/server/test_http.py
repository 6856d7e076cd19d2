"""A server as its clients meet it: real processes, real files, real sockets."""

import io
import json
import os
import re
import signal
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from serving import ORTSEP, Running, Serve

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

FACTORS = {"drums": 0.25, "vocals": 0.5}
"""What the graph ``waves`` multiplies its input by."""


def noise(seed: int = 0, seconds: float = 1.0, rate: int = 8000) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).standard_normal((round(seconds * rate), 2))).astype(np.float32)


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def post(server: Running, song: bytes = b"", name: str = "song.wav", headers: Any = None, **fields: str) -> Any:
    fields.setdefault("model", "waves")
    files = {"song": (name, song or wav(noise()))}
    return httpx.post(f"{server.address}/v1/separations", data=fields, files=files, headers=headers, timeout=60)


def ended(server: Running, id_: str, seconds: float = 60.0) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        document: dict[str, Any] = httpx.get(f"{server.address}/v1/separations/{id_}").json()
        if document["state"] in ("done", "failed", "cancelled"):
            return document
        time.sleep(0.05)
    raise AssertionError(document)


def problem(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status and document["title"]
    for word in words:
        assert word in document["detail"], document


def files_of_jobs(server: Running) -> list[str]:
    return sorted(p.name for folder in ("jobs", "incoming") for p in (server.data / folder).iterdir())


def test_stems_are_those_of_the_command_line(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    samples = noise(3, 2.0, 44100)
    soundfile.write(tmp_path / "song.wav", samples, 44100, subtype="FLOAT")
    command = [*ORTSEP, "run", "drums_mini", "song.wav", "-o", "out", "--residual", "-q"]
    subprocess.run(command, cwd=tmp_path, check=True)
    answer = post(server, (tmp_path / "song.wav").read_bytes(), model="drums_mini", residual="true")
    assert answer.status_code == 202
    document = ended(server, answer.json()["id"])
    assert answer.headers["location"] == document["links"]["self"]
    result = document["result"]
    assert result["model"] == "drums_mini" and result["backend"] == "cpu" and result["song"] == "song.wav"
    assert list(result["stems"]) == ["kick", "snare", "toms", "hihat", "cymbals", "residual"]
    for name, link in result["stems"].items():
        theirs, _ = soundfile.read(io.BytesIO(httpx.get(server.address + link).content), dtype="float32")
        ours, _ = soundfile.read(tmp_path / "out" / "drums_mini" / "song" / f"{name}.wav", dtype="float32")
        np.testing.assert_array_equal(theirs, ours)
    assert str(server.data) not in json.dumps(document)


def test_a_body_that_is_the_song_and_one_stem(serve: Serve) -> None:
    server = serve()
    query = {"model": "waves", "stems": "vocals", "name": "../../etc/näh.wav", "format": "flac", "subtype": "24"}
    headers = {"content-type": "audio/wav"}
    answer = httpx.post(f"{server.address}/v1/separations", params=query, content=wav(noise()), headers=headers)
    document = ended(server, answer.json()["id"])
    assert document["song"] == "näh.wav" and list(document["result"]["stems"]) == ["vocals"]
    stem = httpx.get(f"{server.address}{document['links']['self']}/stems/vocals").content
    y, rate = soundfile.read(io.BytesIO(stem), dtype="float32")
    assert rate == 8000
    np.testing.assert_allclose(y, 0.5 * noise(), atol=2**-22)


def test_ranges_tags_archive_and_pictures(serve: Serve) -> None:
    server = serve()
    document = ended(server, post(server, name="a song.wav").json()["id"])
    link = server.address + document["result"]["stems"]["drums"]
    whole = httpx.get(link)
    part = httpx.get(link, headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole.content[100:200]
    assert httpx.get(link, headers={"range": "bytes=999999999-"}).status_code == 416
    stale = {"range": "bytes=100-199", "if-range": '"another"'}
    assert httpx.get(link, headers=stale).content == whole.content
    assert whole.headers["etag"] and whole.headers["x-content-type-options"] == "nosniff"
    saved = httpx.get(link + "?download=true").headers["content-disposition"]
    assert "attachment" in saved and "a%20song%20-%20drums.wav" in saved
    archive = zipfile.ZipFile(io.BytesIO(httpx.get(server.address + document["links"]["archive"]).content))
    assert archive.testzip() is None and sorted(archive.namelist()) == ["drums.wav", "vocals.wav"]
    assert archive.read("drums.wav") == whole.content
    pictures = httpx.get(server.address + document["links"]["pictures"]).json()
    assert list(pictures["signals"]) == ["mixture", "drums", "vocals"]
    peaks = {name: signal["peak"] for name, signal in pictures["signals"].items()}
    assert peaks["drums"] == pytest.approx(0.25 * peaks["mixture"], rel=1e-5)
    problem(httpx.get(f"{link}x"), 404, "no stem", "drums, vocals")
    problem(httpx.get(server.address + document["links"]["self"] + "/report"), 404, "report")


def test_a_report_is_asked_for(serve: Serve) -> None:
    pytest.importorskip("matplotlib")
    server = serve()
    document = ended(server, post(server, report="true").json()["id"])
    page = httpx.get(server.address + document["links"]["report"])
    assert page.status_code == 200 and "<h1>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_events_tell_the_way_to_the_end(serve: Serve) -> None:
    server = serve()
    id_ = post(server, wav(noise(0, 60.0))).json()["id"]
    states = []
    with httpx.stream("GET", f"{server.address}/v1/separations/{id_}/events", timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
    assert states[-1]["state"] == "done" and states[-1]["result"]["stems"]
    order = [s["state"] for s in states]
    assert order == sorted(order, key=["queued", "running", "done"].index)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"model": "nothing"}, 404, ("'nothing'", "waves")),
        ({"stems": "bass"}, 422, ("no stem 'bass'", "drums, vocals")),
        ({"overlap": "2"}, 422, ("overlap", "'2'")),
        ({"overlap": "nan"}, 422, ("overlap",)),
        ({"start": "inf"}, 422, ("start",)),
        ({"rate": "12"}, 422, ("rate",)),
        ({"format": "exe"}, 422, ("format", "'exe'")),
        ({"colour": "blue"}, 422, ("no option 'colour'", "two_stems")),
        ({"stems": "drums", "two_stems": "vocals"}, 422, ("exclude",)),
        ({"then": "nothing"}, 404, ("'nothing'",)),
    ],
)
def test_what_can_not_be_done_is_said_before_a_job_is_made(
    serve: Serve, fields: dict[str, str], status: int, words: tuple[str, ...]
) -> None:
    server = serve()
    problem(post(server, **fields), status, *words)
    assert files_of_jobs(server) == []


def test_bad_bodies(serve: Serve) -> None:
    server = serve("--max-upload", "1")
    where = f"{server.address}/v1/separations"
    problem(httpx.post(where), 422, "no song")
    problem(httpx.post(where, content=b"x", headers={"content-type": "text/html"}), 415, "text/html")
    problem(httpx.post(where, content=b"x" * (2 << 20), headers={"content-type": "audio/wav"}), 413, "1 MB")
    form = {"content-type": "multipart/form-data; boundary=b"}
    problem(httpx.post(where, content=b"--b\r\nbroken", headers=form), 400, "form")
    problem(httpx.post(where, content=b"x", headers={"content-type": "multipart/form-data"}), 400, "boundary")
    cut = b'--b\r\nContent-Disposition: form-data; name="song"; filename="a"\r\n\r\nabc'
    problem(httpx.post(where, content=cut, headers=form), 400, "middle")
    two = [("song", ("a.wav", b"x")), ("song", ("b.wav", b"x"))]
    problem(httpx.post(where, files=two), 422, "one file")
    problem(httpx.post(where, files={"other": ("a.wav", b"x")}), 422, "'song'")
    problem(httpx.post(where, data={"model": "m" * 20000}, files={"song": ("a", b"x")}), 413, "10000 bytes")
    problem(httpx.get(f"{server.address}/nothing"), 404, "/nothing")
    problem(httpx.put(where), 405)
    problem(httpx.get(f"{where}/none"), 404, "no such separation")
    assert files_of_jobs(server) == []
    answer = post(server, b"this is no audio at all")
    document = ended(server, answer.json()["id"])
    assert document["state"] == "failed" and "the song" in document["error"]
    assert str(server.data) not in document["error"]
    problem(httpx.get(f"{where}/{document['id']}/stems/drums"), 409)


def test_the_same_request_twice_is_one_job(serve: Serve) -> None:
    server = serve()
    key = {"idempotency-key": "k-1"}
    song = wav(noise())
    first, second = post(server, song, headers=key), post(server, song, headers=key)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]
    problem(post(server, wav(noise(9)), headers=key), 422, "Idempotency-Key")
    assert len(files_of_jobs(server)) == 1


def test_a_running_job_is_cancelled_at_once_and_leaves_nothing(serve: Serve) -> None:
    server = serve()
    id_ = post(server, wav(noise(0, 1200.0)), model="hybrid").json()["id"]
    where = f"{server.address}/v1/separations/{id_}"
    while httpx.get(where).json()["state"] == "queued":
        time.sleep(0.02)
    assert httpx.delete(where).status_code == 204
    deadline = time.monotonic() + 10
    while httpx.get(where).status_code != 404 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert httpx.get(where).status_code == 404
    assert files_of_jobs(server) == []
    assert ended(server, post(server).json()["id"])["state"] == "done"


def test_a_process_that_dies_costs_its_job_only(serve: Serve) -> None:
    server = serve()
    id_ = post(server, wav(noise(0, 1200.0)), model="hybrid").json()["id"]
    where = f"{server.address}/v1/separations/{id_}"
    while "progress" not in httpx.get(where).json():
        time.sleep(0.02)
    for child in children(server.process.pid):
        os.kill(child, signal.SIGKILL)
    document = ended(server, id_)
    assert document["state"] == "failed" and "signal 9" in document["error"]
    assert ended(server, post(server).json()["id"])["state"] == "done"


def children(process: int) -> list[int]:
    """The processes that separate, which Python starts with ``spawn_main``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, line = (folder / "status").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PPid:\t{process}\n" in status and b"spawn_main" in line:
            found.append(int(folder.name))
    assert found
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_waited_or_ran_goes_on_after_a_restart(serve: Serve, number: int) -> None:
    server = serve()
    running = post(server, wav(noise(0, 60.0)), model="hybrid").json()["id"]
    waiting = post(server, wav(noise(5))).json()["id"]
    while httpx.get(f"{server.address}/v1/separations/{running}").json()["state"] == "queued":
        time.sleep(0.01)
    status = server.stop(number)
    assert status == (0 if number != signal.SIGKILL else -9)
    again = serve(data=server.data)
    for id_ in (running, waiting):
        document = ended(again, id_)
        assert document["state"] == "done", document
    stem = httpx.get(f"{again.address}/v1/separations/{waiting}/stems/vocals").content
    np.testing.assert_allclose(soundfile.read(io.BytesIO(stem), dtype="float32")[0], 0.5 * noise(5), atol=1e-6)


@pytest.mark.parametrize("after", [0.0, 0.03, 0.2])
def test_who_reads_the_address_may_end_it_at_once(serve: Serve, after: float) -> None:
    server = serve()
    time.sleep(after)
    assert server.stop(signal.SIGTERM) == 0


def test_two_servers_do_not_share_a_folder(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    command = [*ORTSEP, "serve", "--port", "0", "--data", str(server.data)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "another server uses" in done.stderr
    port = server.address.rsplit(":", 1)[1]
    done = subprocess.run(
        [*ORTSEP, "serve", "--port", port, "--data", str(tmp_path / "b")], capture_output=True, text=True
    )
    assert done.returncode == 1 and "can't be listened on" in done.stderr


def test_a_queue_and_a_rate_have_bounds(serve: Serve) -> None:
    server = serve("--max-queue", "1", "--max-rate", "4")
    answers = [post(server, wav(noise(0, 300.0)), model="hybrid") for _ in range(3)]
    full = answers[-1]
    problem(full, 429, "queue is full")
    assert int(full.headers["retry-after"]) > 0
    problem(httpx.get(f"{server.address}/readyz"), 503, "queue")
    post(server)
    fast = post(server)
    problem(fast, 429, "too many songs")
    assert int(fast.headers["retry-after"]) > 0


def test_a_long_song_is_refused_and_results_are_kept_for_a_while_only(serve: Serve) -> None:
    server = serve("--max-length", "0.05", "--keep", "0.0003")
    document = ended(server, post(server, wav(noise(0, 4.0))).json()["id"])
    assert document["state"] == "failed" and "takes up to 3" in document["error"]
    done = ended(server, post(server).json()["id"])
    assert done["state"] == "done"
    deadline = time.monotonic() + 20
    while files_of_jobs(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert files_of_jobs(server) == []
    problem(httpx.get(server.address + done["links"]["self"]), 404)


def test_a_token_lets_in(serve: Serve, tmp_path: Path) -> None:
    token = "a-long-secret-token"
    server = serve("--token", token)
    where = f"{server.address}/v1/separations"
    problem(httpx.get(where), 401, "token")
    problem(post(server), 401)
    problem(httpx.get(where, headers={"authorization": "Bearer wrong"}), 401)
    problem(httpx.get(f"{server.address}/metrics"), 401)
    assert httpx.get(f"{server.address}/healthz").status_code == 200
    assert post(server, headers={"authorization": f"Bearer {token}"}).status_code == 202
    with httpx.Client(base_url=server.address) as browser:
        problem(browser.post("/v1/session", json={"token": "guess"}), 401)
        began = browser.post("/v1/session", json={"token": token})
        cookie = began.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and token not in cookie
        assert browser.get("/v1/separations").status_code == 200
        browser.delete("/v1/session")
        assert browser.get("/v1/separations").status_code == 401
    server.stop()
    assert token not in (tmp_path / "log").read_text()


def test_strangers_stay_outside(serve: Serve) -> None:
    server = serve()
    problem(httpx.get(f"{server.address}/v1/models", headers={"host": "evil.example"}), 421, "evil.example")
    problem(post(server, headers={"origin": "http://evil.example"}), 403, "evil.example")
    assert post(server, headers={"origin": server.address}).status_code == 202
    done = subprocess.run([*ORTSEP, "serve", "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True)
    assert done.returncode == 2 and "token" in done.stderr
    page = httpx.get(server.address)
    assert "script-src" not in page.headers["content-security-policy"]  # so it is default-src 'self'
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert not re.search(r"https?://", page.text)


def test_a_full_disk_is_said(serve: Serve, small_disk: Path) -> None:
    server = serve(data=small_disk / "data")
    problem(post(server, wav(noise(0, 60.0))), 507, "No space")
    assert files_of_jobs(server) == []
    assert ended(server, post(server, wav(noise(0, 0.2))).json()["id"])["state"] == "done"


def test_metrics_count(serve: Serve) -> None:
    server = serve()
    ended(server, post(server).json()["id"])
    post(server, model="nothing")
    text = httpx.get(f"{server.address}/metrics").text
    assert 'ortsep_separations_ended_total{model="waves",outcome="done"} 1.0' in text
    assert 'ortsep_uploads_total{status="404"} 1.0' in text
    assert 'ortsep_audio_seconds_total{model="waves"} 1.0' in text


def test_many_clients_get_their_own(serve: Serve) -> None:
    server = serve("--jobs", "2")

    def one(seed: int) -> None:
        document = ended(server, post(server, wav(noise(seed))).json()["id"], 120)
        for name, factor in FACTORS.items():
            stem = httpx.get(server.address + document["result"]["stems"][name]).content
            y, _ = soundfile.read(io.BytesIO(stem), dtype="float32")
            np.testing.assert_allclose(y, factor * noise(seed), atol=1e-6)

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(one, range(40)))
