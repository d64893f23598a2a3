"""FiLM: feature-wise modulation of the trajectory decoder's queries by the subject embedding z_s."""

from torch import Tensor, nn

from training.network.config import NetworkConfig


class FiLM(nn.Module):
    """Q·(1 + tanh γ(z_s)) + tanh β(z_s), with γ and β from one LayerNorm–Linear of z_s."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.gamma_beta = nn.Sequential(
            nn.LayerNorm(config.subject_embedding_size),
            nn.Linear(config.subject_embedding_size, 2 * config.hidden_size),
        )

    def forward(self, queries: Tensor, subject_embedding: Tensor) -> Tensor:
        """(B, M, D) queries, (B, subject_embedding_size) z_s -> (B, M, D)."""
        gamma, beta = self.gamma_beta(subject_embedding).unsqueeze(1).tanh().chunk(2, dim=-1)
        modulated: Tensor = queries * (1 + gamma) + beta
        return modulated
