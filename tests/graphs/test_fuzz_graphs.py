"""Hostile graphs: an OrtsepError, or a model that loads; in processes of their own, whose memory is bounded."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import TIMES
from places import GRAPHS, ROOT

GRAPHS = sorted(GRAPHS.rglob("*.onnx"))


def damage(data: bytes, seed: int) -> bytes:
    """Changes anywhere in a graph; the spec, which makes up most of its bytes, is fuzzed elsewhere."""
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(min(len(out), 600))
        match rng.randrange(4):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at] = rng.randrange(256)
            case 2:
                del out[at : at + rng.randint(1, 30)]
            case _:
                out[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(out)


def _worker(folder: Path, first: int, last: int) -> None:
    import numpy as np

    from ortsep.base.errors import OrtsepError
    from ortsep.separator import Separator

    x = np.random.default_rng(0).standard_normal((2, 5000)).astype(np.float32)
    # Address space, not residence: ONNX Runtime's threads and arenas reserve some GB of it.
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    (folder / "stems.txt").write_text("drums\nvocals\n")
    for seed in range(first, last):
        (folder / "graph.onnx").write_bytes(damage(GRAPHS[seed % len(GRAPHS)].read_bytes(), seed))
        print(seed, flush=True)
        try:
            stems = Separator(folder / "graph.onnx", sample_rate=8000, provider="cpu", threads=1).separate(x)
            assert all(s.shape == x.shape for s in stems.values())
        except OrtsepError as error:
            assert len(str(error)) < 1000 and "\n" not in str(error)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_fuzz_graphs(tmp_path: Path) -> None:
    count = 120 * TIMES
    command = [sys.executable, __file__, str(tmp_path), "0", str(count)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * TIMES + 60, env=env)
    assert done.returncode == 0, (done.returncode, done.stdout[-20:], done.stderr[-2000:])


if __name__ == "__main__":
    _worker(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
