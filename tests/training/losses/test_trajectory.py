"""The trajectory loss against plain loops, and its edges: no trajectory, more fixations than slots."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.losses.trajectory import box_loss, validity_loss


def _plain_trajectory_loss(predicted: Tensor, logits: Tensor, boxes: Tensor, mask: Tensor) -> float:
    box, fixations, surprise, slots = 0.0, 0, 0.0, 0
    for b in range(len(boxes)):
        count = int(mask[b].sum())
        if count == 0:
            continue
        for i in range(predicted.shape[1]):
            probability = 1 / (1 + math.exp(-float(logits[b, i])))
            surprise -= math.log(probability if i < count else 1 - probability)
            slots += 1
            if i < count:
                fixations += 1
                for d in (abs(float(predicted[b, i, k] - boxes[b, i, k])) for k in range(4)):
                    box += 0.5 * d * d * 9 if d < 1 / 9 else d - 0.5 / 9
    return box / max(fixations, 1) + surprise / max(slots, 1)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(0, 4), min_size=1, max_size=4), slots=st.integers(4, 6))
def test_trajectory_loss_is_the_plain_sum(seed: int, lengths: list[int], slots: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.rand(len(lengths), slots, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    logits = torch.randn(len(lengths), slots, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes = torch.rand(len(lengths), 4, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    value = box_loss(predicted, boxes, mask) + validity_loss(logits, mask)
    assert value.item() == pytest.approx(_plain_trajectory_loss(predicted.detach(), logits.detach(), boxes, mask))
    gradients = torch.autograd.grad(value, (predicted, logits))
    for gradient in gradients:
        assert gradient.isfinite().all()
        assert not gradient[~mask.any(-1)].any()  # without a trajectory, without a part in it
    assert torch.equal(value, box_loss(predicted, boxes, mask.long()) + validity_loss(logits, mask.long()))


def test_trajectory_loss_refuses_more_fixations_than_slots() -> None:
    with pytest.raises(ValueError, match="5 fixations do not fit the decoder's 3 slots"):
        box_loss(torch.rand(1, 3, 4), torch.rand(1, 5, 4), torch.ones(1, 5))
    with pytest.raises(ValueError, match="5 fixations do not fit the decoder's 3 slots"):
        validity_loss(torch.rand(1, 3), torch.ones(1, 5))
