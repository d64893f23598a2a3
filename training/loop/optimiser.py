"""The optimiser of a training: AdamW, or Muon for the matrices of hidden layers and AdamW for the rest."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from training.config import OptimisationConfig
from training.errors import TrainingError
from training.precision import Float32InPlaceOfBFloat16, multiplies_bfloat16_fast


def build_optimizer(
    state: nn.Module, groups: Sequence[dict[str, Any]], config: OptimisationConfig
) -> "torch.optim.Optimizer | MuonAndAdamW":
    """The optimiser of a task.

    With `config.muon_learning_rate`, the matrices of linear and attention layers are Muon's, which makes their steps
    orthogonal (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"), at a rate on AdamW's
    scale (Liu et al. 2025, "Muon is scalable for LLM training"). Embeddings, biases, gains, convolutions and learned
    queries keep to AdamW.

    Args:
        state: The modules that are trained.
        groups: The task's, each with "params" and "lr", AdamW's peak rate. One with "muon": False, such as an output
            layer, is AdamW's as a whole.
        config: The rates and the weight decay.

    Raises:
        TrainingError: There is a rate for Muon, and no matrix for it to train.
    """
    if not config.muon_learning_rate:
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    hidden = {
        id(parameter)
        for module in state.modules()
        if isinstance(module, (nn.Linear, nn.MultiheadAttention))
        for parameter in module.parameters(recurse=False)
        if parameter.ndim == 2
    }
    matrices, rest = [], []
    for group in groups:
        own = [p for p in group["params"] if group.get("muon", True) and id(p) in hidden]
        taken = {id(p) for p in own}
        matrices += own
        rest.append({"params": [p for p in group["params"] if id(p) not in taken], "lr": group["lr"]})
    if not matrices:
        raise TrainingError(
            "muon_learning_rate: nothing that is trained here is the matrix of a linear or attention layer; set it to 0"
        )
    return MuonAndAdamW({"params": matrices, "lr": config.muon_learning_rate}, rest, config.weight_decay)


class MuonAndAdamW:
    """torch's Muon and AdamW as one optimiser, as far as the training loop and its checkpoints use one.

    Args:
        matrices: The parameter group that is Muon's.
        rest: The parameter groups that are AdamW's.
        weight_decay: Of all groups.
    """

    def __init__(self, matrices: dict[str, Any], rest: Sequence[dict[str, Any]], weight_decay: float) -> None:
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon([matrices], weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, weight_decay=weight_decay),
        )
        self._device = matrices["params"][0].device

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both; a learning rate that is set in one counts from the next step on."""
        return [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        """One step of both."""
        muon, adamw = self._parts
        # A large part of a step: Muon multiplies matrices of the sizes of all that it trains, and does so in bfloat16.
        with nullcontext() if multiplies_bfloat16_fast(self._device) else Float32InPlaceOfBFloat16():
            muon.step()
        adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients."""
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of both in one numbering of the parameters: Muon's first."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        for part in self._parts:
            own, first = part.state_dict(), _count(groups)
            state |= {first + index: values for index, values in own["state"].items()}
            groups += [group | {"params": [first + i for i in group["params"]]} for group in own["param_groups"]]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, loaded: dict[str, Any]) -> None:
        """Takes the states that `state_dict` gave."""
        groups, first = list(loaded["param_groups"]), 0
        for part in self._parts:
            own = [groups.pop(0) for _ in part.param_groups]
            count = _count(own)
            part.load_state_dict(
                {
                    "state": {i - first: v for i, v in loaded["state"].items() if first <= i < first + count},
                    "param_groups": [group | {"params": [i - first for i in group["params"]]} for group in own],
                }
            )
            first += count


def _count(groups: Sequence[dict[str, Any]]) -> int:
    return sum(len(group["params"]) for group in groups)
