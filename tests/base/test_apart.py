"""Children that answer, and that crash, hang, fail and chatter; as a frozen executable too."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ortsep.base import memory
from ortsep.base.apart import Child, NoAnswer, answer_of, ask, command

CODE = "import sys, json, os; "


def python(code: str) -> list[str]:
    return [sys.executable, "-c", CODE + code]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module ``ortsep.songs.tried`` that a child finds: it answers with what it was given."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "module = types.ModuleType('ortsep.songs.tried')\n"
        "def answer(*words):\n"
        "    from ortsep.base.errors import ModelError\n"
        "    print('noise on standard output', flush=True)\n"
        "    if words[0] == 'refuse': raise ModelError('no such thing; take another')\n"
        "    if words[0] == 'break': raise RuntimeError('broken')\n"
        "    if words[0] == 'again': return again(words[1])\n"
        "    import atexit, os; atexit.register(os.abort)\n"
        "    return {'words': words, 'frozen': getattr(sys, 'frozen', False)}\n"
        "def again(how):\n"
        "    from ortsep.base.errors import ModelError\n"
        "    import os, time\n"
        "    for k in range(2):\n"
        "        print('noise' * 50000, file=sys.stderr)\n"
        "        yield {'k': k}\n"
        "    if how == 'refuse': raise ModelError('no more; take another')\n"
        "    if how == 'crash': os.kill(os.getpid(), 11)\n"
        "    if how == 'hang': time.sleep(60)\n"
        "module.answer = answer\n"
        "sys.modules['ortsep.songs.tried'] = module\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return "ortsep.songs.tried"


def test_the_answer_comes_whatever_else_is_printed_and_however_the_process_would_end(module: str) -> None:
    assert ask(module, "söng", Path("a b"), 3) == {"words": ["söng", "a b", "3"], "frozen": False}


@pytest.mark.parametrize(
    ("word", "said"), [("refuse", "no such thing; take another"), ("break", "RuntimeError: broken")]
)
def test_what_goes_wrong_is_its_last_line(module: str, word: str, said: str) -> None:
    with pytest.raises(NoAnswer, match=f"^{said}$") as caught:
        ask(module, word)
    assert caught.value.how == "failed"


def test_a_frozen_executable_starts_itself(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "ortsep"  # what PyInstaller makes begins in ortsep.__main__.main and takes no -m
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.frozen = True\nfrom ortsep.__main__ import main\nmain()\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert command(module, 1) == [str(program), "apart", module, "1"]
    assert ask(module, "x") == {"words": ["x"], "frozen": True}


def test_a_child_that_crashes_hangs_or_says_nothing() -> None:
    for how, said, code in (
        ("crashed", "signal 11", "os.kill(os.getpid(), 11)"),
        ("failed", "status 3, and no message", "sys.exit(3)"),
        ("failed", "status 0, and no message", "pass"),
        ("failed", "status 0, and no message", "print('{')"),
    ):
        with pytest.raises(NoAnswer, match=f"^{said}$") as caught:
            answer_of(python(code))
        assert caught.value.how == how
    with pytest.raises(NoAnswer, match=r"^no answer in 0 s$") as caught:
        answer_of(python("import time; time.sleep(60)"), patience=0.2)
    assert caught.value.how == "hung"
    assert answer_of(python("print('first'); print('[1, NaN]')"))[0] == 1


@pytest.mark.parametrize("words", [[], ["json"], ["ortsep.base.errors"]])
def test_typed_by_hand_it_says_what_it_is(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "ortsep", "apart", *words], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "is how ortsep starts itself" in line


def test_a_child_does_not_inherit_its_parents_peak() -> None:
    held = np.ones(300_000_000 // 8)
    assert memory.peak() > 300e6
    code = "from ortsep.base import memory; print(json.dumps([memory.resident(), memory.peak()]))"
    now, peak = answer_of(python(code))
    assert 5e6 < now < 1.1 * peak < 150e6
    del held
    assert memory.peak() > 300e6
    grown = "import numpy; from ortsep.base import memory; a = numpy.ones(25_000_000); del a; print(memory.peak())"
    assert 200e6 < answer_of(python(grown)) < 400e6
    assert memory.resident(2**22 + 1) == 0


def test_the_modules_that_are_asked_answer() -> None:
    from importlib import import_module
    from inspect import signature

    for name, least in (("ortsep.measure.bench", 3), ("ortsep.measure.doctor", 5)):
        taken = signature(import_module(name).answer).parameters.values()
        assert len([p for p in taken if p.default is p.empty]) == least
        assert {p.annotation for p in taken} == {str}


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("refuse", "failed", "no more; take another"),
        ("crash", "crashed", "signal 11"),
        ("hang", "hung", "no answer in 1 s"),
        ("end", "failed", "noise.*"),
    ],
)
def test_a_child_answers_as_often_as_it_is_asked(module: str, how: str, kind: str, said: str) -> None:
    with Child(module, "again", how) as child:
        assert [child.ask(30), child.ask(30)] == [{"k": 0}, {"k": 1}]
        with pytest.raises(NoAnswer, match=f"^{said}$") as caught:
            child.ask(1.0 if how == "hang" else 30)
        assert caught.value.how == kind


def test_a_child_ends_with_its_block(module: str) -> None:
    with Child(module, "again", "hang") as child:
        assert child.ask(30) == {"k": 0}
        process = child._process
    assert process.poll() is not None
