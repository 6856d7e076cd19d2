"""`ortsep run --report` from command to page: what it shows is what is in the files. Needs matplotlib."""

import base64
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.base.errors import AudioError, OutputError
from ortsep.base.whole import partial_path
from ortsep.options import Options
from ortsep.report.overview import BANDS, Gatherer
from ortsep.report.write import draw_report
from ortsep.separator import Separator
from ortsep.songs import Files, SongReport, separate_file

matplotlib = pytest.importorskip("matplotlib")


def song(path: Path, seconds: float = 1.0, seed: int = 0, channels: int = 2, rate: int = 8000) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (max(1, round(seconds * rate)), channels)).astype(np.float32)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return x


def run(*arguments: str, cwd: Path, **changes: Any) -> Any:
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS)}
    command = [sys.executable, "-m", "ortsep.cli", "run", *arguments, "--report", "--json"]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, timeout=300, **changes)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def pictures(page: Path) -> list[ElementTree.Element]:
    """The page's pictures, which must be sound XML, with what else every page must be."""
    text = page.read_text(encoding="utf-8")
    assert not list(page.parent.glob("*.partial")) and not list(page.parent.glob(".*.partial"))
    for url in re.findall(r'<audio[^>]*src="([^"]*)"', text):
        assert (page.parent / unquote(url)).is_file()
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]*)', text))
    assert used <= set(ids)
    assert not re.search(r'(?:src|xlink:href)="(?!data:image/png;base64,|#)[a-z]+:', text)
    found = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert all("var(--tone)" in svg and "var(--ink)" in svg for svg in found)
    return [
        ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)) for svg in found
    ]


def spectrogram(picture: ElementTree.Element) -> np.ndarray:
    """The colours of a picture's image [rows, columns, 3], 0 to 255, lowest frequency first."""
    from PIL import Image

    (image,) = picture.iter("{http://www.w3.org/2000/svg}image")
    head, data = image.attrib["{http://www.w3.org/1999/xlink}href"].split(",", 1)
    assert head == "data:image/png;base64"
    colours = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
    upright = float(re.findall(r"[-0-9.]+", image.attrib["transform"])[3]) > 0
    return colours[::-1] if upright else colours


