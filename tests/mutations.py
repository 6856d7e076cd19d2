"""Damaging valid files, for the fuzz tests: ORTSEP_FUZZ=N multiplies their budget."""

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("ORTSEP_FUZZ", "1"))
_TELLING = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")


def budget(examples: int) -> Any:
    """Settings for ``examples`` tries (times ORTSEP_FUZZ); the same ones each time in the small budget."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged(draw: Any, *originals: bytes, front: int = 200) -> bytes:
    """One of ``originals`` with up to six changes, most of them in its first ``front`` bytes."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        last = len(data) - 1
        at = draw(st.integers(0, last if draw(st.integers(0, 3)) == 0 else min(front, last)))
        match draw(st.integers(0, 5)):
            case 0:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                data[at] = draw(st.integers(0, 255))
            case 2:
                data[at : at + 4] = draw(st.sampled_from(_TELLING))
            case 3:
                del data[at : at + draw(st.integers(1, 64))]
            case 4:
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                del data[at:]
    return bytes(data)
