"""DEPER as stage 1 trains it: persona encoder, subject head and trajectory decoder."""

from typing import NamedTuple

from torch import Tensor, nn

from training.network.config import NetworkConfig
from training.network.persona_encoder import Context, PersonaEncoder
from training.network.subject_extractor import SubjectHead
from training.network.trajectory_decoder import TrajectoryDecoder


class DeperOutput(NamedTuple):
    """All that the losses of stage 1 need.

    Attributes:
        subject_embedding: (B, subject_embedding_size) z_s.
        subject_logits: (B, num_subjects)
        boxes: (B, M, 4) reconstructed boxes, corners ordered, in [0, 1].
        validity_logits: (B, M)
        context: What `PersonaEncoder.encode` returned.
    """

    subject_embedding: Tensor
    subject_logits: Tensor
    boxes: Tensor
    validity_logits: Tensor
    context: Context


class Deper(nn.Module):
    """The whole of what stage 1 trains; image encoder and text table stay outside, frozen.

    Args:
        config: The sizes.
        num_subjects: Subjects in the training data.
    """

    def __init__(self, config: NetworkConfig, num_subjects: int) -> None:
        super().__init__()
        self.persona_encoder = PersonaEncoder(config)
        self.subject_head = SubjectHead(config, num_subjects)
        self.trajectory_decoder = TrajectoryDecoder(config)

    def forward(
        self,
        image_tokens: Tensor,
        text_embeddings: Tensor,
        attention_mask: Tensor,
        boxes: Tensor,
        durations: Tensor,
        fixation_mask: Tensor,
    ) -> DeperOutput:
        """Encodes samples and reconstructs their trajectories; the arguments are those of `PersonaEncoder.encode`."""
        z_s, context = self.persona_encoder(
            image_tokens, text_embeddings, attention_mask, boxes, durations, fixation_mask
        )
        decoded = self.trajectory_decoder(z_s, context)
        return DeperOutput(z_s, self.subject_head(z_s), decoded.boxes, decoded.validity_logits, context)
