"""Where a module's weights are."""

from itertools import chain

import torch
from torch import nn

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's first parameter or buffer."""
    return next(chain(module.parameters(), module.buffers())).device
