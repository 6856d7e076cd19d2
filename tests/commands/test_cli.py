"""The command line as its users meet it: processes of their own, exit statuses, one JSON document, whole files."""

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

HEAVY = ("torch", "onnx", "demucs", "tensorflow", "openunmix", "moises_light", "scipy", "librosa")


def ortsep(*arguments: str | Path, cwd: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ORTSEP_MODELS": str(cwd / "exported")}
    command = [sys.executable, "-m", "ortsep.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, **changes)


def song(path: Path, seconds: float = 2.0, rate: int = 8000, channels: int = 2) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    x = np.stack([0.3 * np.sin(2 * np.pi * (200 + 100 * c) * t) for c in range(channels)], axis=1).astype(np.float32)
    soundfile.write(path, x, rate, subtype="FLOAT")
    return x


@pytest.fixture
def place(tmp_path: Path) -> Path:
    song(tmp_path / "song.wav")
    shutil.copytree(GRAPHS, tmp_path / "exported")
    return tmp_path


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if "partial" in p.name]


def test_a_song_becomes_stems(place: Path) -> None:
    done = ortsep("run", "waves", "song.wav", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    x, _ = soundfile.read(place / "song.wav", dtype="float32")
    for stem, factor in {"drums": 0.25, "vocals": 0.5}.items():
        y, rate = soundfile.read(place / "separated" / "waves" / "song" / f"{stem}.wav", dtype="float32")
        assert rate == 8000
        assert soundfile.info(place / "separated" / "waves" / "song" / f"{stem}.wav").subtype == "FLOAT"
        np.testing.assert_allclose(y, factor * x, atol=1e-6)
    assert not leftovers(place)


def test_json_is_one_document(place: Path) -> None:
    done = ortsep("run", "waves", "song.wav", "--residual", "--json", "-o", "out", cwd=place)
    document = json.loads(done.stdout)
    assert document["model"] == "waves"
    assert document["backend"] == "cpu"
    assert document["seconds"] == 2.0
    assert document["processing_time"] > 0
    assert document["real_time_factor"] == pytest.approx(document["processing_time"] / 2, abs=1e-3)
    assert document["gain"] == 1.0
    assert set(document["stems"]) == {"drums", "vocals", "residual"}
    for output in document["outputs"]:
        y, rate = soundfile.read(place / output["path"], dtype="float64", always_2d=True)
        assert (output["samples"], output["channels"], output["sample_rate"]) == (len(y), y.shape[1], rate)
        assert output["peak"] == pytest.approx(np.abs(y).max(), rel=1e-5)
        assert output["rms"] == pytest.approx(np.sqrt(np.mean(y**2)), rel=1e-5)


def test_inline_audio_needs_no_files(place: Path) -> None:
    done = ortsep("run", "waves", "song.wav", "--json", "--inline-audio", "--duration", "0.1", cwd=place)
    document = json.loads(done.stdout)
    audio = np.array(document["stems"][0]["audio"])
    x, _ = soundfile.read(place / "song.wav", frames=800)
    np.testing.assert_allclose(audio, 0.25 * x.T, atol=1e-6)
    assert not (place / "separated").exists()


def test_files_add_up_to_the_mixture(place: Path) -> None:
    for model in ("waves", "masks", "wiener", "complex"):
        document = json.loads(ortsep("run", model, "song.wav", "--residual", "--json", cwd=place).stdout)
        total = sum(soundfile.read(place / p, dtype="float64")[0] for p in document["stems"].values())
        x, _ = soundfile.read(place / "song.wav", dtype="float64")
        assert np.abs(total - x).max() < 1e-6, model


def test_an_integer_format_is_scaled_jointly_and_said(place: Path) -> None:
    t = np.arange(16000) / 8000
    soundfile.write(place / "loud.wav", np.stack([4 * np.sin(2 * np.pi * 300 * t)] * 2, 1), 8000, subtype="FLOAT")
    document = json.loads(ortsep("run", "waves", "loud.wav", "--subtype", "16", "--json", cwd=place).stdout)
    assert 0.45 < document["gain"] <= 0.5
    assert any("scaled" in w for w in document["warnings"])
    levels = [np.abs(soundfile.read(place / p)[0]).max() for p in document["stems"].values()]
    assert levels[1] / levels[0] == pytest.approx(2, rel=1e-3)
    assert levels[1] <= 1.0


def test_two_songs_of_one_name_and_one_bad_one(place: Path) -> None:
    (place / "other").mkdir()
    song(place / "other" / "song.wav", 1.0)
    (place / "broken.wav").write_text("this is not audio")
    done = ortsep("run", "waves", "song.wav", "broken.wav", "other/song.wav", "--json", cwd=place)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["failed"] == 1
    assert "broken.wav" in done.stderr
    folders = sorted(p.name for p in (place / "separated" / "waves").iterdir())
    assert folders == ["song", "song (2)"]
    lengths = [soundfile.info(place / "separated" / "waves" / f / "drums.wav").frames for f in folders]
    assert lengths == [16000, 8000]


def test_a_folder_of_songs(place: Path) -> None:
    (place / "album").mkdir()
    for name in ("a ünïcode song.wav", "-dash.wav", "with space.wav"):
        song(place / "album" / name, 0.5)
    (place / "album" / "cover.jpg").write_bytes(b"no song")
    done = ortsep("run", "waves", "album", "-q", cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(list((place / "separated" / "waves").iterdir())) == 3
    done = ortsep("run", "waves", "--", "-dash.wav", cwd=place / "album", check=False)
    assert done.returncode == 1  # no model of that name below album/exported: the song was understood, the model not
    assert "no model" in done.stderr


def test_existing_stems_are_skipped_when_asked(place: Path) -> None:
    ortsep("run", "waves", "song.wav", cwd=place)
    stem = place / "separated" / "waves" / "song" / "drums.wav"
    before = stem.stat()
    done = ortsep("run", "waves", "song.wav", "--skip-existing", "--json", cwd=place)
    assert json.loads(done.stdout)["skipped"] is True
    assert stem.stat().st_mtime_ns == before.st_mtime_ns
    stem.write_bytes(b"cut off")
    done = ortsep("run", "waves", "song.wav", "--skip-existing", "--json", cwd=place)
    assert json.loads(done.stdout)["skipped"] is False
    assert soundfile.info(stem).frames == 16000


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["waves", "missing.wav"], 1, "missing.wav"),
        (["waves"], 2, "at least one song"),
        (["nothing", "song.wav"], 1, "no model nothing"),
        (["song.wav", "song.wav"], 2, "no model is named"),
        (["not-a-model.onnx", "song.wav"], 1, "not an ONNX model"),
        (["waves", "song.wav", "--stems", "piano"], 2, "it has drums, vocals"),
        (["waves", "song.wav", "--format", "midi"], 2, "midi"),
        (["waves", "song.wav", "--overlap", "1.5"], 2, "overlap"),
        (["waves", "song.wav", "--start", "99"], 1, "start"),
        (["waves", "song.wav", "--provider", "coreml"], 1, "coreml"),
        (["waves", "song.wav", "--inline-audio"], 2, "--json"),
        (["waves", "song.wav", "--rate", "1"], 2, "1 Hz"),
        (["waves", "song.wav", "-o", "song.wav"], 1, "song.wav"),
        (["waves", "song.wav", "--template", "{nonsense}.wav"], 2, "nonsense"),
        (["waves", "song.wav", "-o", ".", "--template", "song.{ext}", "--stems", "drums"], 2, "overwritten"),
        (["waves", "song.wav", "--overlap", "0.9999999"], 2, "overlap"),
        (["waves", "song.wav", "--timeout", "nan"], 2, "timeout"),
        (["waves", "song.wav", "--timeout", "-1"], 2, "timeout"),
    ],
)
def test_errors_are_one_sentence(place: Path, arguments: list[str], status: int, message: str) -> None:
    (place / "not-a-model.onnx").write_text("not a graph")
    done = ortsep("run", *arguments, cwd=place)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "separated").exists() or not list((place / "separated").rglob("*.wav"))
    as_json = ortsep("run", *arguments, "--json", cwd=place)
    if "--inline-audio" not in arguments:
        document = json.loads(as_json.stdout)
        assert message in document["error"]
        assert document["status"] == status


