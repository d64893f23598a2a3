"""The machine that figures are of, and how much of its memory a process takes."""

import os
import platform
import sys
from pathlib import Path

# What products of 8-bit integers and of bfloat16 depend on: x86, then ARM.
_INSTRUCTIONS = ("avx2", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")


def cpu() -> str:
    """Returns the processor's name, and which of the instructions it has that matter here, as Linux tells them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name") or platform.processor() or platform.machine()
    flags = (found.get("flags") or found.get("Features", "")).split()
    return ", ".join([name, *(flag for flag in _INSTRUCTIONS if flag in flags)])


def cores() -> int:
    """Returns how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        return os.cpu_count() or 1


def has_large_pages() -> bool:
    """Whether a process can have its memory in large pages by asking the C library for them (Linux)."""
    state = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return state.is_file() and "[never]" not in state.read_text()


def peak_memory() -> int | None:
    """Returns the most memory that this process has had, in bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not what getrusage gives, which on Linux counts the memory of the process that started this one.
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return int(line.split()[1]) * 1024 if line else None
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
