"""How a command ends: an error is one sentence on standard error (in JSON mode also a document) and an exit status."""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NoReturn

import typer

from ortsep import __version__
from ortsep.base import heap, interrupt
from ortsep.base.errors import OrtsepError, OutputError, UsageError
from ortsep.base.paths import exists
from ortsep.base.stderr import complete, keep_for_events
from ortsep.commands.habits import hint
from ortsep.commands.terminal import screen, shown, wrapped


class Interrupted:
    """What is said when Ctrl-C ends a command; ``done`` is what a batch adds to it."""

    done = ""

    def __call__(self) -> str:
        """One sentence, or an event for programs. Takes the bars away: the process ends here, whatever it was doing."""
        screen.clear()
        text = f"interrupted; {self.done or 'nothing half-written was left'}"
        if _tells_events():
            return _error_event(text, interrupt.STATUS)
        text = shown(f"ortsep: {text}")
        return wrapped(text, screen.columns) if screen.columns else text


interrupted = Interrupted()


_Misuse: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
"""Click's exception of that name, of whichever click typer brings."""


def _typed_for(names: list[str]) -> str:
    """What was typed behind one of an option's ``names``, for the first that has something."""
    behind = [two for one, two in pairwise(sys.argv) if one in names]
    joined = [word.partition("=")[2] for word in sys.argv if word.partition("=")[0] in names and "=" in word]
    return repr((*behind, *joined, "that")[0]) if behind or joined else "that"


def _sentence(error: Any) -> str:
    """What click says of wrong usage, as one sentence with the mend."""
    command = error.ctx.command_path if error.ctx else "ortsep"
    if (param := getattr(error, "param", None)) is not None and param.param_type_name == "option":
        option = max(param.opts, key=len)
        said = error.message.removeprefix("Value error, ").replace("Input should", "it should").partition(", unable")[0]
        text = f"{option} can't be {_typed_for(param.opts)}: {said}"
    else:
        said = error.format_message().replace(". Did you mean", ", did you mean")
        text = f"{said[:1].lower()}{said[1:]}"
    option = str(getattr(error, "option_name", ""))
    if hint(option):
        return f"there is no {option}; {hint(option)}"
    if option and (near := getattr(error, "possibilities", None)):
        text = f"there is no option {option}; did you mean {' or '.join(near)}"
    if text.startswith("no such command") and (named := sys.argv[1:2]) and exists(named[0]):
        return f"{named[0]} is no command; to separate it: ortsep run MODEL {named[0]}"
    return f"{' '.join(text.split()).rstrip('.?')}; {command} --help shows what there is"


def run_to_end(app: Callable[[], Any]) -> NoReturn:
    """Run the command line and end the process; ``app`` returns the exit status.

    An OrtsepError gives its status, wrong usage 2, an interruption 130, the rest 1.
    """
    complete()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # builds of onnxruntime from 1.29 on send it, once imported
    if _tells_events():
        keep_for_events()
    interrupt.end_promptly(message=interrupted)
    heap.give_back()
    status = 0
    try:
        status = app() or 0
        if status == interrupt.STATUS:  # what some versions of typer make of KeyboardInterrupt, others raise Abort
            interrupt.leave(interrupted)
        screen.clear()
        sys.stdout.flush()
    except OrtsepError as error:
        _fail(error, error.status)
    except (KeyboardInterrupt, typer.Abort):
        interrupt.leave(interrupted)
    except _Misuse as error:
        _fail(UsageError(_sentence(error)), 2)
    except MemoryError:
        _fail(OrtsepError("memory ran out; close other programs, or take a smaller model"), 1)
    except BrokenPipeError:
        _drop_output()  # whoever read it (head, less) has seen enough
        status = 1
    except OSError as error:
        unwritten = OutputError(f"standard output can't be written ({error.strerror or error}); redirect it elsewhere")
        known = error.filename is None and not _writes()
        _fail(unwritten if known else _unexpected(error), 1, error)
    except Exception as error:
        _fail(_unexpected(error), 1, error)
    sys.exit(status)


def _unexpected(error: Exception) -> OrtsepError:
    return OrtsepError(f"unexpected {type(error).__name__}: {error}; run again with --debug and report it")


def _writes() -> bool:
    """Whether standard output still takes something."""
    try:
        sys.stdout.flush()
        os.write(sys.stdout.fileno(), b"")
    except (OSError, ValueError):
        return False
    return True


def _drop_output() -> None:
    """Let what is left in Python's buffer go nowhere, which would fail once more at the interpreter's end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tells_events() -> bool:
    return "--progress=json" in sys.argv or ("--progress", "json") in pairwise(sys.argv)


def _error_event(error: str, status: int) -> str:
    return json.dumps({"event": "error", "error": error, "status": status})


def _fail(error: OrtsepError, status: int, cause: Exception | None = None) -> NoReturn:
    screen.clear()
    if "--debug" in sys.argv:
        raise cause or error
    if "--json" in sys.argv or sys.argv[1:2] == ["lars"]:  # which answers in JSON always
        try:
            print(json.dumps({"version": __version__, "error": str(error), "status": status}), flush=True)
        except OSError:
            _drop_output()
    if _tells_events():
        print(_error_event(str(error), status), file=sys.stderr)
    else:
        screen.say(f"ortsep: {error}")
    if not _writes():
        _drop_output()
    sys.exit(status)
