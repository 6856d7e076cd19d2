"""``python -m ortsep.export.reference NAME WEIGHTS SONG OUTPUT``: the original's separation, file to files, timed.

The other side of ``ortsep bench``: reads with libsndfile, separates with the family's ``Original.baseline``, writes
float wav, and prints one JSON line.
"""

import json
import sys
import time
from pathlib import Path


def main(name: str, weights: str, song: str, output: str) -> None:
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
    for stem, wave in zip(names, stems, strict=True):
        soundfile.write(folder / f"{stem}.wav", wave.T, rate, subtype="FLOAT")
    took = time.perf_counter() - began
    print(json.dumps({"ready": ready, "seconds": took, "backend": backend}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
