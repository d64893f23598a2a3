"""L = L_caption + L_trace of joint generation, and the boxes that are hidden while training."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.baselines.mitr.alignment import WHOLE_IMAGE
from training.baselines.mitr.network import MITROutput
from training.baselines.word_vocabulary import PAD
from training.distributed.means import Mean


def mitr_losses(output: MITROutput, target_words: Tensor, target_boxes: Tensor) -> dict[str, Mean]:
    """Both losses, and how many words and boxes they are means over.

    Args:
        output: Of the network.
        target_words: (B, T), `PAD` behind the end token.
        target_boxes: (B, T, 5)

    Returns:
        "caption": cross-entropy of the real words and the end token; "trace": mean absolute difference of the corners,
        over the words that have a box.
    """
    real = target_words != PAD
    has_box = target_boxes[..., 4] < 1  # all of the image stands for no box
    differences = (output.boxes - target_boxes[..., :4]).abs().mean(-1)
    boxes = has_box.sum()
    return {
        "caption": Mean(F.cross_entropy(output.word_logits[real], target_words[real]), float(real.sum())),
        "trace": Mean((differences * has_box).sum() / boxes.clamp(min=1), float(boxes)),
    }


def hide_boxes(boxes: Tensor, chance: float) -> Tensor:
    """Replaces earlier boxes by the whole image at random, so that words are not learned from true boxes alone.

    Args:
        boxes: (B, T, 5) as the network reads them; the first, which stands for the beginning, is never hidden.
        chance: Of each of the others.
    """
    hidden = torch.rand(boxes.shape[:2], device=boxes.device) < chance
    hidden[:, 0] = False
    return torch.where(hidden.unsqueeze(-1), boxes.new_tensor(WHOLE_IMAGE), boxes)
