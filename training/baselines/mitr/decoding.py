"""Greedy decoding: at every step a word, and the box that is read with it at the next one."""

import torch
from torch import Tensor

from training.baselines.mitr.attention import KeyValueCache
from training.baselines.mitr.network import MITR, with_area
from training.baselines.word_vocabulary import EOS, GO, PAD, UNK, Vocabulary
from training.distributed.device import device_of

_FORBIDDEN = [PAD, GO, UNK]


@torch.no_grad()
def greedy(network: MITR, image_tokens: Tensor, vocabulary: Vocabulary, max_words: int) -> list[str]:
    """Describes images, given nothing else: predicted boxes are fed back with the words.

    Unknown words are never chosen (ours): they are no words that anybody said.

    Args:
        network: In eval mode.
        image_tokens: (B, G·G, C)
        vocabulary: Of the network's words.
        max_words: The most words of a description.

    Returns:
        B texts.
    """
    memory = network.image_encoder(image_tokens.to(device_of(network)))
    words = torch.full((len(memory), 1), GO, device=memory.device)
    boxes = memory.new_zeros(len(memory), 1, 5)
    cache: KeyValueCache = {}
    chosen: list[Tensor] = []
    ended = torch.zeros_like(words, dtype=torch.bool)
    for place in range(max_words):
        output = network(memory, words, boxes, start=place, cache=cache)
        logits = output.word_logits
        logits[..., _FORBIDDEN] = -torch.inf
        words, boxes = logits.argmax(-1), with_area(output.boxes)
        ended |= words == EOS
        if ended.all():
            break
        chosen.append(words.masked_fill(ended, PAD))
    rows = torch.cat(chosen, dim=1).tolist() if chosen else [[] for _ in memory]
    return [vocabulary.decode(row) for row in rows]
