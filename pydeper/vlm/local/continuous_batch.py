"""Rows that are decoded in the same passes, and that join and leave between them (continuous batching).

After Yu et al. 2022, "Orca: A Distributed Serving System for Transformer-Based Generative Models", section 3.
"""

from collections.abc import Callable, Iterator, Sequence

import attrs
import numpy as np

from pydeper.vlm.decoding import DecodingOptions, Token, TokenChooser, guide
from pydeper.vlm.local.decoder import Decoder, Floats, KVCache
from pydeper.vlm.local.embeddings import Embed


@attrs.frozen(eq=False)
class Begun:
    """A prompt that has been computed.

    Attributes:
        logits: (V,) of the first token.
        cache: Of one row.
    """

    logits: Floats
    cache: KVCache


@attrs.define(eq=False)
class _Running:
    options: DecodingOptions
    left: int  # tokens that it may still have


# A row of the decoder: a row of the batch, and which of its prompts.
_Slot = tuple[int, int]


@attrs.define(eq=False)
class _Pass:
    """Rows of the decoder in one cache, so that one run computes a token of each.

    Attributes:
        cache: Theirs.
        slots: Whose they are.
        logits: (rows, V) of the next token.
    """

    cache: KVCache
    slots: list[_Slot]
    logits: Floats


class ContinuousBatch:
    """A batch of rows. A row has one prompt, or two: with the persona and without, where it is guided by both."""

    def __init__(self, decoder: Decoder, embed: Embed, *, suppressed: tuple[int, ...], ends: Sequence[int]) -> None:
        """Makes an empty batch.

        Args:
            decoder: Of the model.
            embed: Of the model.
            suppressed: Tokens that are never chosen.
            ends: Tokens that end a description.
        """
        self._decoder, self._embed, self._ends = decoder, embed, frozenset(ends)
        self._chooser = TokenChooser(suppressed)
        self._rows: dict[int, _Running] = {}
        self._passes: list[_Pass] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: int, prompts: Sequence[Begun], limit: int, options: DecodingOptions) -> None:
        """Adds a row.

        Args:
            row: A number that no other row has had.
            prompts: One; or the persona's and the plain one, which `options.strength` stands between.
            limit: The most tokens that it may have, for which its caches have room.
            options: How to decode it.
        """
        for number, prompt in enumerate(prompts):
            slot = (row, number)
            for known in self._passes:
                if known.cache.joins(prompt.cache):
                    known.cache.join(prompt.cache)
                    known.slots.append(slot)
                    known.logits = np.concatenate([known.logits, prompt.logits[None]])
                    break
            else:
                self._passes.append(_Pass(prompt.cache, [slot], prompt.logits[None]))
        self._chooser.add(row, options)
        self._rows[row] = _Running(options, limit)

    def step(self, wanted: Callable[[int], bool]) -> Iterator[tuple[int, Token]]:
        """Chooses the next token of every row, and computes what follows; a row that ends leaves the batch.

        Yields:
            (row, token) and, at the end of a row, (row, "stop") or (row, "length").
        """
        numbers = list(self._rows)
        tokens = dict(zip(numbers, self._chooser.choose(self._scores(numbers), numbers), strict=True))
        for row, token in tokens.items():
            running = self._rows[row]
            running.left -= 1
            stopped = token in self._ends or not wanted(row)
            if not stopped:
                yield row, token
            if stopped or not running.left:
                yield row, "stop" if stopped else "length"
                del self._rows[row]
                self._chooser.drop(row)
        self._drop_ended()
        for each in self._passes:
            following = self._embed([tokens[row] for row, _ in each.slots])
            each.logits = self._decoder.extend(each.cache, following[:, None])

    def _scores(self, numbers: Sequence[int]) -> Floats:
        """Returns (R, V): the logits of these rows, guided where they have two prompts."""
        found = {slot: logits for each in self._passes for slot, logits in zip(each.slots, each.logits, strict=True)}
        return np.stack(
            [
                guide(found[row, 0], found[row, 1], self._rows[row].options.strength)
                if (row, 1) in found
                else found[row, 0]
                for row in numbers
            ]
        )

    def _drop_ended(self) -> None:
        for each in self._passes:
            kept = np.array([row in self._rows for row, _ in each.slots])
            if kept.any() and not kept.all():
                each.cache.keep(kept)
            each.slots = [slot for slot in each.slots if slot[0] in self._rows]
        self._passes = [each for each in self._passes if each.slots]
