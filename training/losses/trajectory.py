"""L_traj = L_box + L_valid: the decoded trajectory against the recorded one (paper, "Losses and training")."""

from torch import Tensor
from torch.nn import functional as F


def box_loss(predicted_boxes: Tensor, boxes: Tensor, fixation_mask: Tensor) -> Tensor:
    """L_box: smooth L1 with β = 1/9, summed over the 4 numbers, averaged over the real fixations.

    Samples without a trajectory take no part; where no sample has one the loss is zero, with a gradient path.

    Args:
        predicted_boxes: (B, S, 4)
        boxes: (B, M, 4), M ≤ S.
        fixation_mask: (B, M) bool or int, non-zero for real fixations.

    Raises:
        ValueError: There are more fixations than slots.
    """
    real = _slots(fixation_mask, predicted_boxes.shape[1])
    boxes = F.pad(boxes, (0, 0, 0, real.shape[1] - boxes.shape[1])).to(predicted_boxes.dtype)
    distance = F.smooth_l1_loss(predicted_boxes, boxes, beta=1 / 9, reduction="none").sum(-1)
    return (distance * real).sum() / real.sum().clamp(min=1)


def validity_loss(validity_logits: Tensor, fixation_mask: Tensor) -> Tensor:
    """L_valid: binary cross-entropy of "this slot holds a fixation", averaged over all slots.

    Samples without a trajectory take no part; where no sample has one the loss is zero, with a gradient path.

    Args:
        validity_logits: (B, S)
        fixation_mask: (B, M) bool or int, M ≤ S, non-zero for real fixations.

    Raises:
        ValueError: There are more fixations than slots.
    """
    real = _slots(fixation_mask, validity_logits.shape[1])
    has_trajectory = real.any(-1, keepdim=True)
    surprise = F.binary_cross_entropy_with_logits(validity_logits, real.to(validity_logits.dtype), reduction="none")
    return (surprise * has_trajectory).sum() / (has_trajectory.sum().clamp(min=1) * real.shape[1])


def _slots(fixation_mask: Tensor, slots: int) -> Tensor:
    missing = slots - fixation_mask.shape[1]
    if missing < 0:
        raise ValueError(
            f"trajectories of {fixation_mask.shape[1]} fixations do not fit the decoder's {slots} slots; "
            "cut them to max_fixations"
        )
    return F.pad(fixation_mask.bool(), (0, missing))
