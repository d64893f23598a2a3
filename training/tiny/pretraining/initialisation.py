"""How small networks begin."""

import torch
from torch import nn


@torch.no_grad()
def initialise_linear_layers(module: nn.Module, blocks: int, residual: tuple[str, ...]) -> None:
    """Scales random weights by their fan-in, and biases to 0.

    transformers' standard deviation of 0.02 suits widths of a thousand: in a network of a tenth of that, what attention
    and feed-forward layers add would be lost beside their input for hundreds of steps.

    Args:
        module: Its linear layers are drawn anew from torch's generator.
        blocks: Its number of residual blocks, each with attention and a feed-forward layer.
        residual: Ends of the names of layers whose output is added to a residual stream; all of them together keep its
            variance.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Linear):
            scale = (2 * blocks) ** -0.5 if name.endswith(residual) else 1.0
            nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
