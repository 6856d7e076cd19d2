"""Stems that go to no file: one as WAV into a pipe, as its samples come, or all into memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ortsep.base.arrays import F32
from ortsep.base.errors import OutputError
from ortsep.base.wav import float_wav_header
from ortsep.stems.files import Tally, Whole, Written


class PipeWriter(Whole):
    """The one stem ``name`` into ``sink`` as float32 WAV, with the interface of StemWriter.

    The header comes first, since the length is known beforehand.
    """

    def __init__(self, sink: BinaryIO, name: str, sample_rate: int, channels: int, *, samples: int) -> None:
        self.written: dict[str, Written] = {}
        self.notes: list[str] = []
        self._sink, self._name, self._samples = sink, name, samples
        self._tally = Tally(name, sample_rate, channels)
        self._put(float_wav_header(sample_rate, channels, samples))

    def write(self, blocks: Mapping[str, F32]) -> None:
        """Append a block [C, n]. Raises OutputError for a stem that is not finite, or a reader that is gone."""
        block = blocks[self._name]
        if block.shape[1]:
            self._tally.add(block)
            self._put(np.ascontiguousarray(block.T, "<f4").tobytes())

    def close(self) -> None:
        if self._tally.samples != self._samples:
            raise OutputError(
                f"standard output got {self._tally.samples} of {self._samples} samples; run the separation again"
            )
        self._put(b"")
        self.written[self._name] = self._tally.written(Path("-"), "WAV", "FLOAT")

    def _put(self, data: bytes) -> None:
        try:
            self._sink.write(data)
            self._sink.flush()
        except OSError as error:
            raise OutputError(
                f"standard output can't be written ({error.strerror or error}); keep its reader open to the end"
            ) from error


class MemoryWriter(Whole):
    """All stems into memory, with the interface of StemWriter."""

    def __init__(self, names: Sequence[str], sample_rate: int, channels: int, *, samples: int) -> None:
        self.written: dict[str, Written] = {}
        self.notes: list[str] = []
        self._tally = {name: Tally(name, sample_rate, channels) for name in names}
        self._audio = {name: np.empty((channels, samples), np.float32) for name in names}

    def write(self, blocks: Mapping[str, F32]) -> None:
        """Append a block [C, n] to every stem. Raises OutputError for a stem that is not finite."""
        for name, tally in self._tally.items():
            at = tally.samples
            tally.add(blocks[name])
            self._audio[name][:, at : tally.samples] = blocks[name]

    def close(self) -> None:
        for name, tally in self._tally.items():
            self.written[name] = tally.written(None, "memory", "FLOAT", audio=self._audio[name])
