"""fetch() against a server on this machine that can misbehave in every way that matters."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import pytest

from ortsep.base.cache import cache_folder
from ortsep.base.errors import DownloadError
from ortsep.export.weights import download
from ortsep.export.weights.download import fetch
from ortsep.models.catalogue import Source

DATA = hashlib.shake_256(b"weights").digest(700_001)
SHA = hashlib.sha256(DATA).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    requests: list[dict[str, str]]
    data = DATA
    ranges = True
    etag: str | None = '"v1"'
    announce = True
    cut_after: list[int]
    fail_with: list[int]
    location = ""
    claimed = 0
    """Bytes more than there are that Content-Length promises."""
    slow = 0.0
    """Seconds of pause behind every 50 kB."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    wbufsize = 0

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.fail_with:
            self.send_error(server.fail_with.pop(0))
            return
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        if server.ranges and asked and self.headers.get("If-Range") == server.etag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.announce:
            self.send_header("Content-Length", str(len(server.data) - start + server.claimed))
        self.end_headers()
        body = server.data[start:]
        body = body[: server.cut_after.pop(0)] if server.cut_after else body
        for at in range(0, len(body), 50_000):
            self.wfile.write(body[at : at + 50_000])
            time.sleep(server.slow)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.requests, server.cut_after, server.fail_with = [], [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def _left(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


def test_plain_download_then_cache(server: _Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = Source(f"{server.url}/a/model-{SHA[:8]}.th?x=1", SHA[:8])
    path = fetch(source, tmp_path, lambda name, done, total: seen.append((done, total)))
    assert path == tmp_path / f"model-{SHA[:8]}.th" and path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA)) and seen == sorted(seen)
    assert _left(tmp_path) == {path.name}
    server.shutdown()
    assert fetch(source, tmp_path) == path and len(server.requests) == 1


def test_a_cached_file_that_changed_is_fetched_again(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "m.th").write_bytes(DATA[:-1] + b"x")
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA
    (tmp_path / "m.th").write_bytes(b"")
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA


def test_resumes_where_the_connection_broke(server: _Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 100_000]
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA
    assert [r.get("Range") for r in server.requests] == [None, "bytes=300000-", "bytes=400000-"]
    assert server.requests[1]["If-Range"] == '"v1"' and _left(tmp_path) == {"m.th"}


def test_resumes_in_a_later_run(server: _Server, tmp_path: Path) -> None:
    server.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="300000 of 700001"):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
    assert not (tmp_path / "m.th").exists()
    server.requests.clear()
    server.cut_after.clear()
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA
    assert [r.get("Range") for r in server.requests] == ["bytes=300000-"]


