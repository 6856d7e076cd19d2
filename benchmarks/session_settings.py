"""``python benchmarks/session_settings.py MODEL.onnx [ROUNDS]``: one graph under different ONNX Runtime settings.

Each setting runs in a fresh process, the settings one after the other in every round; medians of ratios to the first,
with each process's own peak memory. The last line is the ceiling: float32 matrix products in numpy, in GFLOP/s.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

from ortsep.base import memory
from ortsep.measure.gauge import ceiling

SETTINGS: dict[str, dict[str, Any]] = {
    "runtime default": {"shared": True},
    "own arena": {},
    "no memory pattern": {"pattern": False},
    "no arena, no pattern": {"arena": False, "pattern": False},
    "no spinning": {"shared": True, "session.intra_op.allow_spinning": "0"},
    "denormals as zero": {"shared": True, "session.set_denormal_as_zero": "1"},
    "no pattern, no reuse (ortsep)": {"shared": True, "pattern": False, "reuse": False},
    "the same, one thread": {"shared": True, "pattern": False, "reuse": False, "threads": 1},
}


def worker(path: str, setting: dict[str, Any]) -> None:
    import onnxruntime as ort

    from ortsep.export.optimize import seeded_inputs
    from ortsep.graphs.session import _share_arena

    inputs = seeded_inputs(__import__("pathlib").Path(path), {})
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = setting.get("arena", True)
    options.enable_mem_pattern = setting.get("pattern", True)
    options.enable_mem_reuse = setting.get("reuse", True)
    options.intra_op_num_threads = setting.get("threads", 0)
    if setting.get("shared"):
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    for key, value in setting.items():
        if key.startswith("session."):
            options.add_session_config_entry(key, value)
    began = time.perf_counter()
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    load, took = time.perf_counter() - began, []
    for _ in range(4):
        began = time.perf_counter()
        session.run(None, inputs)
        took.append(time.perf_counter() - began)
    print(json.dumps({"load": load, "seconds": statistics.median(took[1:]), "peak": memory.peak() / 1e6}))


def main(path: str, rounds: int = 3) -> None:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    rates = []
    for _ in range(rounds):
        for name, setting in SETTINGS.items():
            command = [sys.executable, __file__, "--worker", path, json.dumps(setting)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
        rates.append(ceiling())
    first = results[next(iter(SETTINGS))]
    print(f"{'setting':<30} {'load s':>7} {'run s':>7} {'ratio':>6} {'peak MB':>8}")
    for name, made in results.items():
        load, seconds, peak = (statistics.median(m[key] for m in made) for key in ("load", "seconds", "peak"))
        ratio = statistics.median(m["seconds"] / f["seconds"] for m, f in zip(made, first, strict=True))
        print(f"{name:<30} {load:>7.2f} {seconds:>7.3f} {ratio:>6.2f} {peak:>8.0f}")
    print(f"matrix products: {statistics.median(rates):.0f} GFLOP/s")


if __name__ == "__main__":
    if sys.argv[1] == "--worker":
        worker(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main(sys.argv[1], *(int(n) for n in sys.argv[2:3]))
