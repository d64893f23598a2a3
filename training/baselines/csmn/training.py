"""CSMN's training: the cross-entropy of people's own words, each predicted from the true words before it."""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.baselines.csmn.network import CSMN
from training.baselines.word_vocabulary import EOS, GO, PAD
from training.config import CSMNConfig
from training.data.sampling import batch_rows
from training.distributed.device import device_of


@attrs.frozen(eq=False)
class Examples:
    """Texts that the network learns to write, or is measured on.

    Attributes:
        images: (n, C) feature of each text's image.
        contexts: (n, words) user context of each text's author.
        texts: n lists of the numbers of words, without special ones.
    """

    images: Tensor
    contexts: Tensor
    texts: Sequence[Sequence[int]]

    def __len__(self) -> int:
        return len(self.texts)


class CSMNTask:
    """What the training loop needs to know of CSMN.

    Args:
        network: Is trained.
        config: Settings of the optimiser.
        training: At least one example.
        validation: Examples to choose the step by.
        seed: Seed of the batches.
    """

    name = "CSMN"

    def __init__(self, network: CSMN, config: CSMNConfig, training: Examples, validation: Examples, seed: int) -> None:
        self.state: nn.Module = network
        self._network, self._config, self._seed = network, config, seed
        self._training, self._validation = training, validation
        self._lengths = np.array([len(text) for text in training.texts])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See `training.loop.train.Task`."""
        return [{"params": list(self.state.parameters()), "lr": self._config.learning_rate}]

    def losses(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        """See `training.loop.train.Task`."""
        config, number = self._config, step * self._config.accumulation + micro_batch
        size, lengths = config.batch_size, self._lengths
        rows = batch_rows(len(lengths), size, self._seed, number, lengths=lengths, bucket=config.bucket)
        total, count = self._cross_entropy(self._training, rows)
        return {"loss": total / count}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The mean cross-entropy of a word of the validation examples."""
        total, words = 0.0, 0
        size = self._config.batch_size
        for start in range(0, len(self._validation), size):
            rows = np.arange(start, min(start + size, len(self._validation)))
            entropy, count = self._cross_entropy(self._validation, rows)
            total, words = total + float(entropy), words + count
        return {"loss": total / words}

    def _cross_entropy(self, examples: Examples, rows: np.ndarray) -> tuple[Tensor, int]:
        """The sum over the words of some examples, and how many words they are."""
        device, limit = device_of(self.state), self._network.max_words
        texts = [[GO, *examples.texts[row], EOS][: limit + 1] for row in rows]
        words = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], True, PAD).to(device)
        before, after = words[:, :-1], words[:, 1:]
        # The input has no end; where a text is shorter than the batch, its own end would be an input.
        before = before.masked_fill(before == EOS, PAD)
        logits = self._network(examples.images[rows].to(device), examples.contexts[rows].to(device), before)
        total = F.cross_entropy(logits.flatten(0, 1), after.flatten(), ignore_index=PAD, reduction="sum")
        return total, int((after != PAD).sum())
