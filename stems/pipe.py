"""One stem as WAV into a pipe: the header first, since the length is known beforehand, then samples as they come."""

import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from ortsep.base.errors import OutputError
from ortsep.stems.files import Written

F32 = npt.NDArray[np.float32]
_UNKNOWN = 0xFFFFFFFF


def float_wav_header(sample_rate: int, channels: int, samples: int) -> bytes:
    """A WAV header for float32 samples; beyond 4 GiB its sizes are 0xFFFFFFFF, which readers of pipes take for open."""
    return wav_header(sample_rate, channels, samples * channels * 4, tag=3, bits=32)


def wav_header(sample_rate: int, channels: int, size: int, *, tag: int, bits: int) -> bytes:
    """A WAV header (Microsoft/IBM RIFF; ``tag`` 1 integer, 3 float) for ``size`` bytes of samples."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHHH", tag, channels, sample_rate, sample_rate * frame, frame, bits, 0)
    fact = struct.pack("<I", min(size // frame, _UNKNOWN))
    body = b"WAVE" + _chunk(b"fmt ", form) + _chunk(b"fact", fact)
    whole = len(body) + 8 + size + size % 2
    return b"RIFF" + _size(whole) + body + b"data" + (_size(size) if whole < _UNKNOWN else _size(_UNKNOWN))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


def _size(value: int) -> bytes:
    return struct.pack("<I", min(value, _UNKNOWN))


class PipeWriter:
    """The one stem ``name`` into ``sink`` as float32 WAV, with the interface of StemWriter."""

    def __init__(self, sink: BinaryIO, name: str, sample_rate: int, channels: int, *, samples: int) -> None:
        self.written: dict[str, Written] = {}
        self._sink, self._name, self._samples = sink, name, samples
        self._rate, self._channels = sample_rate, channels
        self._count, self._peak, self._power = 0, 0.0, 0.0
        self._put(float_wav_header(sample_rate, channels, samples))

    def write(self, blocks: Mapping[str, F32]) -> None:
        """Append a block [C, n]. Raises OutputError for a stem that is not finite, or a reader that is gone."""
        block = blocks[self._name]
        if block.shape[1] == 0:
            return
        peak = float(max(block.max(), -block.min()))
        if not np.isfinite(peak):
            at = self._count / self._rate
            raise OutputError(f"the stem {self._name} is not finite after {at:.1f} s; validate the model's graph")
        self._peak = max(self._peak, peak)
        self._power += float(np.sum(np.square(block, dtype=np.float64)))
        self._count += block.shape[1]
        self._put(np.ascontiguousarray(block.T, "<f4").tobytes())

    def close(self) -> None:
        if self._count != self._samples:
            raise OutputError(f"standard output got {self._count} of {self._samples} samples; run the separation again")
        self._put(b"")
        rms = float(np.sqrt(self._power / max(1, self._count * self._channels)))
        of = (self._rate, self._channels, self._count, self._peak, rms)
        self.written[self._name] = Written(self._name, Path("-"), *of, gain=1.0, format="WAV", subtype="FLOAT")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    def _put(self, data: bytes) -> None:
        try:
            self._sink.write(data)
            self._sink.flush()
        except OSError as error:
            raise OutputError(
                f"standard output can't be written ({error.strerror or error}); keep its reader open to the end"
            ) from error
