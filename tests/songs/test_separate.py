"""One song from its file to its stems: how often it is decoded, who may write, and what a later run may skip."""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from places import GRAPHS

from ortsep.audio import song as songs_of
from ortsep.base.errors import OutputError
from ortsep.batch import Job, Task, separate_task
from ortsep.options import Options
from ortsep.separator import Separator
from ortsep.songs import Files, places, separate_file
from ortsep.songs.mixture import DecodedOnce, counted
from ortsep.songs.provenance import recorded, write_sidecar


def song(path: Path, seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(seconds * 8000), 2)).astype(np.float32)
    soundfile.write(path, x, 8000, subtype="FLOAT")
    return x


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("model", ["waves", "hybrid", "complex", "ratio"])
def test_a_song_with_a_report_is_decoded_at_most_three_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, residual: bool
) -> None:
    """Counted, separated (hybrid and complex hear it twice) and drawn."""
    pytest.importorskip("matplotlib")
    song(tmp_path / "song.wav", 20.0)
    count = 0
    real = songs_of.Song.blocks

    def blocks(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        return real(self, *arguments, **more)

    monkeypatch.setattr(songs_of.Song, "blocks", blocks)
    separator, files, options = Separator(GRAPHS / model), Files(tmp_path / "out"), Options(residual=residual)
    targets = places(separator, [tmp_path / "song.wav"], files, options)[0]
    task = Task(tmp_path / "song.wav", targets, tmp_path / "out" / "page.html")
    report = separate_task(separator, Job((), {}, options, files), task, lambda *_: None)
    assert count == 3 and (tmp_path / "out" / "page.html").exists()
    assert (report.null_db is not None) == residual and (report.null_db or 200) > 100
    assert not [p for p in tmp_path.rglob("*") if "ortsep-" in p.name]


def whole(blocks: Iterator[Any]) -> Any:
    return np.concatenate(list(blocks), axis=1)


def test_decoded_once_serves_everybody_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = song(tmp_path / "song.wav", 40.0).T
    once = DecodedOnce(counted(tmp_path / "song.wav"), tmp_path)
    monkeypatch.setattr(songs_of.Song, "blocks", lambda *_: pytest.fail("decoded again"))
    readers = [once.blocks() for _ in range(3)]
    got: list[list[Any]] = [[], [], []]
    for k in (0, 1, 1, 2, 0, 1, 2, 2):  # each overtakes the others
        got[k].append(next(readers[k], np.zeros((2, 0), np.float32)))
    for parts, rest in zip(got, readers, strict=True):
        assert np.array_equal(np.concatenate([*parts, *rest], axis=1), x)
    assert np.array_equal(whole(once.blocks()), x)
    once.close()
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]