def test_hostile_songs_leave_nothing(place: Path) -> None:
    rng = np.random.default_rng(0)
    (place / "empty.wav").write_bytes(b"")
    (place / "text.wav").write_text("not audio at all\n" * 100)
    whole = (place / "song.wav").read_bytes()
    (place / "cut.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(place / "none.wav", np.zeros((0, 2)), 8000)
    noisy = rng.standard_normal((4000, 2)).astype(np.float32)
    noisy[1234, 1] = np.nan
    soundfile.write(place / "nan.wav", noisy, 8000, subtype="FLOAT")
    noisy[1234, 1] = np.inf
    soundfile.write(place / "inf.wav", noisy, 8000, subtype="FLOAT")
    soundfile.write(place / "wide.wav", rng.standard_normal((400, 8)) * 0.1, 8000)
    for name in ("empty", "text", "cut", "none", "nan", "inf"):
        done = ortsep("run", "waves", f"{name}.wav", cwd=place)
        assert done.returncode == 1, (name, done.stderr)
        assert f"{name}.wav" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(place.rglob("drums*")) or not (place / "separated").exists(), name
        assert not leftovers(place), name
    wide = ortsep("run", "waves", "wide.wav", "-o", "front", cwd=place)
    assert wide.returncode == 0 and "the first two are separated" in wide.stderr
    assert ortsep("run", "waves", "wide.wav", "--downmix", cwd=place).returncode == 0
    assert ortsep("run", "waves", "cut.wav", "--allow-truncated", cwd=place).returncode == 0


def test_one_sample_and_mono(place: Path) -> None:
    soundfile.write(place / "one.wav", np.array([[0.5, -0.5]], np.float32), 8000, subtype="FLOAT")
    assert ortsep("run", "waves", "one.wav", cwd=place).returncode == 0
    y, _ = soundfile.read(place / "separated" / "waves" / "one" / "drums.wav", always_2d=True)
    np.testing.assert_allclose(y, [[0.125, -0.125]], atol=1e-6)
    song(place / "mono.wav", channels=1)
    assert ortsep("run", "masks", "mono.wav", cwd=place).returncode == 0
    assert soundfile.info(place / "separated" / "masks" / "mono" / "drums.wav").channels == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_half_written(place: Path, how: int) -> None:
    song(place / "long.wav", 3000.0)
    env = {**os.environ, "ORTSEP_MODELS": str(place / "exported")}
    command = [sys.executable, "-m", "ortsep.cli", "run", "hybrid", "long.wav"]
    process = subprocess.Popen(command, cwd=place, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not leftovers(place) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert leftovers(place), "the run never began to write"
    process.send_signal(how)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not leftovers(place)
    assert not list(place.rglob("drums.wav"))


def test_models_and_inspect(place: Path) -> None:
    done = ortsep("models", "--json", cwd=place)
    document = json.loads(done.stdout)
    assert any(m["name"] == "htdemucs" for m in document["models"])
    assert any(m["name"] == "waves" and m["exported"] for m in document["models"])
    assert "htdemucs" in ortsep("models", cwd=place).stdout
    document = json.loads(ortsep("inspect", "hybrid", "--json", cwd=place).stdout)
    assert document["spec"]["stems"] == ["drums", "bass", "vocals"]
    assert document["files"]["hybrid.onnx"]["inputs"] == ["mix [1, 2, 4000]", "spectrum [1, 4, 128, 63]"]
    (place / "exported" / "plain" / "stems.txt").unlink()
    document = json.loads(ortsep("inspect", "exported/plain/plain.onnx", "--json", cwd=place).stdout)
    assert document["runnable"] is False
    assert "stems.txt" in document["reason"]


def test_nothing_heavy_is_imported(place: Path) -> None:
    """The whole command line runs with the training frameworks poisoned."""
    for name in HEAVY:
        (place / "poison").mkdir(exist_ok=True)
        (place / "poison" / f"{name}.py").write_text("raise RuntimeError('a heavy module was imported')")
    env = {**os.environ, "PYTHONPATH": str(place / "poison"), "ORTSEP_MODELS": str(place / "exported")}
    for arguments in (["run", "hybrid", "song.wav"], ["models"], ["inspect", "hybrid"], ["--help"], ["run", "--help"]):
        command = [sys.executable, "-m", "ortsep.cli", *arguments]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_help_and_models_import_neither_numpy_nor_onnxruntime(place: Path) -> None:
    code = (
        "import sys; sys.argv = ['ortsep', *{!r}]\n"
        "try:\n    import ortsep.cli; ortsep.cli.main()\n"
        "finally:\n    print('LOADED', [m for m in ('numpy', 'onnxruntime', 'soundfile') if m in sys.modules])"
    )
    for arguments in (["--help"], ["models"]):
        done = subprocess.run([sys.executable, "-c", code.format(arguments)], capture_output=True, text=True, cwd=place)
        assert "LOADED []" in done.stdout, done.stdout[-300:] + done.stderr[-300:]
