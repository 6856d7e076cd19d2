"""Writing stems: what is written is what was given, complete or not at all, and never clipped without a word."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from ortsep.base.errors import OutputError, UsageError
from ortsep.stems import encoders
from ortsep.stems.encoders import encoding
from ortsep.stems.files import StemWriter

RATE = 44100


def noise(samples: int, level: float = 0.1, channels: int = 2, seed: int = 0) -> Any:
    x = np.random.default_rng(seed).uniform(-1, 1, (channels, samples)).astype(np.float32)
    return x * np.float32(level / np.abs(x).max())


def save(folder: Path, stems: dict[str, Any], size: int = 5000, **options: Any) -> Any:
    first = next(iter(stems.values()))
    ext = options.get("format", "wav")
    paths = {name: folder / f"{name}.{ext}" for name in stems}
    rate = options.pop("rate", RATE)
    with StemWriter(paths, rate, len(first), samples=first.shape[1], **options) as writer:
        for at in range(0, first.shape[1], size):
            writer.write({name: x[:, at : at + size] for name, x in stems.items()})
    return writer.written


def load(path: Path) -> Any:
    return sf.read(path, dtype="float32", always_2d=True)[0].T


@pytest.mark.parametrize("channels", [1, 2])
def test_float_wav_is_exact(tmp_path: Path, channels: int) -> None:
    stems = {"drums": noise(20_001, 1.7, channels), "vocals": noise(20_001, 0.3, channels, 1)}
    written = save(tmp_path / "new" / "folder", stems)
    for name, x in stems.items():
        got = written[name]
        assert np.array_equal(load(got.path), x)
        assert (got.stem, got.samples, got.channels, got.sample_rate) == (name, 20_001, channels, RATE)
        assert (got.gain, got.format, got.subtype) == (1.0, "WAV", "FLOAT")
        assert got.peak == pytest.approx(np.abs(x).max(), abs=0)
        assert got.rms == pytest.approx(np.sqrt(np.mean(x.astype(np.float64) ** 2)), rel=1e-9)
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["drums.wav", "vocals.wav"]


@pytest.mark.parametrize(
    ("format", "subtype", "step"),
    [
        ("wav", "24", 2**-23),
        ("wav", "16", 2**-15),
        ("flac", None, 2**-23),
        ("flac", "16", 2**-15),
        ("flac", "24", 2**-23),
    ],
)
def test_integers_are_not_scaled_below_full_scale(tmp_path: Path, format: str, subtype: str, step: float) -> None:
    stems = {"a": noise(30_000, 1.0), "b": noise(30_000, 0.5, seed=1)}
    written = save(tmp_path, stems, format=format, subtype=subtype)
    for name, x in stems.items():
        assert written[name].gain == 1.0
        assert np.abs(load(written[name].path) - x).max() <= step
        assert (
            sf.info(written[name].path).subtype == written[name].subtype == ("PCM_16" if subtype == "16" else "PCM_24")
        )


@pytest.mark.parametrize(("format", "subtype", "step"), [("wav", "16", 2**-15), ("flac", "24", 2**-23)])
def test_one_gain_for_all_stems_instead_of_clipping(tmp_path: Path, format: str, subtype: str, step: float) -> None:
    stems = {"loud": noise(30_000, 2.5), "quiet": noise(30_000, 0.5, seed=1)}
    written = save(tmp_path, stems, format=format, subtype=subtype)
    assert written["loud"].gain == written["quiet"].gain == pytest.approx(0.4)
    assert written["loud"].peak == pytest.approx(1.0) and written["quiet"].peak == pytest.approx(0.2)
    for name, x in stems.items():
        assert np.abs(load(written[name].path) - 0.4 * x).max() <= 1.5 * step
        assert written[name].rms == pytest.approx(0.4 * np.sqrt(np.mean(x**2)), rel=1e-5)


@pytest.mark.parametrize(("format", "rate"), [("ogg", 44100), ("mp3", 44100), ("mp3", 22050), ("ogg", 96000)])
def test_lossy_formats(tmp_path: Path, format: str, rate: int) -> None:
    t = np.arange(3 * rate) / rate
    x = np.stack([np.sin(2 * np.pi * 440 * t), np.sin(2 * np.pi * 660 * t)]).astype(np.float32)
    written = save(tmp_path, {"loud": 2 * x, "quiet": x / 2}, format=format, rate=rate)
    for name, level in (("loud", 1.0), ("quiet", 0.25)):
        y = load(written[name].path)
        assert written[name].gain == pytest.approx(0.5) and y.shape == x.shape
        gain = np.sum(y * x) / np.sum(x * x)
        assert gain == pytest.approx(level, rel=0.02)


def test_vorbis_in_one_long_block(tmp_path: Path) -> None:
    """libsndfile's Vorbis encoder crashes on a few million samples at once."""
    x = noise(3_000_000, 0.3)
    assert load(save(tmp_path, {"a": x}, size=3_000_000, format="ogg")["a"].path).shape == x.shape


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "m4a"}, "wav, flac, ogg, mp3"),
        ({"format": "flac", "subtype": "float"}, "use 24, 16"),
        ({"format": "mp3", "subtype": "16"}, "leave --subtype out"),
        ({"format": "wav", "subtype": "32"}, "use float, 24, 16"),
        ({"format": "mp3", "sample_rate": 96000}, "--rate 44100"),
        ({"format": "mp3", "channels": 3}, "--format wav"),
        ({"format": "flac", "channels": 9}, "--format wav"),
    ],
)
def test_what_a_format_cannot_hold(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        encoding(**options)
    assert words in str(caught.value)


def test_rf64_beyond_4_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = 3600 * RATE
    assert encoding("wav", samples=3 * hours).format == "WAV"
    assert encoding("wav", samples=4 * hours).format == "RF64"
    assert encoding("wav", "16", samples=6 * hours).format == "WAV"
    assert encoding("wav", samples=(1 << 29) - 512).format == "WAV"
    assert encoding("wav", samples=1 << 29).format == "RF64"
    monkeypatch.setattr(encoders, "_WAV_LIMIT", 1000)
    x = noise(2000)
    for subtype in (None, "24"):
        written = save(tmp_path, {"a": x}, subtype=subtype)["a"]
        assert written.format == sf.info(written.path).format == "RF64"
        assert np.abs(load(written.path) - x).max() <= (0 if subtype is None else 2**-23)


def left(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(tmp_path: Path, format: str, error: type[BaseException]) -> None:
    (tmp_path / "kept.txt").touch()
    paths = {s: tmp_path / "out" / "song" / f"{s}.{format}" for s in "ab"}

    def run() -> None:
        with StemWriter(paths, RATE, 2, samples=99999, format=format) as writer:
            writer.write({s: noise(9999) for s in "ab"})
            assert all(p.suffix == ".partial" for p in (tmp_path / "out" / "song").iterdir())
            raise error

    with pytest.raises(error):
        run()
    assert left(tmp_path) == ["kept.txt"]


def test_an_earlier_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"before")
    with StemWriter({"a": path}, RATE, 1, samples=10) as writer:
        writer.write({"a": noise(10, channels=1)})
        assert path.read_bytes() == b"before"
    assert load(path).shape == (1, 10)
    with pytest.raises(OutputError, match="5 of 10 samples"), StemWriter({"a": path}, RATE, 1, samples=10) as writer:
        writer.write({"a": noise(5, channels=1)})
    assert load(path).shape == (1, 10) and left(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_stems_that_cannot_all_be_replaced_are_left_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    before = {s: load(w.path) for s, w in save(tmp_path, {s: noise(999) for s in "abc"}, format=format).items()}
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).stem == "b" and ".b." in self.name and not armed:
            armed.append(self)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(self, target)

    armed: list[Path] = []
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match=rf"b\.{format} can't be written \(Operation not permitted\)"):
        save(tmp_path, {s: noise(500, seed=1) for s in "abc"}, format=format)
    assert left(tmp_path) == [f"{s}.{format}" for s in "abc"]
    for stem, samples in before.items():
        np.testing.assert_array_equal(load(tmp_path / f"{stem}.{format}"), samples)


