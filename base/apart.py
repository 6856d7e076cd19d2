"""Work in a Python process of its own, which answers one JSON line: what crashes, hangs or fills the memory there costs
only that process, and its times and its peak memory are its own.

A module that works apart has a function ``answer`` that takes strings and gives what JSON can say. ``ask`` starts
ortsep itself once more with a command that no help shows, and waits:

    ask("ortsep.measure.doctor", graph, provider)       ->   python -m ortsep apart ortsep.measure.doctor GRAPH PROVIDER

A frozen executable (PyInstaller sets ``sys.frozen``) has no interpreter to give ``-m`` to: there ``sys.executable`` is
ortsep, and the same child is ``ortsep apart MODULE ARGUMENT...``. For that the executable must begin in
``ortsep.__main__.main``, as the command ``ortsep`` does, and hold the modules that are asked: a freezer finds them,
since whoever asks imports them too. The child of a one-file executable inherits where its parent unpacked itself.

A module whose ``answer`` is a generator answers again and again: the next value each time that its ``Child`` is asked.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
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
    if done.returncode:
        raise _ended(done.returncode, done.stderr)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise _ended(0, done.stderr) from error


def _ended(status: int, stderr: str) -> NoAnswer:
    """What a child's end without an answer means."""
    if status < 0:
        return NoAnswer("crashed", f"signal {-status}")
    return NoAnswer("failed", (stderr.strip().splitlines() or [f"status {status}, and no message"])[-1][:_WORDS])


class Child:
    """A child of a module that answers again and again; it ends with the ``with``, or where this process does."""

    def __init__(self, module: str, *arguments: object) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (a pipe that nobody reads would fill up)
        self._process = subprocess.Popen(
            command(module, *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            errors="replace",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, name="ortsep-child", daemon=True).start()

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, patience: float | None = None) -> Any:
        """Its next answer, within ``patience`` seconds. Raises NoAnswer, and the child is gone then."""
        assert self._process.stdin is not None
        try:
            with contextlib.suppress(OSError):  # it has ended, which the answer shows
                self._process.stdin.write("\n")
                self._process.stdin.flush()
            return json.loads(self._lines.get(timeout=patience))
        except queue.Empty:
            self.close()
            raise NoAnswer("hung", f"no answer in {patience:.0f} s") from None
        except ValueError:
            status = self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode("utf-8", "replace")
            self.close()
            raise _ended(status, words) from None

    def close(self) -> None:
        """End it, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            for file in (self._process.stdin, self._errors):
                if file is not None:
                    file.close()


def main(arguments: Sequence[str]) -> NoReturn:
    """The child: MODULE and its arguments. Its standard output carries answers alone; the rest goes to stderr.

    It ends without the interpreter's own end: a library that crashes there has answered by then.
    """
    answers = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(answers, "w", encoding="ascii") as out:
        try:
            given = _asked(arguments)(*arguments[1:])
            each = (one for _, one in zip(sys.stdin, given, strict=False)) if isinstance(given, Iterator) else [given]
            for answer in each:
                print(json.dumps(answer), file=out, flush=True)
        except OrtsepError as error:
            sys.exit(str(error))
    sys.stderr.flush()
    os._exit(0)


def _asked(arguments: Sequence[str]) -> Any:
    module = arguments[0] if arguments else ""
    found = getattr(import_module(module), "answer", None) if module.startswith("ortsep.") else None
    if found is None:
        raise UsageError(f"{module!r} answers nothing; ortsep {COMMAND} is how ortsep starts itself, see ortsep --help")
    return found
