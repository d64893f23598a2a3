"""Where matrices are multiplied in bfloat16: on GPUs, and on CPUs with AVX-512.

On an x86 CPU without AVX-512, PyTorch multiplies matrices in bfloat16 by plain loops, which take eight to fifty times
as long as its products in float32 (`python -m benchmarks.bfloat16`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def multiplies_bfloat16_fast(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bfloat16 about as fast as in float32, or faster.

    ARM processors count as slow, although some are not: it has not been measured on any.
    """
    return device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")


def bfloat16_autocast(device: torch.device, *, wanted: bool) -> torch.autocast:
    """Autocast to bfloat16, if it is wanted and the device is fast at it; otherwise nothing changes its type.

    Args:
        device: Where matrices are multiplied.
        wanted: What the configuration says.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and multiplies_bfloat16_fast(device))


class Float32InPlaceOfBFloat16(TorchFunctionMode):
    """While it is entered, `tensor.bfloat16()` gives a copy in float32.

    torch's Muon rounds gradients to bfloat16 and has no setting for that.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls `func`, or makes the copy."""
        if func is Tensor.bfloat16:
            return args[0].to(torch.float32, copy=True)
        return func(*args, **(kwargs or {}))
