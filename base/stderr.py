"""The standard streams: all three there whatever the caller closed, and standard error for a program that parses it."""

import io
import os
import sys
import warnings


def complete() -> None:
    """Open what the caller closed (``2>&-``): input is empty, output fails as soon as something is written to it.

    Without this, the next file that is opened gets the number of the missing stream, and what a library prints there
    goes into that file. For the start of a process that is ours.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", 1, closefd=False))
    for stream in (sys.stdout, sys.stderr):  # a name that the locale can't write is shown escaped, and is no failure
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def keep_for_events() -> None:
    """From now on only what is written to ``sys.stderr`` reaches standard error.

    libmpg123 tells descriptor 2 of every oddity of an MP3, in plain text and from whichever thread decodes. So Python's
    stream moves to a descriptor of its own, once and before there are threads, and descriptor 2 leads nowhere; the
    processes that are started inherit that. Python's warnings are silenced unless -W asks for them. For the start of a
    process that is ours; without a standard error nothing changes.
    """
    if sys.stderr is not None:
        sys.stderr.flush()
        own = os.dup(sys.stderr.fileno())
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = os.fdopen(own, "w", 1, encoding=sys.stderr.encoding, errors=sys.stderr.errors)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