def test_decoded_once_serves_threads_the_same(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", 60.0).T
    once = DecodedOnce(counted(tmp_path / "song.wav"), tmp_path)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(whole(once.blocks()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 8 and all(np.array_equal(y, x) for y in got)


def test_decoded_once_without_room_decodes_again(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", 40.0).T
    once = DecodedOnce(counted(tmp_path / "song.wav"), tmp_path)

    class Full:
        """A file that takes nothing more; what was written before can be read."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, at: int, values: Any) -> None:
            raise OSError(28, os.strerror(28))

    begun, behind = once.blocks(), once.blocks()
    first = next(begun)
    once._file = cast(Any, Full(once._file))
    assert np.array_equal(np.concatenate([first, *begun], axis=1), x)
    assert np.array_equal(whole(behind), x)
    assert np.array_equal(whole(once.blocks()), x)


def test_two_songs_of_one_name_at_once_do_not_become_one_file(tmp_path: Path) -> None:
    """Two threads, a Separator each, one folder for the stems: one is made, the other refused, and nothing is mixed."""
    ends: dict[str, Any] = {}
    gate = threading.Barrier(2)
    mixtures = {}
    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        mixtures[name] = song(tmp_path / name / "audio.wav", 30.0, seed=k)

    def work(name: str) -> None:
        separator = Separator(GRAPHS / "waves")
        gate.wait(30)
        try:
            ends[name] = separate_file(separator, tmp_path / name / "audio.wav", Files(tmp_path / "out"))
        except OutputError as error:
            ends[name] = error

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done = [name for name, end in ends.items() if not isinstance(end, OutputError)]
    refused = [str(end) for end in ends.values() if isinstance(end, OutputError)]
    assert len(done) == 2 or "is being written by this process" in refused[0]
    last = max(done, key=lambda name: Path(ends[name].stems["vocals"]).stat().st_mtime_ns)
    y, _ = soundfile.read(tmp_path / "out" / "waves" / "audio" / "vocals.wav", dtype="float32")
    assert any(np.allclose(y, mixtures[name] / 2, atol=1e-6) for name in (done if len(done) == 2 else [last]))
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_another_song_of_the_same_name_size_and_time_is_not_skipped(tmp_path: Path) -> None:
    files = Files(tmp_path / "out", skip_existing=True)
    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        song(tmp_path / name / "mixture.wav", seed=k)
        os.utime(tmp_path / name / "mixture.wav", (1e9, 1e9))
    separator = Separator(GRAPHS / "waves")
    ends = [separate_file(separator, tmp_path / name / "mixture.wav", files).skipped for name in "aabba"]
    assert ends == [False, True, False, True, False]
    os.utime(tmp_path / "a" / "mixture.wav", (2e9, 2e9))
    shutil.copy(tmp_path / "a" / "mixture.wav", tmp_path / "mixture.wav")
    assert separate_file(separator, tmp_path / "mixture.wav", files).skipped, "the same samples at another time"


def test_stems_of_another_provider_are_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song(tmp_path / "song.wav")
    files = Files(tmp_path / "out", skip_existing=True)
    separator = Separator(GRAPHS / "waves", provider="cpu")
    made = separate_file(separator, tmp_path / "song.wav", files)
    targets = {name: Path(where or "") for name, where in made.stems.items()}
    before = recorded(targets)
    stems = before.pop("stems")
    assert before["provider"] == "cpu" and set(stems) == set(targets)
    write_sidecar(targets, before, provider="openvino-bf16")
    assert not separate_file(separator, tmp_path / "song.wav", files).skipped
    assert separate_file(separator, tmp_path / "song.wav", files).skipped
    monkeypatch.setattr(separator, "expected_providers", lambda: {"cuda"})
    assert not separate_file(separator, tmp_path / "song.wav", files).skipped, "it would run elsewhere now"


@pytest.mark.parametrize("package", ["numpy", "soxr", "libsndfile", "ortsep", "onnxruntime"])
def test_stems_of_other_versions_are_not_skipped(tmp_path: Path, package: str) -> None:
    song(tmp_path / "song.wav")
    files = Files(tmp_path / "out", skip_existing=True)
    separator = Separator(GRAPHS / "waves", provider="cpu")
    made = separate_file(separator, tmp_path / "song.wav", files)
    targets = {name: Path(where or "") for name, where in made.stems.items()}
    before = recorded(targets)
    before.pop("stems")
    assert package in before["versions"]
    write_sidecar(targets, {**before, "versions": {**before["versions"], package: "0.0.1"}})
    assert not separate_file(separator, tmp_path / "song.wav", files).skipped


def test_as_a_library_no_handler_of_a_signal_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song(tmp_path / "song.wav")
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("a handler was set"))
    monkeypatch.setattr(signal, "set_wakeup_fd", lambda *_, **__: pytest.fail("a descriptor was set"))
    for format in ("wav", "flac"):
        separate_file(Separator(GRAPHS / "waves"), tmp_path / "song.wav", Files(tmp_path / "out", format=format))


def test_inline_audio_is_a_list_of_stems(tmp_path: Path) -> None:
    x = song(tmp_path / "song.wav", 0.1)
    report = separate_file(Separator(GRAPHS / "waves"), tmp_path / "song.wav", Files(tmp_path, inline_audio=True))
    document = report.document()
    assert "outputs" not in document and [s["stem_name"] for s in document["stems"]] == ["drums", "vocals"]
    vocals = document["stems"][1]
    assert (vocals["channels"], vocals["sample_rate"], vocals["samples"]) == (2, 8000, len(x)) and "path" not in vocals
    np.testing.assert_allclose(np.array(vocals["audio"]), x.T / 2, atol=1e-6)
    assert vocals["peak"] == pytest.approx(np.abs(x).max() / 2) and [p.name for p in tmp_path.iterdir()] == ["song.wav"]
    assert replace(report, outputs=()).document()["stems"] == {}
