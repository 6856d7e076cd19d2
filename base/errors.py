"""Errors that a user can act on: each message is one sentence with the thing, the cause and the mend.

Every type also inherits the builtin that a Python caller would expect to catch.
"""

import re
import sys

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What would begin a line or steer a terminal."""


class OrtsepError(Exception):
    """Base of all errors that ortsep raises on purpose; ``status`` is the command line's exit status."""

    status = 1
    transient = False
    """Whether trying again later may help: what is wrong lies outside, as with a store that doesn't answer."""

    def __str__(self) -> str:
        """The sentence, on one line: the names of strangers in it may hold anything."""
        return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), super().__str__())


class UsageError(OrtsepError, ValueError):
    """An option or argument that can't be honoured (exit status 2)."""

    status = 2


class FileMissing(OrtsepError, FileNotFoundError):
    """A song, model or checkpoint that does not exist."""


class AudioError(OrtsepError, ValueError):
    """Audio that can't be decoded or separated: broken, empty, truncated, not finite, too many channels."""


class ModelError(OrtsepError, ValueError):
    """A graph, spec, manifest or card that is broken or does not fit together."""


class ProviderError(OrtsepError, RuntimeError):
    """An execution provider that was asked for and is not to be had."""


class OutputError(OrtsepError, OSError):
    """Output that can't be written."""


class WeightsError(OrtsepError, ValueError):
    """A checkpoint that is damaged, unsafe to load, or not of the expected architecture."""


class TimedOut(OrtsepError, TimeoutError):
    """Reading or separating a song took longer than it was given."""


class DownloadError(OrtsepError, OSError):
    """Weights that can't be fetched, or arrive with the wrong hash."""


class MissingDependency(OrtsepError, ImportError):
    """A command that needs an extra which is not installed. The executable without Python takes none, and says so."""

    def __str__(self) -> str:
        frozen = "; this executable takes nothing in: install ortsep for Python" if hasattr(sys, "frozen") else ""
        return super().__str__() + frozen


class Cancelled(OrtsepError):
    """A run that was ended by its ``Cancel``."""
