"""Memory that is freed goes back to the system, where the C library is glibc."""

import os
import platform
import subprocess
import sys

import pytest

from ortsep.base import heap
from ortsep.base.heap import give_back

SCRIPT = """
import sys
from ortsep.base.heap import give_back

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1e3

if sys.argv[1] == "with":
    assert give_back()
large = bytearray(b"x") * (30 << 20)
del large  # from here on glibc's own threshold is 30 MB
blocks = [bytearray(b"x") * (8 << 20) for _ in range(3)]
before = resident()
blocks[1] = None  # between two others: no heap can shrink by it
print(before - resident())
"""
FAULTS = """
import resource, sys, threading
import numpy as np
from ortsep.base.heap import give_back

if sys.argv[1] == "with":
    assert give_back()

def work():
    for _ in range(100):
        arrays = [np.ones(1 << 16) for _ in range(3)]
        del arrays

thread = threading.Thread(target=work)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def freed(which: str, script: str = SCRIPT, **environment: str) -> float:
    others = {k: v for k, v in os.environ.items() if k not in heap.SET_OTHERWISE}
    command = [sys.executable, "-c", script, which]
    done = subprocess.run(command, env={**others, **environment}, capture_output=True, text=True, check=True)
    return float(done.stdout)


@glibc
def test_a_freed_array_is_given_back() -> None:
    assert freed("with") > 7
    assert freed("without") < 1


@glibc
def test_small_arrays_of_a_thread_are_not_new_pages_each_time() -> None:
    """A hundred times three arrays of 128 pages."""
    assert freed("with", FAULTS) < 3_000


@pytest.mark.parametrize("name", heap.SET_OTHERWISE)
def test_settings_in_the_environment_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not give_back()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not give_back()
