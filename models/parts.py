"""How a magnitude graph is cut into parts, so that a network with a memory of the whole song runs in constant memory.

A recurrent layer hears a song's frames one after the other, and of the frames before it keeps only a small state. So
the graph is run part by part, each over the whole song in blocks: what a part gives of every frame is kept outside
until the parts that read it have run. The file stays one graph, which runs whole as well; parts are named by its own
tensors, at which it is cut when it is loaded.
"""

from dataclasses import dataclass
from typing import Literal

from ortsep.models.decode import check

MAX_STATE = 1 << 20
"""Most values that a state may hold: a bound against hostile files."""


@dataclass(frozen=True)
class State:
    """What a part keeps from block to block: the tensor ``given`` to it, zeros at first, is the tensor ``left`` by the
    block before."""

    given: str
    left: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        size = 1
        for length in self.shape:
            check(1 <= length <= MAX_STATE, f"a state of the shape {self.shape}")
            size *= length
        check(size <= MAX_STATE, f"a state of {size} values")
        check(bool(self.given) and bool(self.left), "a state without a name")


@dataclass(frozen=True)
class Part:
    """The nodes of the graph between the tensors ``reads`` and the tensor ``gives``.

    The graph's input and output are as their domain says; the other tensors are [T, B, width], frames first. Without
    ``states`` each frame is on its own; with them the song's blocks go through ``forward`` or ``backward`` (from its
    end, each block in the order of time).
    """

    reads: tuple[str, ...]
    gives: str
    states: tuple[State, ...] = ()
    direction: Literal["forward", "backward"] = "forward"

    def __post_init__(self) -> None:
        check(bool(self.reads) and all(self.reads) and bool(self.gives), "a part of the graph without a name")


def check_parts(parts: tuple[Part, ...], given: str, wanted: str) -> None:
    """Raise ModelError for ``parts`` that don't lead from the graph's input ``given`` to its output ``wanted``.

    Every tensor is given once, before it is read. The last part alone gives the output, reading the input first and
    then what others gave; each frame is on its own there, as in the parts that read the input and nothing else.
    """
    known = {given}
    for part in parts:
        check(set(part.reads) <= known and part.gives not in known, f"its part {part.gives} in this place")
        check(not (part.states and given in part.reads), f"its part {part.gives} reads {given} with a state")
        known.add(part.gives)
    if parts:
        last = parts[-1]
        check(last.gives == wanted and not last.states, f"its last part gives {last.gives}")
        check(len(last.reads) > 1 and last.reads[0] == given, f"its last part reads {last.reads}")
        between = all(part.reads == (given,) or given not in part.reads for part in parts[:-1])
        check(between, f"a part between reads {given} beside other tensors")
