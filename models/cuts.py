"""How a song is cut for a graph and joined again, as far as it is a fact of the model: parts of its spec.

Lengths are samples at the model's rate unless a name says frames.
"""

from dataclasses import dataclass
from typing import Literal

from ortsep.models.decode import check

MAX_SAMPLES = 1 << 26
"""Longest chunk, padding or block that a spec may ask for (25 minutes at 44.1 kHz): a bound against hostile files."""


@dataclass(frozen=True)
class Fixed:
    """The graph takes chunks of exactly ``length``."""

    kind: Literal["fixed"] = "fixed"


@dataclass(frozen=True)
class Free:
    """The graph takes any number of samples: chunks are of ``length``, a song of at most ``whole`` is one."""

    whole: int = 0
    kind: Literal["free"] = "free"

    def __post_init__(self) -> None:
        check(0 <= self.whole <= MAX_SAMPLES, f"whole {self.whole}")


@dataclass(frozen=True)
class Stepped:
    """The graph takes ``least``, ``least + step``, ... samples and reads a chunk at the next of these.

    1 and a step of 1 mean at its own length (HDemucs), 4778 and 2048 at one that Demucs v3 calls valid. A song of at
    most ``whole`` samples is one chunk.
    """

    least: int
    step: int = 1
    whole: int = 0
    kind: Literal["stepped"] = "stepped"

    def __post_init__(self) -> None:
        check(1 <= self.least <= MAX_SAMPLES and 1 <= self.step <= MAX_SAMPLES, f"least {self.least}, {self.step}")
        check(0 <= self.whole <= MAX_SAMPLES, f"whole {self.whole}")


@dataclass(frozen=True)
class Join:
    """The weights of a chunk of ``length`` samples, with which chunks are summed; the sum is divided by theirs.

    ========  =============================================================================  =====================
    triangle  1, 2, ... up to the middle and down again                                      Demucs
    boxcar    1                                                                              MSST's HTDemucs, UVR
    hamming   ``numpy.hamming(length)``                                                      audio-separator
    hann      ``numpy.hanning`` of what the chunk has of the song and its border, so that    UVR's MDX-Net
              the last ones' windows are shorter
    fade      1, with ``linspace(0, 1, fade)`` at its beginning, but for the first chunk,    MSST
              and the reverse at its end, but for the last
    ========  =============================================================================  =====================

    All but ``hann`` are cut off, not shortened, where the song and its border end. Where the weights of all chunks are
    zero at a sample, these count alike there.
    """

    kind: Literal["triangle", "boxcar", "hamming", "hann", "fade"] = "triangle"
    fade: int = 0
    """Samples of a fade; 0 for the other kinds."""

    def __post_init__(self) -> None:
        check(0 <= self.fade <= MAX_SAMPLES and (self.fade > 0) == (self.kind == "fade"), f"fades of {self.fade}")


@dataclass(frozen=True)
class Border:
    """What lies round the song: the grid of chunks begins ``before`` samples before it and ends ``after`` behind it.

    ``overlapping``: both are longer by what neighbouring chunks share, ``length`` less their step (MSST). With
    ``multiple`` m > 0, ``after`` is longer by m - L % m for a song of L samples (UVR's MDX-Net). ``reflect`` is MSST's
    reflection of the song about its first and last sample; a song that is not longer than both borders has none.
    """

    before: int = 0
    after: int = 0
    fill: Literal["zeros", "reflect"] = "zeros"
    multiple: int = 0
    overlapping: bool = False

    def __post_init__(self) -> None:
        for value in (self.before, self.after, self.multiple):
            check(0 <= value <= MAX_SAMPLES, f"a border of {value} samples")


@dataclass(frozen=True)
class Chunks:
    """How a song is cut in time for waveform, hybrid and complex graphs, and joined again.

    Chunks of ``length`` samples start every ``length // parts`` or, where ``parts`` is 0, every
    ``int((1 - overlap) * length)``, as long as that is before the end of the song and its ``border``.
    """

    length: int
    overlap: float = 0.25
    """The fraction of a chunk that the next one repeats; the caller may choose another."""
    parts: int = 0
    takes: Fixed | Free | Stepped = Fixed()
    join: Join = Join()
    border: Border = Border()
    tail: Literal["centred", "zeros", "reflect", "back"] = "centred"
    """A last chunk that the song and its border don't fill is centred in context from the song, zeros beyond it
    (Demucs, ``demucs.apply.apply_model``); or filled at its end with zeros; or with its own reflection if it is longer
    than half a chunk, else zeros (MSST); or moved back to end with the song, and counts as often as there were chunks
    to move (audio-separator). A song shorter than a chunk is filled with zeros there."""
    align: int = 1
    """Chunks begin at multiples of this in the song: what a network that halves its frames again and again gives
    depends on where its grid lies."""
    max_shift: int = 0
    """Largest random offset of the shift trick; 0 where the original has none."""

    def __post_init__(self) -> None:
        check(1 <= self.length <= MAX_SAMPLES, f"chunk length {self.length}")
        check(0 <= self.max_shift <= MAX_SAMPLES, f"max_shift {self.max_shift}")
        check(0.0 <= self.overlap < 1.0, f"overlap {self.overlap}")
        check(0 <= self.parts <= self.length, f"{self.parts} parts of {self.length} samples")
        check(1 <= self.align <= MAX_SAMPLES, f"align {self.align}")
        check(2 * self.join.fade <= self.length, f"fades of {self.join.fade} in chunks of {self.length}")

    @property
    def whole(self) -> int:
        """The longest song that runs in one piece; 0 where none does."""
        return 0 if isinstance(self.takes, Fixed) else self.takes.whole


@dataclass(frozen=True)
class Blocks:
    """How the frames of one continuous STFT are grouped for magnitude graphs.

    ``frames`` frames make a block, ``batch`` blocks a run. With ``overlap`` (frames) neighbouring blocks are joined
    with linear cross-fades of their outputs. ``padded``: a last, shorter block is filled with zero frames; where not,
    the graph takes any number of frames. A song of at most ``whole`` frames runs in one piece.
    """

    frames: int
    batch: int = 1
    overlap: int = 0
    padded: bool = True
    whole: int = 0

    def __post_init__(self) -> None:
        check(1 <= self.frames <= MAX_SAMPLES // 512, f"{self.frames} frames a block")
        check(0 <= self.whole <= MAX_SAMPLES // 512, f"whole {self.whole}")
        check(1 <= self.batch <= MAX_SAMPLES // 512 // self.frames, f"batch {self.batch}")
        check(0 <= self.overlap <= self.frames // 2, f"overlap {self.overlap} of {self.frames} frames")
