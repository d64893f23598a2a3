"""CSMN writes: the likeliest next word, again and again."""

import torch
from torch import Tensor

from training.baselines.csmn.network import CSMN
from training.baselines.word_vocabulary import EOS, GO, PAD, UNK

_FORBIDDEN = [PAD, GO, UNK]


@torch.no_grad()
def greedy(network: CSMN, images: Tensor, contexts: Tensor) -> list[list[int]]:
    """The likeliest words, never `UNK`, until `EOS` or the network's `max_words`.

    Args:
        network: In eval mode.
        images: (B, C) features of the images, on the network's device.
        contexts: (B, n) user contexts, on the network's device.

    Returns:
        B lists of the numbers of words, without `EOS`.
    """
    image, user = network.image(images), network.user(contexts)
    last = torch.full((len(images), 1), GO, device=images.device)
    written, goes_on = network.written(last), torch.ones(len(images), dtype=torch.bool, device=images.device)
    texts: list[list[int]] = [[] for _ in images]
    for step in range(network.max_words):
        if step:
            written = written.followed_by(network.written(last))
        logits = network.read(image, user, written, network.queries(last))[:, -1]
        logits[:, _FORBIDDEN] = -torch.inf
        last = logits.argmax(-1, keepdim=True)
        goes_on &= last[:, 0] != EOS
        if not goes_on.any():
            break
        for text, word, unfinished in zip(texts, last[:, 0].tolist(), goes_on.tolist(), strict=True):
            if unfinished:
                text.append(word)
    return texts
