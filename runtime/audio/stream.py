"""What a decoder knows of a file's audio before it decodes it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ortsep.audio.contents import Contents
from ortsep.audio.layouts import Layout


@dataclass(frozen=True)
class Stream:
    """A file's audio. ``samples`` a channel is None where only decoding tells."""

    path: Path
    decoder: Literal["libsndfile", "ffmpeg"]
    sample_rate: int
    channels: int
    samples: int | None
    format: str
    subtype: str
    contents: Contents
    slack: int
    """How many samples fewer than ``samples`` decoding may give without the file being damaged."""
    there: int | None
    """The samples that the file holds; fewer than ``promised`` where it is cut off, more where its header lies."""
    promised: int | None
    """The samples that the header of a file with a problem promises, where it promises any."""
    layout: Layout | None
    """The speakers of the channels, where the file states them."""