@pytest.mark.parametrize("change", ["no ranges", "no validator", "another version"])
def test_starts_anew_where_resuming_would_be_wrong(server: _Server, tmp_path: Path, change: str) -> None:
    server.etag = None if change == "no validator" else '"v1"'
    server.ranges = change != "no ranges"
    server.data = DATA[::-1] if change == "another version" else DATA
    server.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
    server.data = DATA
    server.etag = '"v2"' if change == "another version" else server.etag
    server.cut_after.clear()
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("note", ["[" * 100_000, "[]", '{"url": 1}', "\0"])
def test_a_damaged_note_of_a_part_starts_anew(server: _Server, tmp_path: Path, note: str) -> None:
    server.cut_after = [300_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
    assert (tmp_path / "m.th.part.json").is_file()
    (tmp_path / "m.th.part.json").write_text(note)
    server.cut_after.clear()
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA


def test_a_complete_part_needs_no_network(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "m.th.part").write_bytes(DATA)
    assert fetch(Source(f"{server.url}/m.th", SHA, len(DATA)), tmp_path).read_bytes() == DATA
    assert server.requests == []


def test_wrong_hash_leaves_nothing(server: _Server, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(DownloadError, match=f"{SHA}.*{wrong}"):
        fetch(Source(f"{server.url}/m.th", wrong), tmp_path)
    assert _left(tmp_path) == set()


def test_truncated_for_good(server: _Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [100] * 50
    with pytest.raises(DownloadError, match="100 of 700001"):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
    assert "m.th" not in _left(tmp_path) and len(server.requests) == 4


def test_more_than_expected_is_cut_off(server: _Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="700001 bytes long where 5 were expected"):
        fetch(Source(f"{server.url}/m.th", SHA, 5), tmp_path)
    server.announce = False
    with pytest.raises(DownloadError, match="more than the 5 bytes"):
        fetch(Source(f"{server.url}/m.th", SHA, 5), tmp_path)
    assert _left(tmp_path) == set()


def test_no_announced_length(server: _Server, tmp_path: Path) -> None:
    server.announce = False
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA


def test_transient_errors_are_tried_again_and_others_not(server: _Server, tmp_path: Path) -> None:
    server.fail_with = [503, 429]
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA
    server.requests.clear()
    server.fail_with = [404]
    with pytest.raises(DownloadError, match="404"):
        fetch(Source(f"{server.url}/n.th", SHA), tmp_path)
    assert len(server.requests) == 1


def test_offline_says_what_to_do(tmp_path: Path, server: _Server) -> None:
    url = f"{server.url}/m-{SHA[:8]}.th"
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError) as caught:
        fetch(Source(url, SHA[:8]), tmp_path / "new")
    message = str(caught.value)
    for part in (url, f"begins with {SHA[:8]}", str(tmp_path / "new" / f"m-{SHA[:8]}.th"), "--weights PATH", "random"):
        assert part in message


@pytest.mark.parametrize(
    "location",
    ["http://example.org/m.th", "ftp://example.org/m.th", "file:///etc/passwd", "http://[::ffff:8.8.8.8]/m.th"],
)
def test_redirect_to_something_else_is_refused(server: _Server, tmp_path: Path, location: str) -> None:
    server.location = location
    with pytest.raises(DownloadError):
        fetch(Source(f"{server.url}/redirect/m.th", SHA), tmp_path)
    assert len(server.requests) == 1 and _left(tmp_path) == set()


def test_redirect_to_a_mirror_is_followed(server: _Server, tmp_path: Path) -> None:
    server.location = f"{server.url}/elsewhere.th"
    assert fetch(Source(f"{server.url}/redirect/m.th", SHA), tmp_path).name == "m.th"


def test_https_never_redirects_to_http() -> None:
    request = Request("https://example.org/m.th")
    with pytest.raises(DownloadError, match="not https"):
        download._Redirects().redirect_request(request, None, 302, "", {}, "http://127.0.0.1/m.th")
    new = download._Redirects().redirect_request(request, None, 302, "", {}, "https://mirror.example.org/m.th")
    assert new is not None and new.full_url == "https://mirror.example.org/m.th"


@pytest.mark.parametrize(
    "url",
    ["http://example.org/m.th", "file:///etc/passwd", "m.th", "http://127.0.0.1.example.org/m.th", "https://example.org/",
     "https://example.org/..", "https://example.org/%2e%2e%2fm.th%00", "https://example.org/a/.lock"],
)  # fmt: skip
def test_urls_that_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        fetch(Source(url, SHA), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path, server: _Server) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DownloadError, match="ORTSEP_CACHE"):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path / "file")


def test_no_room(tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match="no room for the 700001 bytes"):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)


def _fetch_in_process(url: str, folder: str, start: "multiprocessing.synchronize.Event") -> None:
    start.wait()
    fetch(Source(url, SHA), Path(folder))


