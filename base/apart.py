"""Work in a Python process of its own, which answers one JSON line: what crashes, hangs or fills the memory there costs
only that process, and its times and its peak memory are its own.

A module that works apart has a function ``answer`` that takes strings and gives what JSON can say. ``ask`` starts
ortsep itself once more with a command that no help shows, and waits:

    ask("ortsep.measure.doctor", graph, provider)       ->   python -m ortsep apart ortsep.measure.doctor GRAPH PROVIDER

A frozen executable (PyInstaller sets ``sys.frozen``) has no interpreter to give ``-m`` to: there ``sys.executable`` is
ortsep, and the same child is ``ortsep apart MODULE ARGUMENT...``. For that the executable must begin in
``ortsep.__main__.main``, as the command ``ortsep`` does, and hold the modules that are asked: a freezer finds them,
since whoever asks imports them too. The child of a one-file executable inherits where its parent unpacked itself.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Literal, NoReturn

from ortsep.base.errors import OrtsepError, UsageError

COMMAND = "apart"
"""The first argument that makes an ortsep such a child."""
_WORDS = 200
"""Letters that are kept of a child's last words."""

How = Literal["crashed", "hung", "failed"]


class NoAnswer(OrtsepError):
    """A child that gave none: killed by a signal (``crashed``), out of time (``hung``), or ended with a status.

    The message says which signal or how many seconds, or is the child's own last line.
    """

    def __init__(self, how: How, words: str) -> None:
        super().__init__(words)
        self.how = how


def command(module: str, *arguments: object) -> list[str]:
    """What starts a child that has ``module`` answer."""
    itself = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "ortsep"]
    return [*itself, COMMAND, module, *map(str, arguments)]


def ask(module: str, *arguments: object, patience: float | None = None) -> Any:
    """What ``module`` answers in a process of its own, within ``patience`` seconds. Raises NoAnswer."""
    return answer_of(command(module, *arguments), patience)


def answer_of(child: Sequence[str], patience: float | None = None) -> Any:
    """The JSON of the last line that a child prints, of whatever program. Raises NoAnswer."""
    try:
        done = subprocess.run(
            child, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=patience
        )
    except subprocess.TimeoutExpired as error:
        raise NoAnswer("hung", f"no answer in {patience:.0f} s") from error
    if done.returncode < 0:
        raise NoAnswer("crashed", f"signal {-done.returncode}")
    words = (done.stderr.strip().splitlines() or [f"status {done.returncode}, and no message"])[-1][:_WORDS]
    if done.returncode:
        raise NoAnswer("failed", words)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise NoAnswer("failed", words) from error


def main(arguments: Sequence[str]) -> NoReturn:
    """The child: MODULE and its arguments. Its standard output carries the answer alone; the rest goes to stderr.

    It ends without the interpreter's own end: a library that crashes there has answered by then.
    """
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        line = json.dumps(_asked(arguments)(*arguments[1:]))
    except OrtsepError as error:
        sys.exit(str(error))
    with os.fdopen(answers, "w", encoding="ascii") as out:
        print(line, file=out)
    sys.stderr.flush()
    os._exit(0)


def _asked(arguments: Sequence[str]) -> Any:
    module = arguments[0] if arguments else ""
    found = getattr(import_module(module), "answer", None) if module.startswith("ortsep.") else None
    if found is None:
        raise UsageError(f"{module!r} answers nothing; ortsep {COMMAND} is how ortsep starts itself, see ortsep --help")
    return found
