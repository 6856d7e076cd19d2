"""The original's separation, file to files, timed in a process of its own (``ortsep.base.apart``).

The other side of ``ortsep bench``: reads with libsndfile, separates with the family's ``Original.baseline``, writes
float wav, and answers as ``ortsep.measure.bench`` does.
"""

import time
from pathlib import Path
from typing import Any

from ortsep.base import memory


def answer(name: str, weights: str, song: str, output: str) -> dict[str, Any]:
    """``weights``: a file of one's own, "random", or nothing for the official ones. Raises what the family raises."""
    import soundfile

    from ortsep.export.exporter import choose_weights
    from ortsep.export.family import load_original
    from ortsep.models.catalogue import find_card

    original = load_original(find_card(name), choose_weights(weights or None))
    backend, separate = original.baseline()
    names = original.spec.names
    del original
    ready, began = time.time(), time.perf_counter()
    mix, rate = soundfile.read(song, dtype="float32", always_2d=True)
    stems = separate(mix.T.copy())
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    first = 0.0
    for stem, wave in zip(names, stems, strict=True):
        soundfile.write(folder / f"{stem}.wav", wave.T, rate, subtype="FLOAT")
        first = first or time.time()
    took = time.perf_counter() - began
    return {"ready": ready, "first": first, "seconds": took, "backend": backend, "peak_mb": memory.peak() / 1e6}
