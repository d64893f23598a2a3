"""From Z_dual to the subject embedding z_s, and from z_s to the subject."""

from torch import Tensor, nn

from training.network.blocks import QueryReadout
from training.network.config import NetworkConfig


class SubjectExtractor(QueryReadout):
    """The query q_s reads z_s (B, subject_embedding_size) out of Z_dual."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, config.subject_embedding_size)


class SubjectHead(nn.Module):
    """A linear classifier of the subject; for training only."""

    def __init__(self, config: NetworkConfig, num_subjects: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.subject_embedding_size, num_subjects)

    def forward(self, subject_embedding: Tensor) -> Tensor:
        """(B, subject_embedding_size) z_s -> (B, num_subjects) logits."""
        logits: Tensor = self.classifier(subject_embedding)
        return logits
