"""The adapter: from z_s to the soft token that takes the place of `<subj>` in the VLM's prompt."""

from torch import Tensor, nn


class Adapter(nn.Module):
    """One linear layer without bias.

    Args:
        subject_embedding_size: The numbers in z_s.
        hidden_size: The width of the VLM's embeddings.
    """

    def __init__(self, subject_embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.projection = nn.Linear(subject_embedding_size, hidden_size, bias=False)

    def forward(self, subject_embedding: Tensor) -> Tensor:
        """(B, subject_embedding_size) z_s -> (B, hidden_size) soft tokens."""
        soft_tokens: Tensor = self.projection(subject_embedding)
        return soft_tokens
