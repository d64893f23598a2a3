"""The contrastive loss against plain loops, and its edges: no positive, one sample again and again."""

import math
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.processes import run_ranks
from training.losses.contrastive import ContrastiveLoss, batch_contrastive_loss

torch.set_num_threads(1)
TEMPERATURE = 0.07


class PlainBank:
    """The memory bank as a list of everything that was ever stored."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.history: list[tuple[Tensor, int, int]] = []

    def store(self, vectors: Tensor, subjects: Tensor, samples: Tensor) -> None:
        for vector, subject, sample in zip(vectors, subjects.tolist(), samples.tolist(), strict=True):
            self.history.append(((vector / vector.norm()).detach(), subject, sample))

    def keys(self) -> list[tuple[Tensor, int, int]]:
        newest = {subject: i for i, (_, subject, _) in enumerate(self.history)}
        latest = set(range(max(0, len(self.history) - self.capacity), len(self.history)))
        return [self.history[i] for i in sorted(latest | set(newest.values()))]

    def loss(self, vectors: Tensor, subjects: Tensor, samples: Tensor) -> Tensor:
        losses = []
        for vector, subject, sample in zip(vectors, subjects.tolist(), samples.tolist(), strict=True):
            others = [(k, s) for k, s, name in self.keys() if name != sample]
            scores = [torch.dot(vector / vector.norm(), k) / TEMPERATURE for k, _ in others]
            positives = [score for score, (_, s) in zip(scores, others, strict=True) if s == subject]
            if positives:
                total = torch.logsumexp(torch.stack(scores), 0)
                losses.append(sum(total - score for score in positives) / len(positives))
        return sum(losses, torch.zeros((), dtype=vectors.dtype)) / max(len(losses), 1)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31), capacity=st.integers(1, 9), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6)
)
def test_contrastive_loss_is_the_plain_sum_over_the_bank(seed: int, capacity: int, sizes: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss, plain = ContrastiveLoss(5, 8, capacity).double(), PlainBank(capacity)
    for size in sizes:
        z = torch.randn(size, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        subjects = torch.randint(5, (size,), generator=generator)
        samples = torch.randint(20, (size,), generator=generator)
        plain.store(z, subjects, samples)
        expected, actual = plain.loss(z, subjects, samples), loss(z, subjects, samples)
        torch.testing.assert_close(actual, expected)
        if expected.requires_grad:
            torch.testing.assert_close(*(torch.autograd.grad(x, z)[0] for x in (actual, expected)))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 9), people=st.integers(1, 5))
def test_the_contrast_within_a_batch_is_the_plain_sum_over_the_others(seed: int, size: int, people: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    subjects = torch.randint(people, (size,), generator=generator)
    unit = z / z.norm(dim=-1, keepdim=True)
    losses = []
    for anchor in range(size):
        others = [other for other in range(size) if other != anchor]
        positives = [other for other in others if subjects[other] == subjects[anchor]]
        if positives:
            scores = {other: torch.dot(unit[anchor], unit[other]) / TEMPERATURE for other in others}
            total = torch.logsumexp(torch.stack(list(scores.values())), 0)
            losses.append(sum(total - scores[other] for other in positives) / len(positives))
    expected = sum(losses, 0.0 * z.sum()) / max(len(losses), 1)
    actual = batch_contrastive_loss(z, subjects, TEMPERATURE)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in (actual, expected)))


def test_an_anchor_without_positive_gives_zero_with_a_gradient_path() -> None:
    loss = ContrastiveLoss(3, 4)
    z = torch.randn(3, 4, requires_grad=True)
    value = loss(z, torch.arange(3), torch.arange(3))
    value.backward()
    assert value.item() == 0.0
    assert z.grad is not None
    assert torch.equal(z.grad, torch.zeros(3, 4))


def test_an_anchor_is_never_its_own_positive() -> None:
    loss = ContrastiveLoss(2, 4)
    z = torch.randn(1, 4)
    for _ in range(3):  # the same sample, epoch after epoch
        assert loss(z, torch.tensor([0]), torch.tensor([7])).item() == 0.0
    another = loss(z, torch.tensor([0]), torch.tensor([8]))
    assert another.item() == pytest.approx(math.log(3))  # three equal positives, nothing else
    assert int(loss.stored) == 4


def test_pulling_a_subject_together_lowers_the_loss() -> None:
    subjects, samples = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    together = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    mixed = together[[0, 2, 1, 3]]
    assert ContrastiveLoss(2, 2)(together, subjects, samples) < ContrastiveLoss(2, 2)(mixed, subjects, samples)


def test_the_newest_vector_of_a_subject_outlives_the_queue() -> None:
    loss = ContrastiveLoss(3, 4, capacity=2)
    loss(torch.randn(1, 4), torch.tensor([0]), torch.tensor([0]))
    loss(torch.randn(2, 4), torch.tensor([1, 2]), torch.tensor([1, 2]))  # pushes subject 0 out of the queue
    assert loss.eval()(torch.randn(1, 4), torch.tensor([0]), torch.tensor([9])) > 0


def test_eval_stores_nothing_and_resuming_is_exact() -> None:
    torch.manual_seed(0)
    loss = ContrastiveLoss(4, 6, capacity=5)
    batches = [(torch.randn(4, 6), torch.randint(4, (4,)), torch.randint(9, (4,))) for _ in range(3)]
    for batch in batches:
        loss(*batch)
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    loss.eval()(*batches[0])
    for name, value in loss.state_dict().items():
        assert torch.equal(value, state[name]), name
    resumed = ContrastiveLoss(4, 6, capacity=5)
    resumed.load_state_dict(state)
    assert torch.equal(resumed.train()(*batches[1]), loss.train()(*batches[1]))


def test_contrastive_loss_keeps_float32_under_autocast() -> None:
    z, subjects, samples = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1]), torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ContrastiveLoss(2, 4)(z, subjects, samples)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, ContrastiveLoss(2, 4)(z, subjects, samples))


@pytest.mark.parametrize("wrong", [{"num_subjects": 0}, {"capacity": 0}, {"temperature": 0.0}])
def test_contrastive_loss_refuses_empty_sizes(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive sizes"):
        ContrastiveLoss(**{"num_subjects": 2, "embedding_size": 3, **wrong})  # type: ignore[arg-type]


def _one_of_two(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    z, subjects, samples = torch.load(folder / "batch.pt")
    mine = slice(0, 3) if rank == 0 else slice(3, 5)  # unequal shares, unequal numbers of anchors with a positive
    loss = ContrastiveLoss(3, 4)
    value = loss(z[mine], subjects[mine], samples[mine])
    torch.save((value, loss.state_dict()), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_processes_share_one_bank(tmp_path: Path) -> None:
    torch.manual_seed(1)
    # The fourth anchor has no positive: 3 and 1 count, so the processes' own means must not be averaged.
    z, subjects, samples = torch.randn(5, 4), torch.tensor([0, 0, 0, 2, 0]), torch.arange(5)
    torch.save((z, subjects, samples), tmp_path / "batch.pt")
    run_ranks(_one_of_two, tmp_path, folder=tmp_path / "printed")
    alone = ContrastiveLoss(3, 4)
    alone(z, subjects, samples)
    values = []
    for rank in range(2):
        value, state = torch.load(tmp_path / f"{rank}.pt")
        values.append(value)
        for name, tensor in alone.state_dict().items():
            torch.testing.assert_close(state[name], tensor)
    torch.testing.assert_close(torch.stack(values).mean(), alone.eval()(z, subjects, samples))
