"""The report's page as text, without matplotlib: nothing breaks out of it, every link leads to its file."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.base.errors import MissingDependency, UsageError
from ortsep.models.onnx_file import read_metadata
from ortsep.models.spec import METADATA_KEY, Figure, ModelSpec, Weights, from_json
from ortsep.options import Options
from ortsep.report.overview import Gatherer, Overview
from ortsep.report.page import Signal, decibels, link, render
from ortsep.report.pictures import clock, common_scale, time_ticks
from ortsep.report.write import pages, require_files
from ortsep.separator import Separator
from ortsep.songs import Files, SongReport, places

HOSTILE = "</title><script>alert(\"x\")</script><img src=x onerror='y'>&amp;$title"


class Page(HTMLParser):
    """Elements, their attributes, and the text within each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.text.setdefault(tag, []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]

    def said(self, tag: str) -> str:
        return "".join(self.text.get(tag, []))


def overview(x: np.ndarray, rate: int = 8000) -> Overview:
    gatherer = Gatherer(x.shape[1], rate, len(x))
    gatherer.push(x.astype(np.float32))
    return gatherer.finish()


def spec(**changes: Any) -> ModelSpec:
    graph = GRAPHS / "waves" / "waves.onnx"
    return replace(from_json(read_metadata(graph)[METADATA_KEY]), **changes)


def page(names: Sequence[str] = ("drums", "vocals"), folder: Path = Path("out"), **changes: Any) -> str:
    given: dict[str, Any] = {"song": "song.wav", "warnings": (), "null_db": 120.0, "gain": 1.0, **changes}
    pytest.importorskip("jinja2")
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
    stems = [Signal(name, overview(x / 2), "<svg></svg>", folder / f"{name}.wav") for name in names]
    report = SongReport(
        song=given["song"],
        model="waves",
        provider="cpu",
        seconds=1.0,
        processing_time=0.5,
        gain=given["gain"],
        outputs=(),
        warnings=given["warnings"],
    )
    return render(
        folder,
        report,
        Signal("Mixture", overview(x), "<svg></svg>"),
        stems,
        [given.get("spec") or spec()],
        given.get("options") or Options(),
        given.get("files") or Files(),
        null_db=given["null_db"],
        top=-5.0,
        colours=["#000000", "#ffffff"],
    )


def test_nothing_from_outside_becomes_markup() -> None:
    model = spec(
        name=HOSTILE,
        notes=(HOSTILE,),
        exporter=HOSTILE,
        weights=Weights(f"javascript:{HOSTILE}", HOSTILE, HOSTILE),
        validation=(Figure(HOSTILE, 120.0, 100.0, HOSTILE),),
    )
    name = HOSTILE.replace("/", "")
    hostile = page(song=HOSTILE.replace("/", ""), names=[name, "b"], warnings=(HOSTILE,), spec=model)
    harmless = page(
        warnings=("x",), spec=spec(exporter="x", validation=(Figure("x", 1.0, 1.0),), weights=Weights("x", "x"))
    )
    parsed, plain = Page(hostile), Page(harmless)
    assert [tag for tag, _ in parsed.found] == [tag for tag, _ in plain.found]
    assert not any(key.startswith("on") for _, attributes in parsed.found for key in attributes)
    assert not any("javascript" in (a.get("href") or "") for a in parsed.all("a"))
    assert HOSTILE.replace("/", "") in parsed.said("h1") and parsed.said("h2").count(HOSTILE) == 1
    assert HOSTILE in parsed.said("li")


def test_it_opens_without_the_network() -> None:
    parsed = Page(page())
    for tag, attributes in parsed.found:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        for key in {"src", "srcset", "poster", "data", "xlink:href"} & attributes.keys():
            assert tag == "audio" and attributes[key] in ("drums.wav", "vocals.wav")
    assert "src" not in parsed.all("script")[0] and len(parsed.all("script")) == 1
    assert "@import" not in parsed.said("style") and "url(" not in parsed.said("style")
    assert all("alt" in a or a.get("aria-label") for a in parsed.all("audio"))


@pytest.mark.parametrize(
    "name", ["drums.wav", "Größe 100%#?.wav", "a:b&c;d.wav", "\"<b>'.wav", "дудук 🥁.wav", os.fsdecode(b"\xff\xfe.wav")]
)
def test_a_link_is_the_files_own_bytes(tmp_path: Path, name: str) -> None:
    for file, folder in ((tmp_path / name, tmp_path), (tmp_path / name / "x.wav", tmp_path / "a b" / "c")):
        url = link(file, folder)
        assert url.isascii() and not set(url) & set("\"'<>& #?:") and "%%" not in url
        assert os.path.normpath(os.path.join(os.fsencode(folder), unquote_to_bytes(url))) == os.fsencode(file)  # noqa: PTH118


