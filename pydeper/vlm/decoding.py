"""From logits to text: options, the choice of the next token, and text that grows token by token."""

import math
import numbers
from collections.abc import Callable
from typing import cast

import attrs
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pydeper.errors import InvalidArgumentError


def _whole_number(name: str, value: object, least: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise InvalidArgumentError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _number(name: str, value: object, holds: Callable[[float], bool], demand: str) -> None:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not holds(cast(float, value)):
        raise InvalidArgumentError(f"{name} must be {demand}, got {value!r}")


@attrs.frozen(kw_only=True)
class DecodingOptions:
    """How a description is decoded; checks itself.

    Attributes:
        max_new_tokens: Longest description, in tokens; at least 1.
        temperature: 0 takes the likeliest token (greedy); above 0 samples, the more freely the higher.
        top_p: Sampling only: keep the likeliest tokens whose probabilities reach this sum, in (0, 1].
        seed: Sampling only: makes it reproducible. Every description starts a generator of its own from it, so one
            decoded in a batch equals the same one decoded alone.
        strength: 0 is the model without a persona, 1 the persona as trained, above 1 an exaggeration.

    Raises:
        InvalidArgumentError: A value is outside its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    strength: float = 1.0

    def __attrs_post_init__(self) -> None:
        _whole_number("max_new_tokens", self.max_new_tokens, 1)
        _number("temperature", self.temperature, lambda t: t >= 0, "0 (greedy) or more, and finite")
        _number("top_p", self.top_p, lambda p: 0 < p <= 1, "in (0, 1]")
        _number("strength", self.strength, lambda s: s >= 0, "0 (no persona) or more, and finite")
        if self.seed is not None:
            _whole_number("seed", self.seed, 0)


def guide(
    persona_logits: npt.NDArray[np.floating], plain_logits: npt.NDArray[np.floating], strength: float
) -> npt.NDArray[np.float64]:
    """Moves from the plain model's log-probabilities towards the persona's, by `strength` and beyond.

    Args:
        persona_logits: (B, V).
        plain_logits: (B, V).
        strength: 0 gives the plain ones, 1 the persona's.

    Returns:
        (B, V) unnormalised log-probabilities: plain + strength * (persona - plain).
    """
    persona, plain = _log_softmax(persona_logits), _log_softmax(plain_logits)
    return plain + strength * (persona - plain)


class TokenChooser:
    """Chooses the next token of each row of a batch; suppressed tokens are never chosen.

    Holds one random generator a row, so it serves one batch, once.
    """

    def __init__(self, rows: int, options: DecodingOptions, suppressed: tuple[int, ...]) -> None:
        self._options = options
        self._suppressed = list(suppressed)
        self._generators = [np.random.default_rng(options.seed) for _ in range(rows)]

    def choose(self, logits: npt.NDArray[np.floating], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """Returns (R,) token ids.

        Args:
            logits: (R, V), not changed.
            rows: (R,) which rows of the batch these are.
        """
        logits = logits.astype(np.float64)
        logits[:, self._suppressed] = -np.inf
        if self._options.temperature == 0:
            return np.asarray(logits.argmax(axis=-1), dtype=np.int64)
        return np.array([self._sample(row, self._generators[i]) for row, i in zip(logits, rows, strict=True)])

    def _sample(self, logits: npt.NDArray[np.float64], generator: np.random.Generator) -> int:
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the likeliest to -inf, as it should
            probabilities = np.exp((logits - logits.max()) / self._options.temperature)
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities, kind="stable")
        cumulative = np.cumsum(probabilities[order])
        kept = int(np.searchsorted(cumulative, self._options.top_p * cumulative[-1])) + 1
        # Drawing below the kept sum renormalises; a token of probability 0 spans nothing and is never drawn.
        drawn = generator.random() * cumulative[kept - 1]
        return int(order[np.searchsorted(cumulative, drawn, side="right")])


class IncrementalText:
    """Turns tokens into text piece by piece; a piece never ends inside a UTF-8 character.

    The pieces and `finish()` joined are `tokenizer.decode` of all tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._emitted = 0

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is now sure, perhaps empty."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        # A replacement character at the end may be the first bytes of a character still to come.
        return "" if text.endswith("\ufffd") else self._advance(text)

    def finish(self) -> str:
        """Returns what was held back."""
        return self._advance(self._tokenizer.decode(self._ids))

    def _advance(self, text: str) -> str:
        piece, self._emitted = text[self._emitted :], len(text)
        return piece


def _log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