def test_the_page_shows_what_is_in_the_files(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", 3.0).astype(np.float64)
    document = run("waves", "song.wav", cwd=tmp_path)
    assert document["report"] == str(Path("separated", "waves", "song", "report.html"))
    page = tmp_path / document["report"]
    mixture, drums, _ = pictures(page)
    assert "Mixture" not in document["stems"] and "peak −18.1 dBFS" in drums.attrib["aria-label"]
    text = page.read_text(encoding="utf-8")
    rms = 10 * np.log10(np.mean(x**2))
    for level in (rms, rms + 20 * np.log10(0.25), rms + 20 * np.log10(0.5)):
        assert f"{level:.1f} dBFS".replace("-", "−") in text
    assert re.search(r">6\.[23] %<", text) and ">25.0 %<" in text
    # drums are a quarter and vocals a half of the mixture: a quarter is left, and nothing is asked of the residual
    assert "<strong>12.0 dB below</strong>" in text and "null_db" not in document
    gatherer = Gatherer(len(x), 8000, 2)
    gatherer.push(x.T.astype(np.float32))
    whole = gatherer.finish()
    top = 5 * np.ceil(2 * np.log10(whole.power.max()))
    for picture, factor in ((mixture, 1.0), (drums, 0.25)):
        colours = spectrogram(picture)
        assert colours.shape[:2] == whole.power.shape == (BANDS, min(1000, colours.shape[1]))
        level = np.rint(10 * np.log10(whole.power * factor**2))
        place = np.clip((level - (top - 80)) / 80, 0, 1)
        expected = matplotlib.colormaps["magma"](place)[..., :3] * 255
        assert np.mean(np.abs(colours - expected) > 8) < 0.01  # a level at the edge of two roundings


def test_one_scale_for_all_pictures(tmp_path: Path) -> None:
    t = np.arange(16_000) / 8000
    soundfile.write(tmp_path / "song.wav", (0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32), 8000)
    page = tmp_path / run("waves", "song.wav", cwd=tmp_path)["report"]
    mixture, drums, vocals = (spectrogram(p).astype(int).sum(axis=2) for p in pictures(page))
    row = int(np.argmax(mixture[:, 100]))
    assert abs(30 * (4000 / 30) ** (row / (BANDS - 1)) - 1000) < 30
    assert mixture[row, 100] > vocals[row, 100] > drums[row, 100] > mixture[BANDS // 4, 100]


@pytest.mark.parametrize(
    ("model", "seconds", "channels", "rate", "options"),
    [
        ("waves", 0.0, 1, 8000, []),
        ("masks", 0.001, 2, 8000, ["--residual"]),
        ("complex", 1.0, 1, 44100, ["--format", "flac"]),
        ("ratio", 1.0, 8, 48000, ["--downmix"]),
        ("hybrid", 1.0, 2, 192_000, ["--two-stems", "bass"]),
        ("plain", 0.5, 2, 8000, ["--stems", "drums", "--template", "{stem}/a b/{song}.{ext}"]),
        ("waves", 1.0, 2, 1000, ["--format", "ogg", "--rate", "8000"]),
        ("bag", 1.0, 2, 8000, ["--start", "0.25", "--duration", "0.5", "--subtype", "16"]),
    ],
)
def test_songs_of_all_kinds(
    tmp_path: Path, model: str, seconds: float, channels: int, rate: int, options: list[str]
) -> None:
    song(tmp_path / "a <b> & 'c' ü%23#.wav", seconds, channels=channels, rate=rate)
    document = run(model, "a <b> & 'c' ü%23#.wav", *options, cwd=tmp_path)
    page = tmp_path / document["report"]
    assert len(pictures(page)) == 1 + len(document["stems"])
    text = page.read_text(encoding="utf-8")
    assert "<h1>a &lt;b&gt; &amp; &#39;c&#39; ü%23#.wav</h1>" in text
    assert ("lossy" in text) == ("ogg" in options)
    for warning in document["warnings"]:
        assert html.escape(warning).replace("&#x27;", "&#39;") in text  # as jinja2 writes it


def test_the_mixture_is_shown_at_the_stems_gain(tmp_path: Path) -> None:
    x = 8 * song(tmp_path / "song.wav")
    soundfile.write(tmp_path / "song.wav", x, 8000, subtype="FLOAT")
    document = run("waves", "song.wav", "--subtype", "16", cwd=tmp_path)
    assert document["gain"] < 0.6
    mixture = pictures(tmp_path / document["report"])[0]
    peak = 20 * np.log10(document["gain"] * np.abs(x).max())
    assert f"peak {peak:.1f} dBFS" in mixture.attrib["aria-label"]


def test_silence(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "song.wav", np.zeros((8000, 2)), 8000)
    page = tmp_path / run("waves", "song.wav", "--residual", cwd=tmp_path)["report"]
    assert [int(spectrogram(p).max()) for p in pictures(page)] == [3, 3, 3, 3]  # magma begins at 0, 0, 3
    text = page.read_text(encoding="utf-8")
    assert "−∞ dBFS" in text and "nothing at all" in text and "nan" not in re.sub('base64,[^"]*', "", text).lower()


def test_a_page_for_each_song_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for k, name in enumerate(("song.wav", "x/song.wav", "other.wav")):
        song(tmp_path / name, 0.5 + k / 4, seed=k)
    document = run("waves", "song.wav", "x/song.wav", "other.wav", "--jobs", "2", "--quiet", cwd=tmp_path)
    folders = [Path(s["report"]).parent.name for s in document["songs"]]
    assert folders == ["song", "song (2)", "other"]
    for k, told in enumerate(document["songs"]):
        assert len(pictures(tmp_path / told["report"])) == 3
        assert f"{round((0.5 + k / 4) * 8000)} samples" in (tmp_path / told["report"]).read_text(encoding="utf-8")


def test_two_models_have_two_cards(tmp_path: Path) -> None:
    shutil.copytree(GRAPHS / "masks", tmp_path / "parts")
    (tmp_path / "parts" / "stems.txt").write_text("kick\nsnare\n")
    song(tmp_path / "song.wav")
    document = run("waves", "parts@drums", "song.wav", cwd=tmp_path)
    page = tmp_path / document["report"]
    assert len(pictures(page)) == 4
    assert re.findall(r"<h2>Model: (\w+)</h2>", page.read_text(encoding="utf-8")) == ["waves", "masks"]


def test_a_song_from_standard_input(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav")
    document = run("waves", "-", "--raw", "f32le:8000:2", cwd=tmp_path, input=x.tobytes())
    page = tmp_path / document["report"]
    assert page.parent.name == "stdin" and len(pictures(page)) == 3
    assert ".partial" not in page.read_text(encoding="utf-8"), "the name of the temporary folder"


def separated(folder: Path, options: Options | None = None, report: bool = True, **files: Any) -> SongReport:
    page = folder / "out" / "waves" / "song" / "report.html" if report else None
    chosen = Files(folder / "out", skip_existing=True, **files)
    separator = Separator(GRAPHS / "waves")
    made = separate_file(separator, folder / "song.wav", chosen, options)
    return made if page is None else draw_report(separator, made, page, chosen, options or Options())


def test_only_the_page_is_missing(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    first = separated(tmp_path, report=False, subtype="16")
    assert first.page is None and not list(tmp_path.rglob("*.html"))
    before = Path(first.stems["drums"] or "").stat().st_mtime_ns
    second = separated(tmp_path, subtype="16")
    page = Path(second.page or "")
    assert second.skipped and Path(first.stems["drums"] or "").stat().st_mtime_ns == before
    text = page.read_text(encoding="utf-8")
    assert f"<dd>{first.processing_time:.2f} s</dd>" in text and "<dd>cpu</dd>" in text and len(pictures(page)) == 3
    written = page.stat().st_mtime_ns
    assert separated(tmp_path, subtype="16").page == str(page) and page.stat().st_mtime_ns == written
    separated(tmp_path, Options(residual=True), report=False)  # other stems: the page is of the old ones
    assert separated(tmp_path, Options(residual=True)).skipped
    assert page.stat().st_mtime_ns > written and len(pictures(page)) == 4


def test_a_record_that_was_tampered_with(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    separated(tmp_path, report=False)
    (record,) = tmp_path.rglob(".*.json")
    data = json.loads(record.read_text())
    record.write_text(json.dumps({**data, "gain": "<b>", "processing_time": [1], "warnings": 3}))
    report = separated(tmp_path)
    assert report.skipped and "not known" in Path(report.page or "").read_text(encoding="utf-8")


def test_a_page_that_can_not_be_written_leaves_the_stems(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    page = tmp_path / "out" / "waves" / "song" / "report.html"
    page.mkdir(parents=True)
    with pytest.raises(OutputError, match="stems are complete"):
        separated(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]
    page.rmdir()
    assert separated(tmp_path).skipped and len(pictures(page)) == 3


def test_an_interruption_while_drawing_leaves_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ortsep.report.write

    song(tmp_path / "song.wav")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ortsep.report.write, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        separated(tmp_path)
    folder = tmp_path / "out" / "waves" / "song"
    assert sorted(p.name for p in folder.iterdir()) == [".drums.wav.ortsep.json", "drums.wav", "vocals.wav"]


def test_what_a_killed_drawing_left_is_swept(tmp_path: Path) -> None:
    song(tmp_path / "song.wav")
    page = tmp_path / "out" / "waves" / "song" / "report.html"
    separated(tmp_path)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    mine = partial_path(page)
    left = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{dead.stdout.strip()}-"))
    left.write_text("<!DOCTYPE html>")
    page.unlink()
    separated(tmp_path)
    assert page.exists() and not left.exists()


def test_a_users_style_does_not_change_the_page(tmp_path: Path) -> None:
    song(tmp_path / "song.wav", 0.2)
    (tmp_path / "matplotlibrc").write_text(
        "text.usetex: True\naxes.facecolor: red\nlines.color: red\nbackend: nonsense_\n"
    )
    document = run("waves", "song.wav", cwd=tmp_path)
    assert len(pictures(tmp_path / document["report"])) == 3


def test_events_on_stderr_stay_events(tmp_path: Path) -> None:
    song(tmp_path / "song.wav", 0.2)
    home = tmp_path / "nowhere"
    home.write_text("not a folder")  # matplotlib says so, where it can't keep its fonts
    env = {**os.environ, "ORTSEP_MODELS": str(GRAPHS), "MPLCONFIGDIR": str(home)}
    command = [sys.executable, "-m", "ortsep.cli", "run", "waves", "song.wav", "--report", "--progress", "json"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[-1]["event"] == "finished" and told[-1]["report"].endswith("report.html")


def test_no_global_state_of_matplotlib_is_touched(tmp_path: Path) -> None:
    song(tmp_path / "song.wav", 0.2)
    before = matplotlib.rcParams.copy()
    separated(tmp_path)
    assert matplotlib.rcParams.copy() == before
    assert "matplotlib.pyplot" not in sys.modules


def test_a_stem_that_is_gone_is_named(tmp_path: Path) -> None:
    from ortsep.report.write import write_report
    from ortsep.songs.mixture import counted

    song(tmp_path / "song.wav", 0.2)
    report = separated(tmp_path, report=False)
    Path(report.stems["vocals"] or "").unlink()
    separator = Separator(GRAPHS / "waves")
    with pytest.raises(AudioError, match=r"vocals\.wav"):
        write_report(tmp_path / "r.html", report, counted(tmp_path / "song.wav"), [separator.model], Options(), Files())
    assert not (tmp_path / "r.html").exists()
