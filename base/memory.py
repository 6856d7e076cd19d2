"""How much memory there is to be had, and how much a process has and had at most, where the system says."""

import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that may still be taken without swapping, within this container's limit; None where nobody says.

    Where only the machine's whole memory is known (macOS), that.
    """
    known = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(known) if known else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_container() -> int | None:
    for most, now in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = int((_CGROUP / most).read_text(encoding="ascii"))
            return max(0, limit - int((_CGROUP / now).read_text(encoding="ascii")))
        except (OSError, ValueError):  # "max" too
            continue
    return None


def resident(process: int | str = "self") -> int:
    """Bytes of memory that a process has now; 0 where the system doesn't say (no Linux, or the process has ended)."""
    return _of_process(process, "VmRSS") or 0


def peak() -> int:
    """Bytes that this process had at most so far.

    Not ``ru_maxrss`` on Linux: there a process that a large one starts begins with the large one's.
    """
    found = _of_process("self", "VmHWM")
    if found is not None:
        return found
    if sys.platform == "win32":
        return _windows_peak()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _of_process(process: int | str, key: str) -> int | None:
    """One of the sizes in /proc/PROCESS/status (proc_pid_status(5)), in bytes."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _windows_peak() -> int:
    """PeakWorkingSetSize of psapi.h: the first of eight SIZE_Ts behind two DWORDs in PROCESS_MEMORY_COUNTERS."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32), ("sizes", ctypes.c_size_t * 8)]

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009, since it is there on Windows alone
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32]
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.sizes[0])
