"""What all tests share: the measure of equality and the real audio, where it is to be had."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.

    Where several workers share the cores, torch keeps to one: its threads wait for each other spinning.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _snr(reference: Any, estimate: Any) -> float:
    ref, est = np.asarray(reference), np.asarray(estimate)
    assert ref.shape == est.shape, f"shapes {ref.shape} and {est.shape}"
    ref = ref.astype(np.complex128 if np.iscomplexobj(ref) else np.float64)
    noise = float(np.sum(np.abs(ref - est) ** 2))
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(np.sum(np.abs(ref) ** 2) / noise))


@pytest.fixture(scope="session")
def snr() -> Callable[[Any, Any], float]:
    """SNR in dB of an estimate against a reference, in float64; infinite where they are equal."""
    return _snr


@pytest.fixture(scope="session")
def shared_audio() -> Path:
    """The folder of real music beside the checkout ($ORTSEP_AUDIO overrides); skips by name where it is absent."""
    folder = Path(os.environ.get("ORTSEP_AUDIO") or Path(__file__).parents[2] / "shared" / "audio")
    if not folder.is_dir():
        pytest.skip("no ../shared/audio beside this checkout")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one core: its threads wait by spinning, and a network as small as the tests' only loses by sharing."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skips by name where none may be mounted."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
