"""Files and folders: whole or not at all, one writer at a time, and nothing of the dead."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ortsep.base import whole
from ortsep.base.errors import FileMissing, OutputError
from ortsep.base.whole import partial_path, replace_all, scratch, sweep, whole_file, whole_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert not path.exists() and whole.any_held()
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"] and not whole.any_held()
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        partial.write_text("newer")
        raise KeyboardInterrupt
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


def test_errors_name_the_file_the_cause_and_the_mend(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=r"folder can't be written \(Is a directory\); name another"):
        whole_file(tmp_path / "folder", "name another").__enter__()
    full = r"a can't be written \(No space left on device\); make room there or go"
    with pytest.raises(OutputError, match=full), whole_file(tmp_path / "a", "go"):
        raise OSError(28, os.strerror(28))
    with pytest.raises(FileMissing, match="another file"), whole_file(tmp_path / "a"):
        raise FileMissing("another file")
    assert names(tmp_path) == ["folder"]


def test_no_two_names_are_alike_and_none_can_be_foreseen(tmp_path: Path) -> None:
    """A link planted at a name that could be guessed would have its target overwritten."""
    path = tmp_path / "a"
    assert len({partial_path(path) for _ in range(100)}) == 100


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    planted = partial_path(tmp_path / "a")
    planted.symlink_to(victim)
    monkeypatch.setattr(whole, "partial_path", lambda path: planted)
    with pytest.raises(OutputError, match="File exists"), whole_file(tmp_path / "a") as partial:
        partial.write_text("overwritten")
    assert victim.read_text() == "precious"


def test_a_second_writer_is_an_error_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with whole_file(path) as partial:
        with pytest.raises(OutputError, match=r"is being written by this process .* wait until it is done"):
            whole_file(path).__enter__()
        with whole_file(tmp_path / "b") as other, whole_file(path, alone=False) as third:
            assert len({partial, other, third}) == 3
        partial.write_text("first")
    assert path.read_text() == "first"


def test_of_many_threads_that_write_one_file_one_does(tmp_path: Path) -> None:
    gate, ends = threading.Barrier(8), list[str]()

    def write(number: int) -> None:
        gate.wait()
        try:
            with whole_file(tmp_path / "a") as partial:
                for _ in range(100):
                    with partial.open("a") as file:
                        file.write(f"{number}\n")
                gone.wait(20)
            ends.append("done")
        except OutputError:
            ends.append("refused")
            if ends.count("refused") == 7:
                gone.set()

    gone = threading.Event()
    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(ends) == ["done", *["refused"] * 7]
    assert len(set((tmp_path / "a").read_text().split())) == 1


WRITER = """
import sys
from pathlib import Path
from ortsep.base.whole import whole_file, whole_folder
kind = {"file": whole_file, "folder": whole_folder}[sys.argv[1]]
with kind(Path(sys.argv[2])) as partial:
    (partial / "half.onnx").touch() if sys.argv[1] == "folder" else partial.write_text("half")
    print(partial.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes of others can't be seen there")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_another_process_that_writes_it_is_seen_and_what_it_left_killed_is_swept(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", WRITER, kind, str(tmp_path / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            left = tmp_path / child.stdout.readline().strip()
            assert left.exists()
            with pytest.raises(OutputError, match=f"another process .number {child.pid}"):
                whole_file(tmp_path / "a").__enter__()
            os.utime(left, (1e9, 1e9))
            sweep(tmp_path)
            assert left.exists(), "it lives, however long it takes"
        finally:
            child.kill()
            child.wait()
    with whole_file(tmp_path / "b"):
        assert not left.exists()
    assert names(tmp_path) == ["b"]


def test_a_folder_takes_the_place_of_an_earlier_one_but_leaves_what_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with whole_folder(path) as working:
        (working / "one.onnx").write_text("1")
        (working / "two.onnx").write_text("1")
    (path / "notes.txt").write_text("mine")
    with whole_folder(path, stale="*.onnx") as working:
        (working / "one.onnx").write_text("2")
        (working / "stems.txt").write_text("2")
    assert {p.name: p.read_text() for p in path.iterdir()} == {"notes.txt": "mine", "one.onnx": "2", "stems.txt": "2"}
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [PermissionError(1, "Operation not permitted"), KeyboardInterrupt()])
@pytest.mark.parametrize("fail_at", [0, 1, 2])
@pytest.mark.parametrize("links", [True, False])
def test_all_get_their_names_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, fail_at: int, links: bool
) -> None:
    """One old file that can't be replaced, or Ctrl-C between two renames: the old ones stay, every one of them."""
    targets = [tmp_path / name for name in "abc"]
    for target in (targets[0], targets[2]):
        target.write_text("old")
    new = []
    for target in targets:
        new.append(partial_path(target))
        new[-1].write_text("new")
    real, count = Path.replace, 0

    def failing(self: Path, target: Any) -> Path:
        nonlocal count
        if self in new:
            count += 1
            if count == fail_at + 1:
                raise error
        return real(self, target)

    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(Path, "replace", failing)
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        replace_all(list(zip(new, targets, strict=True)), "go")
    assert {t.name: t.read_text() for t in targets if t.exists()} == {"a": "old", "c": "old"}
    assert not [p for p in tmp_path.iterdir() if p not in targets and p not in new], "no second names are left"
    monkeypatch.undo()
    for partial in new:
        partial.write_text("new")
    replace_all(list(zip(new, targets, strict=True)), "go")
    assert names(tmp_path) == ["a", "b", "c"] and all(t.read_text() == "new" for t in targets)


def test_a_temporary_folder_is_for_its_user_and_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    code = "import os, sys; from ortsep.base.whole import scratch\nwith scratch('x'): os.kill(os.getpid(), 9)"
    if sys.platform != "win32":
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)})
        assert done.returncode == -signal.SIGKILL and len(names(tmp_path)) == 1
    with scratch("x") as folder:
        assert names(tmp_path) == [folder.name]
        assert sys.platform == "win32" or folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_removes_nothing_of_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ortsep.base.whole import whole_file, remove_held\n"
        "with whole_file(Path(sys.argv[1])) as partial:\n"
        "    if os.fork() == 0: remove_held(); os._exit(0)\n"
        "    os.wait(); partial.write_text('whole')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
    assert (tmp_path / "a").read_text() == "whole"
