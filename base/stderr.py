"""Standard error for a program that parses it: what libraries print there is no event."""

import os
import sys
import warnings


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
