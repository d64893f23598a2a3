"""L_con: a person's subject embeddings are pulled together, others' pushed away (paper, "Losses and training")."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.distributed.collectives import all_gather_rows, all_reduce_mean


class ContrastiveLoss(nn.Module):
    """L_con: supervised contrastive loss of z_s against a memory bank.

    For an anchor i with keys A(i) and positives P(i), the keys of the same subject:
        -1/|P(i)| · Σ_{p ∈ P(i)} log( exp(z_i·k_p / t) / Σ_{a ∈ A(i)} exp(z_i·k_a / t) ),
    averaged over the anchors that have a positive; zero, with a gradient path, where none has. Where several ranks
    train, the mean of their losses is that average over the anchors of all.

    The bank is the union of the newest vector of every subject and a FIFO of the latest `capacity` vectors, normalised
    and detached. A training step first stores its batch (of all ranks, where torch.distributed runs), then
    compares, so that batch mates are keys too. Entries of the anchor's own sample, whenever they were stored, are
    neither its positives nor its negatives. In eval mode nothing is stored. `state_dict` holds the whole bank.

    Args:
        num_subjects: Subjects are 0 … num_subjects - 1.
        embedding_size: The numbers in z_s.
        capacity: Length of the FIFO.
        temperature: t.
    """

    newest: Tensor
    newest_sample: Tensor
    newest_turn: Tensor
    queue: Tensor
    queue_subject: Tensor
    queue_sample: Tensor
    stored: Tensor

    def __init__(self, num_subjects: int, embedding_size: int, capacity: int = 4096, temperature: float = 0.07) -> None:
        super().__init__()
        if min(num_subjects, embedding_size, capacity) < 1 or temperature <= 0:
            raise ValueError(
                f"ContrastiveLoss needs positive sizes and temperature, not {num_subjects=}, {embedding_size=}, "
                f"{capacity=}, {temperature=}"
            )
        self.capacity = capacity
        self.temperature = temperature
        self.register_buffer("newest", torch.zeros(num_subjects, embedding_size))
        self.register_buffer("newest_sample", torch.full((num_subjects,), -1))
        self.register_buffer("newest_turn", torch.full((num_subjects,), -1))  # its number among all ever stored
        self.register_buffer("queue", torch.zeros(capacity, embedding_size))
        self.register_buffer("queue_subject", torch.full((capacity,), -1))
        self.register_buffer("queue_sample", torch.full((capacity,), -1))
        self.register_buffer("stored", torch.tensor(0))

    def forward(self, subject_embedding: Tensor, subjects: Tensor, samples: Tensor) -> Tensor:
        """Computes the loss, and in training mode stores the batch.

        Args:
            subject_embedding: (B, embedding_size) z_s.
            subjects: (B,) int64.
            samples: (B,) int64, an identity of each sample in the data set, such as its index.

        Returns:
            () in at least float32, also under autocast.
        """
        with torch.autocast(subject_embedding.device.type, enabled=False):
            anchors = F.normalize(subject_embedding.to(self.queue.dtype), dim=-1)
            if self.training:
                self._store(*(all_gather_rows(x) for x in (anchors.detach(), subjects, samples)))
            keys, key_subjects, key_samples = self._bank()
            allowed = (key_subjects >= 0) & (key_samples != samples[:, None])
            positive = allowed & (key_subjects == subjects[:, None])
            losses, counted = _anchor_losses(anchors @ keys.T / self.temperature, allowed, positive)
            if self.training:
                counted = all_reduce_mean(counted)
            return losses.sum() / torch.where(counted > 0, counted, 1)

    def _bank(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, their subjects (-1: no key) and samples; every stored vector once."""
        subject = torch.arange(len(self.newest), device=self.newest.device)
        # The FIFO holds the latest turns without a gap, so an older one is a subject's only trace.
        outside_queue = (self.newest_turn >= 0) & (self.newest_turn < self.stored - self.capacity)
        return (
            torch.cat((self.newest, self.queue)),
            torch.cat((subject.where(outside_queue, -1), self.queue_subject)),
            torch.cat((self.newest_sample, self.queue_sample)),
        )

    @torch.no_grad()
    def _store(self, vectors: Tensor, subjects: Tensor, samples: Tensor) -> None:
        turns = self.stored + torch.arange(len(vectors), device=vectors.device)
        self.newest_turn.scatter_reduce_(0, subjects, turns, "amax")
        is_newest = self.newest_turn[subjects] == turns
        self.newest[subjects[is_newest]] = vectors[is_newest]
        self.newest_sample[subjects[is_newest]] = samples[is_newest]
        slots = turns[-self.capacity :] % self.capacity
        self.queue[slots] = vectors[-self.capacity :]
        self.queue_subject[slots] = subjects[-self.capacity :]
        self.queue_sample[slots] = samples[-self.capacity :]
        self.stored += len(vectors)


def batch_contrastive_loss(subject_embedding: Tensor, subjects: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of `ContrastiveLoss` with the rest of the batch as keys, and no bank.

    Args:
        subject_embedding: (B, embedding_size) z_s.
        subjects: (B,) int64.
        temperature: t.

    Returns:
        () in at least float32; zero, with a gradient path, where no anchor has a positive.
    """
    with torch.autocast(subject_embedding.device.type, enabled=False):
        vectors = F.normalize(subject_embedding.to(torch.promote_types(subject_embedding.dtype, torch.float32)), dim=-1)
        others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        positive = others & (subjects == subjects[:, None])
        losses, counted = _anchor_losses(vectors @ vectors.T / temperature, others, positive)
        return losses.sum() / counted.clamp(min=1)


def _anchor_losses(logits: Tensor, allowed: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """The contrastive loss of each anchor, 0 where it has no positive, and () how many anchors have one.

    Args:
        logits: (B, K) similarities of anchors and keys, by the temperature.
        allowed: (B, K) bool, A(i).
        positive: (B, K) bool, P(i), within `allowed`.
    """
    # Finite, so that an anchor without any key yields a number to be ignored, not a NaN.
    log_p = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min / 2).log_softmax(-1)
    count = positive.sum(-1)
    return -(log_p * positive).sum(-1) / count.clamp(min=1), (count > 0).sum().to(logits.dtype)
