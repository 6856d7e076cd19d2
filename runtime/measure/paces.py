"""A model as a setting runs it, over a few seconds of noise, again and again, in a process of its own.

The whole separation, not one graph: models run in chunks, in blocks side by side or in parts, and what is tried has to
be tried as it runs. A provider that crashes or hangs costs that process only.
"""

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ortsep.base import heap, memory
from ortsep.base.apart import Child
from ortsep.base.arrays import F32
from ortsep.graphs.model import Model
from ortsep.graphs.tuned import Setting
from ortsep.models.cuts import Fixed
from ortsep.models.spec import ModelSpec
from ortsep.separator import Separator

PATIENCE = 900.0
"""Seconds until a setting counts as hanging: CoreML compiles a large graph for minutes."""
_LONGEST = 60.0


def subject(model: Model) -> Path:
    """What of a model is tried: its first graph where each is a model by itself, else all of them."""
    together = len(model.members) > 1 and model.spec.chunks is None
    return model.folder if together else model.file(model.members[0])


def seconds_for(spec: ModelSpec) -> float:
    """Of noise: one chunk and no more, four blocks, or what a network without either takes to show its pace."""
    if spec.chunks is not None:
        step = spec.chunks.length // spec.chunks.parts if spec.chunks.parts else 0
        step = step or int((1 - spec.chunks.overlap) * spec.chunks.length)
        seconds = step / spec.sample_rate
        return seconds if isinstance(spec.chunks.takes, Fixed) else min(seconds, 10.0)
    if spec.bands is not None:
        return 5.0
    blocks = spec.blocks
    if blocks is not None and blocks.padded and spec.stft is not None:
        return min(4 * blocks.frames * blocks.batch * spec.stft.hop / spec.sample_rate, _LONGEST)
    return 30.0 if spec.parts else 20.0


def noise_for(spec: ModelSpec) -> F32:
    """Seeded noise [C, N] of that length."""
    samples = max(1, round(seconds_for(spec) * spec.sample_rate))
    return np.random.default_rng(0).standard_normal((spec.channels, samples)).astype(np.float32) * np.float32(0.1)


class Paces:
    """A model on a setting. Its first run warms it up and gives its stems, which go through a file in ``folder``.

    Raises NoAnswer for what crashes, hangs or fails.
    """

    def __init__(self, model: Path, setting: Setting, folder: Path) -> None:
        self._stems = folder / f"{secrets.token_hex(4)}.npy"
        self.peak = 0
        """Bytes that the process has had at most."""
        self._child = Child(__name__, model, json.dumps(asdict(setting)), self._stems)

    def first(self) -> F32:
        """The stems [S, C, N] of the first run."""
        self.peak = int(self._child.ask(PATIENCE)["peak"])
        given: F32 = np.load(self._stems)
        self._stems.unlink()
        return given

    def run(self) -> float:
        """Seconds of one more run."""
        said = self._child.ask(PATIENCE)
        self.peak = int(said["peak"])
        return float(said["seconds"])

    def close(self) -> None:
        self._child.close()


def answer(model: str, setting: str, stems: str) -> Iterator[dict[str, Any]]:
    """The child: it loads, separates, leaves its stems in a file; and then a run for each word, with what it took."""
    heap.give_back()
    with Separator(model, provider=Setting(**json.loads(setting))) as separator:
        mix = noise_for(separator.spec)
        given = separator.separate(mix)
        np.save(stems, np.stack([given[name] for name in given]))
        del given
        yield {"seconds": None, "peak": memory.peak()}
        while True:
            began = time.perf_counter()
            separator.separate(mix)
            yield {"seconds": time.perf_counter() - began, "peak": memory.peak()}