def test_two_writers_of_one_stem(tmp_path: Path) -> None:
    """The second is refused before any work, and what the first writes is its own alone."""
    path = tmp_path / "a.wav"
    with StemWriter({"a": path}, RATE, 1, samples=10) as writer:
        with pytest.raises(OutputError, match="is being written by this process"):
            StemWriter({"a": path}, RATE, 1, samples=20)
        writer.write({"a": noise(10, channels=1)})
    assert load(path).shape == (1, 10) and left(tmp_path) == ["a.wav"]


@pytest.mark.parametrize("options", [{}, {"subtype": "16"}, {"subtype": "24"}, {"format": "flac"}])
def test_the_same_samples_are_the_same_bytes_at_any_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    x = noise(5000)
    one = save(tmp_path / "one", {"a": x}, **options)["a"].path
    time.sleep(1.1)  # libsndfile's time stamp counts seconds
    two = save(tmp_path / "two", {"a": x}, **options)["a"].path
    assert one.read_bytes() == two.read_bytes()


def test_samples_that_are_not_finite(tmp_path: Path) -> None:
    bad = noise(100)
    for value in (np.nan, np.inf, -np.inf):
        bad[1, 50] = value
        with pytest.raises(OutputError, match="stem b is not finite"):
            save(tmp_path / "out", {"a": noise(100), "b": bad})
    assert left(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.wav").mkdir()
    for place in (tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match="-o") as caught:
            save(place, {"a": noise(100)})
        assert str(place) in str(caught.value)
    with pytest.raises(OutputError, match="taken"):
        save(tmp_path, {"other": noise(100), "taken": noise(100)})
    assert left(tmp_path) == ["file", "taken.wav"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        save(tmp_path, {"a": noise(100)})


@pytest.mark.parametrize("format", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("room", [0, 100, 5_000, 60_000])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, room: int) -> None:
    """A disk with ``room`` bytes for each file, full for the encoder, for the float32 files, or only at the close."""
    if format in ("ogg", "mp3") and room == 60_000:
        room = 15_000
    real = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: Any) -> None:
            self.file.close()

        def write(self, data: Any) -> int:
            if self.file.tell() + len(bytes(data)) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

    def only_final(path: Path, *args: Any, **options: Any) -> Any:
        file = real(path, *args, **options)
        encoder = "w+b" if format in ("flac", "ogg", "mp3") else "wb"
        return Full(file) if path.name.endswith(".partial") and args[0] == encoder else file

    monkeypatch.setattr(Path, "open", only_final)
    with pytest.raises(OutputError, match=r"No space left.*make room") as caught:
        save(tmp_path / "out", {"a": noise(60_000, 0.5)}, format=format)
    assert str(tmp_path / "out" / f"a.{format}") in str(caught.value)
    assert left(tmp_path) == []


CHILD = """
import signal, sys, numpy as np
from pathlib import Path
from ortsep.base.errors import OutputError
from ortsep.stems.files import StemWriter
folder, format, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if limit:
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
block = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44100)).astype(np.float32)
try:
    paths = {s: folder / f"{s}.{format}" for s in ("a", "b")}
    with StemWriter(paths, 44100, 2, samples=44100 * (20 if limit else 10**6), format=format) as writer:
        for i in range(20 if limit else 10**6):
            writer.write({"a": block, "b": block})
            if i == 2:
                print("started", flush=True)
            if i > 2 and not limit:
                signal.pause()
except OutputError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")
@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_the_real_limit_of_a_file_system(tmp_path: Path, format: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "out"), format, "100000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "can't be written (File too large); make room" in done.stdout, done
    assert "Traceback" not in done.stderr and left(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")
@pytest.mark.parametrize("format", ["wav", "flac"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, format: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path / "out"), format, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"started\n"
        begun = len(left(tmp_path))
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == -signal.SIGINT
    assert begun == (3 if format == "wav" else 5), "the folder and a file a stem, of a FLAC its samples too"
    assert left(tmp_path) == []


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_memory_does_not_grow_with_the_song(tmp_path: Path, format: str) -> None:
    block = noise(RATE)

    def peak(seconds: int) -> int:
        tracemalloc.start()
        with StemWriter({"a": tmp_path / f"a.{format}"}, RATE, 2, samples=seconds * RATE, format=format) as writer:
            for _ in range(seconds):
                writer.write({"a": block})
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(1)
    assert peak(40) < peak(4) + 200_000


def test_a_signal_inside_a_library_is_left_to_the_handlers_of_a_program_that_is_not_ours() -> None:
    """In a process of the command line; see tests/base/test_interrupt.py. Elsewhere no handler is touched."""
    from ortsep.base.signals import signals_later

    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        own = signal.getsignal(signal.SIGINT)
        with signals_later():
            assert signal.getsignal(signal.SIGINT) is own
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)
