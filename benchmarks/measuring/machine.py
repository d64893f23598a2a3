"""The machine that figures are of."""

import platform
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