def test_levels_and_what_is_left() -> None:
    text = Page(page()).said("tbody")
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
    for amplitude in (np.abs(x).max(), np.sqrt(np.mean(x**2)), np.abs(x).max() / 2, np.sqrt(np.mean(x**2)) / 2):
        assert f"{20 * np.log10(amplitude):.1f} dBFS".replace("-", "−") in text
    assert "−6.0 dB25.0 %" in text
    assert "120.0 dB below" in page(null_db=120.0)
    assert "1.5 dB above" in page(null_db=-1.5)
    assert "nothing at all" in page(null_db=300.0)
    assert "ogg, which is lossy" in page(null_db=None, files=Files(format="ogg"))
    assert "−6.0 dB on all stems" in page(gain=0.5) and "gain of −6.0 dB" in page(gain=0.5)
    assert decibels(0.0) == "−∞" and decibels(1.0) == "0.0"


def test_the_model_and_the_run() -> None:
    told = spec(
        parameters=1234567,
        weights=Weights("https://example.org/w?a=1&b=2", "ab" * 32, "CC BY-NC 4.0", redistributable=False),
        validation=(Figure("graph", 123.45, 100.0, "float64 network"),),
    )
    parsed = Page(page(spec=told, options=Options(overlap=0.5, residual=True), files=Files(subtype="24", start=3.0)))
    facts = parsed.said("dd")
    for text in ("CC BY-NC 4.0 (may not be redistributed)", "ab" * 32, "1 234 567", "https://example.org/w?a=1&b=2"):
        assert text in facts
    assert "residual True, overlap 0.5, subtype 24, start 3.0" in facts
    assert "0.500 (below 1" in facts and "0.50 s" in facts
    assert "graph123.5 dB100 dBfloat64 network" in parsed.said("td") + parsed.said("tr")
    random = Page(page(spec=spec(weights=Weights("random:1", random=True)))).said("dd")
    assert "random: the stems are noise" in random and "not stated" in random


def test_scales_ticks_and_times() -> None:
    still = overview(np.zeros((1, 100)))
    assert (common_scale([still]).peak, common_scale([still]).top) == (1.0, 0.0)
    loud = overview(np.full((1, 8000), 3.0) * np.sin(np.arange(8000)))
    scale = common_scale([still, loud])
    assert scale.peak == loud.peak and scale.top % 5 == 0 and 10 * np.log10(loud.power.max()) <= scale.top < 15
    for seconds in (1 / 44100, 0.003, 0.8, 1.0, 12.0, 61.0, 240.0, 3599.0, 10_800.0, 400_000.0):
        ticks = time_ticks(seconds)
        assert 1 <= len(ticks) <= 11 and ticks[0] == 0 and ticks[-1] <= seconds * (1 + 1e-6)
        assert len({clock(t, ticks[1] if len(ticks) > 1 else 1.0) for t in ticks}) == len(ticks)
    assert [clock(65), clock(3725.0), clock(0.25, 0.05)] == ["1:05", "1:02:05", "0:00.25"]


def test_where_pages_go(tmp_path: Path) -> None:
    separator = Separator(GRAPHS / "waves")

    def placed(template: str, *songs: str, **options: Any) -> list[str]:
        files, chosen = Files(tmp_path, template=template), Options(**options)
        targets = places(separator, songs, files, chosen)
        return [str(page.relative_to(tmp_path)) for page in pages(separator, songs, files, targets)]

    assert placed("{model}/{song}/{stem}.{ext}", "a.wav", "x/a.mp3", "b.wav") == [
        "waves/a/report.html",
        "waves/a (2)/report.html",
        "waves/b/report.html",
    ]
    assert placed("{song} {stem}.{ext}", "a.wav") == ["a report.html"]
    assert placed("{song}.{ext}", "a.wav", "b.wav", stems=("drums",)) == ["a.html", "b.html"]
    assert placed("{song}/{stem}", "a.wav") == ["a/report.html"]
    with pytest.raises(UsageError, match="one file"):
        placed("{song}", "a.wav", "a.html.wav", stems=("drums",))


def run(*arguments: str, cwd: Path, poison: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    if poison:
        (cwd / "without" / poison).mkdir(parents=True)
        (cwd / "without" / poison / "__init__.py").write_text(f"raise ImportError('No module named {poison}')")
        env["PYTHONPATH"] = str(cwd / "without")
    command = [sys.executable, "-m", "ortsep.cli", "run", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_without_its_packages_nothing_is_begun(tmp_path: Path, package: str) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((800, 2)), 8000)
    done = run("waves", "song.wav", "--report", cwd=tmp_path, poison=package)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "pip install 'ortsep[report]'" in done.stderr
    assert not (tmp_path / "separated").exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_nor_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((800, 2)), 8000)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=r"pip install 'ortsep\[report\]'"):
        require_files(Files(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["-o", "-", "--stems", "drums"], "-o -"), (["--json", "--inline-audio"], "--inline-audio")],
)
def test_a_report_needs_files(tmp_path: Path, arguments: list[str], message: str) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((800, 2)), 8000)
    done = run("waves", "song.wav", "--report", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "--report" in done.stderr
    assert not (tmp_path / "separated").exists()
    with pytest.raises(UsageError, match="files"):
        require_files(Files(inline_audio=True))