def test_processes_share_one_download(server: _Server, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    start = spawn.Event()
    jobs = [
        spawn.Process(target=_fetch_in_process, args=(f"{server.url}/m.th", str(tmp_path), start)) for _ in range(4)
    ]
    for job in jobs:
        job.start()
    start.set()
    for job in jobs:
        job.join(30)
    assert [job.exitcode for job in jobs] == [0] * 4
    assert (tmp_path / "m.th").read_bytes() == DATA and _left(tmp_path) == {"m.th"} and len(server.requests) == 1


def test_a_connection_that_breaks_again_and_again(server: _Server, tmp_path: Path) -> None:
    server.cut_after = [100_000] * 7
    seen: list[tuple[str, int, int]] = []
    path = fetch(Source(f"{server.url}/m.th", SHA), tmp_path, lambda *told: seen.append(told))
    assert path.read_bytes() == DATA and len(server.requests) == 8
    assert [r.get("Range") for r in server.requests[1:]] == [f"bytes={k * 100_000}-" for k in range(1, 8)]
    assert {(name, total) for name, _, total in seen} == {("m.th", len(DATA))}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen) and seen[-1][1] == len(DATA)


@pytest.mark.parametrize("claimed", [1, 1000, 1 << 40, -1, -700_000])
def test_a_server_that_lies_about_the_length(server: _Server, tmp_path: Path, claimed: int) -> None:
    server.claimed, server.ranges = claimed, False
    with pytest.raises(DownloadError):
        fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
    assert "m.th" not in _left(tmp_path) and len(server.requests) <= 4


def test_a_range_that_is_not_to_be_had(server: _Server, tmp_path: Path) -> None:
    """416: what is there is forgotten and the file fetched from its beginning."""
    server.cut_after = [100_000]
    server.fail_with = []
    calls = []

    def fail_second(*told: object) -> None:
        if not calls:
            calls.append(told)
            server.fail_with = [416]

    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path, fail_second).read_bytes() == DATA
    assert [("Range" in r) for r in server.requests] == [False, True, False]
    assert _left(tmp_path) == {"m.th"}


def test_a_wrong_file_is_hashed_and_never_opened(server: _Server, tmp_path: Path) -> None:
    """What the cache holds under the final name is read by nobody until its hash is right."""
    server.data = b"malicious" * 1000
    for _ in range(2):
        with pytest.raises(DownloadError, match="it was removed"):
            fetch(Source(f"{server.url}/m.th", SHA), tmp_path)
        assert _left(tmp_path) == set()
    server.data = DATA
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA


def test_a_killed_download_goes_on_where_it_was(server: _Server, tmp_path: Path) -> None:
    server.slow = 0.05
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    start = context.Event()
    start.set()
    job = context.Process(target=_fetch_in_process, args=(f"{server.url}/m.th", str(tmp_path), start))
    job.start()
    part, deadline = tmp_path / "m.th.part", time.monotonic() + 20
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
        time.sleep(0.01)
    os.kill(job.pid or 0, signal.SIGKILL)
    job.join()
    assert job.exitcode == -signal.SIGKILL and not (tmp_path / "m.th").exists()
    had = part.stat().st_size
    assert 0 < had < len(DATA)
    server.slow = 0.0
    assert fetch(Source(f"{server.url}/m.th", SHA), tmp_path).read_bytes() == DATA
    assert server.requests[-1]["Range"] == f"bytes={had}-"


def test_a_disk_that_fills_up(server: _Server, small_disk: Path) -> None:
    (small_disk / "kept.bin").write_bytes(b"x" * 1_600_000)
    server.announce = False  # so that nobody can know beforehand
    with pytest.raises(DownloadError, match=r"No space left.*ORTSEP_CACHE"):
        fetch(Source(f"{server.url}/m.th", SHA), small_disk)
    assert "m.th" not in _left(small_disk)
    (small_disk / "kept.bin").unlink()
    assert fetch(Source(f"{server.url}/m.th", SHA), small_disk).read_bytes() == DATA


def test_a_cache_that_is_read_only(server: _Server, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(DownloadError, match=r"Read-only file system.*ORTSEP_CACHE"):
        fetch(Source(f"{server.url}/m.th", SHA), small_disk)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("ORTSEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setattr(download.sys, "platform", "linux")
    assert cache_folder() == Path("/x/ortsep")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ortsep"
    monkeypatch.setattr(download.sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "ortsep"
