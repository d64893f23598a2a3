"""Training with Muon: the same as torch's two optimisers side by side, and it resumes exactly."""

import copy

import attrs
import pytest
import torch
from torch import nn

from tests.support.regression import SHORT, Regression
from training.config import OptimisationConfig
from training.errors import TrainingError
from training.loop.optimiser import build_optimizer
from training.loop.train import train

WITH_MUON = attrs.evolve(SHORT, muon_learning_rate=1e-2)


def test_an_interrupted_run_goes_on_exactly(tmp_path):
    whole, interrupted, resumed = Regression(), Regression(), Regression()
    train(whole, WITH_MUON, 0, tmp_path / "whole")
    interrupted.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, WITH_MUON, 0, tmp_path / "parts")
    train(resumed, WITH_MUON, 0, tmp_path / "parts")
    for one, other in zip(whole.state.parameters(), resumed.state.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("rate", [0.0, 2e-2])
def test_a_checkpoint_of_another_rate_is_refused(tmp_path, rate):
    stopped = Regression()
    stopped.stop_at = 6
    with pytest.raises(KeyboardInterrupt):
        train(stopped, WITH_MUON, 0, tmp_path)
    with pytest.raises(TrainingError, match="muon_learning_rate"):
        train(Regression(), attrs.evolve(SHORT, muon_learning_rate=rate), 0, tmp_path)


class Network(nn.Module):
    """One of each kind of parameter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(5, 4)
        self.queries = nn.Parameter(torch.randn(3, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.hidden = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids):
        x = self.words(ids) + self.queries
        return self.head(self.norm(self.hidden(x + self.attention(x, x, x)[0])))

    def groups(self):
        own = [parameter for name, parameter in self.named_parameters() if not name.startswith("head")]
        return [
            {"params": own, "lr": 1e-3},
            {"params": list(self.head.parameters()), "lr": 3e-3, "muon": False},
        ]


def test_steps_are_those_of_torchs_optimisers():
    config = OptimisationConfig(steps=3, muon_learning_rate=1e-2, weight_decay=0.1)
    ours, plain = Network(), copy.deepcopy(Network())
    optimizer = build_optimizer(ours, ours.groups(), config)
    matrices = [plain.attention.in_proj_weight, plain.attention.out_proj.weight, plain.hidden.weight]
    taken = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in plain.groups()[0]["params"] if id(parameter) not in taken]
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": rest, "lr": 1e-3}, {"params": list(plain.head.parameters()), "lr": 3e-3}]
    adamw = torch.optim.AdamW(groups, weight_decay=0.1)
    for step in range(3):
        ids = torch.randint(5, (2, 3), generator=torch.Generator().manual_seed(step))
        for network, optimizers in ((ours, [optimizer]), (plain, [muon, adamw])):
            network(ids).square().mean().backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
    before = Network().state_dict()
    for (name, one), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other), name
        assert not torch.equal(one, before[name]), name


def test_without_a_rate_it_is_adamw():
    network = Network()
    assert type(build_optimizer(network, network.groups(), OptimisationConfig(steps=1))) is torch.optim.AdamW


def test_muon_without_a_matrix_is_an_error():
    words = nn.Embedding(5, 4)
    config = OptimisationConfig(steps=1, muon_learning_rate=1e-2)
    with pytest.raises(TrainingError, match="muon_learning_rate: nothing that is trained here"):
        build_optimizer(words, [{"params": list(words.parameters()), "lr": 1e-3}], config)
