"""Training with Muon: the same as torch's two optimisers side by side, and it resumes exactly."""

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


def test_steps_are_those_of_torchs_optimisers(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    before, ours = Network().state_dict(), trained_by_us()
    for (name, one), other in zip(ours.named_parameters(), trained_by_torch().parameters(), strict=True):
        assert torch.equal(one, other), name
        assert not torch.equal(one, before[name]), name


def test_without_instructions_for_bfloat16_muon_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    ours, rounded = trained_by_us(), trained_by_torch()
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", orthogonal)
    exact = trained_by_torch()
    assert farthest(ours, exact) < 1e-5
    assert farthest(rounded, exact) > 1e-4  # so this test would notice rounding


def farthest(one, other):
    """How far the matrices that Muon trains lie apart."""
    return max((a - b).abs().max().item() for a, b in zip(matrices_of(one), matrices_of(other), strict=True))


def orthogonal(gradient, coefficients, steps, eps):
    """Newton and Schulz's iteration of Muon, as its authors write it down, in float64."""
    a, b, c = coefficients
    x = gradient.double() / gradient.double().norm().clamp(min=eps)
    x = x.T if len(gradient) > len(gradient.T) else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if len(gradient) > len(gradient.T) else x).float()


CONFIG = OptimisationConfig(steps=3, muon_learning_rate=1e-2, weight_decay=0.1)


def trained_by_us():
    """A network after three steps."""
    network = Network()
    return take_steps(network, [build_optimizer(network, network.groups(), CONFIG)])


def trained_by_torch():
    """The same with torch's two optimisers side by side."""
    network = Network()
    matrices = matrices_of(network)
    taken = {id(matrix) for matrix in matrices}
    rest = [parameter for parameter in network.groups()[0]["params"] if id(parameter) not in taken]
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": rest, "lr": 1e-3}, {"params": list(network.head.parameters()), "lr": 3e-3}]
    return take_steps(network, [muon, torch.optim.AdamW(groups, weight_decay=0.1)])


def matrices_of(network):
    """What Muon trains."""
    return [network.attention.in_proj_weight, network.attention.out_proj.weight, network.hidden.weight]


def take_steps(network, optimizers):
    """Three steps on the same words for everybody."""
    for step in range(3):
        network(torch.randint(5, (2, 3), generator=torch.Generator().manual_seed(step))).square().mean().backward()
        for each in optimizers:
            each.step()
            each.zero_grad()
    return network


def test_without_a_rate_it_is_adamw():
    network = Network()
    assert type(build_optimizer(network, network.groups(), OptimisationConfig(steps=1))) is torch.optim.AdamW


def test_muon_without_a_matrix_is_an_error():
    words = nn.Embedding(5, 4)
    config = OptimisationConfig(steps=1, muon_learning_rate=1e-2)
    with pytest.raises(TrainingError, match="muon_learning_rate: nothing that is trained here"):
        build_optimizer(words, [{"params": list(words.parameters()), "lr": 1e-3}], config)
