"""From logits to text: options, the choice of the next token, and text that grows token by token."""

import math
import numbers
import re
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, cast

import attrs
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from pydeper.errors import InvalidArgumentError, PydeperError

_REPLACEMENT = "\ufffd"
_BYTE_FALLBACK = re.compile("<0x[0-9A-F]{2}>")


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
        repetition_penalty: 1 is none; above 1 makes the tokens that the description already holds less likely
            (Keskar et al. 2019, CTRL, section 4.1).
        seed: Sampling only: makes it reproducible. Every description starts a generator of its own from it, so one
            decoded in a batch draws as it does alone. (With 4- and 8-bit weights, whose sums differ in the last bit
            between a batch and a single row, near ties can still fall otherwise.)
        strength: 0 is the model without a persona, 1 the persona as trained, above 1 an exaggeration.

    Raises:
        InvalidArgumentError: A value is outside its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    strength: float = 1.0

    def __attrs_post_init__(self) -> None:
        _whole_number("max_new_tokens", self.max_new_tokens, 1)
        _number("temperature", self.temperature, lambda t: t >= 0, "0 (greedy) or more, and finite")
        _number("top_p", self.top_p, lambda p: 0 < p <= 1, "in (0, 1]")
        _number("repetition_penalty", self.repetition_penalty, lambda p: p >= 1, "1 (none) or more, and finite")
        _number("strength", self.strength, lambda s: s >= 0, "0 (no persona) or more, and finite")
        if self.seed is not None:
            _whole_number("seed", self.seed, 0)


def guide(
    persona_logits: npt.NDArray[np.floating], plain_logits: npt.NDArray[np.floating], strength: float
) -> npt.NDArray[np.float32]:
    """Moves from the plain model's log-probabilities towards the persona's, by `strength` and beyond.

    Args:
        persona_logits: (B, V).
        plain_logits: (B, V).
        strength: 0 gives the plain ones, 1 the persona's.

    Returns:
        (B, V) unnormalised log-probabilities, a new array: plain + strength * (persona - plain).
    """
    persona, plain = _log_softmax(persona_logits), _log_softmax(plain_logits)
    persona -= plain
    persona *= min(strength, 1e30)  # beyond, `plain` has long vanished beside it, and float32 would overflow
    persona += plain
    return persona


class TokenChooser:
    """Chooses the next token of each row of a batch; suppressed tokens are never chosen.

    The logits are changed as transformers' processors do, in their order: the repetition penalty, then suppression,
    then, for sampling, the temperature and top-p. The penalty is over the row's generated tokens alone. transformers
    counts the prompt in, but here the prompt is the same few words for every image and persona, and says what is asked
    ("a description of this photo"), not what has been said: a description may well use the word "photo".

    What is kept for a row, its options, its random generator and its tokens so far, goes by the row's number, so rows
    may come, end, or be left out of a step, in any order.
    """

    def __init__(self, suppressed: tuple[int, ...]) -> None:
        self._suppressed = np.array(suppressed, dtype=np.intp)
        self._rows: dict[int, _RowState] = {}

    def add(self, row: int, options: DecodingOptions) -> None:
        """Begins a row, to be decoded so."""
        self._rows[row] = _RowState(options, np.random.default_rng(options.seed))

    def drop(self, row: int) -> None:
        """Forgets a row."""
        del self._rows[row]

    def choose(self, logits: npt.NDArray[np.floating], rows: Sequence[int]) -> list[int]:
        """Returns R token ids.

        Args:
            logits: (R, V), handed over: they are changed in place where the array may be written to.
            rows: R numbers of rows.

        Raises:
            PydeperError: The logits hold NaN or infinity.
        """
        logits = np.require(logits, requirements="W")
        states = [self._rows[row] for row in rows]
        for scores, state in zip(logits, states, strict=True):
            if state.options.repetition_penalty != 1:
                _penalise(scores, list(state.chosen), state.options.repetition_penalty)
        logits[:, self._suppressed] = -np.inf
        likeliest = logits.argmax(axis=-1)
        _check_numbers(logits[np.arange(len(logits)), likeliest])
        tokens: list[int] = likeliest.tolist()
        for place, state in enumerate(states):
            if state.options.temperature != 0:
                tokens[place] = state.sample(logits[place])
            state.chosen[tokens[place]] = None
        return tokens


@attrs.frozen(eq=False)
class _RowState:
    options: DecodingOptions
    generator: np.random.Generator
    chosen: dict[int, None] = attrs.field(factory=dict, init=False)  # its tokens so far, as a set in their order

    def sample(self, logits: npt.NDArray[np.floating]) -> int:
        tokens, probabilities = nucleus(logits, self.options.temperature, self.options.top_p)
        cumulative = np.cumsum(probabilities)
        # Drawing below the whole sum renormalises; a token of probability 0 spans nothing and is never drawn.
        drawn = self.generator.random() * cumulative[-1]
        return int(tokens[np.searchsorted(cumulative, drawn, side="right")])


def nucleus(
    logits: npt.NDArray[np.floating], temperature: float, top_p: float
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Returns the tokens that sampling draws from (Holtzman et al. 2020, the nucleus).

    Args:
        logits: (V,), not changed.
        temperature: Above 0; divides the logits.
        top_p: In (0, 1]: the fewest of the likeliest tokens whose probabilities reach this sum; of equals, those
            with the lower ids. 1 keeps all.

    Returns:
        (K,) token ids, and their (K,) probabilities, which sum to `top_p` or a little more.
    """
    limits = np.finfo(np.float32)
    divisor = min(max(temperature, float(limits.tiny)), float(limits.max))
    scaled = np.subtract(logits, logits.max(), dtype=np.float32)
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the likeliest to -inf, as it should
        scaled /= divisor
    probabilities = np.exp(scaled, out=scaled)
    total = probabilities.sum(dtype=np.float64)
    # Sorting a vocabulary costs more than all the rest. Tokens this unlikely sum to less than half of what top-p
    # leaves out even if they are all there are, so leaving them unsorted changes nothing.
    unlikely = (1 - top_p) / 2 * total / len(probabilities)
    tokens = np.flatnonzero(probabilities > unlikely)
    kept = np.divide(probabilities[tokens], total, dtype=np.float64)
    if top_p == 1:
        return tokens, kept
    order = np.argsort(-kept, kind="stable")
    reached = int(np.searchsorted(np.cumsum(kept[order]), top_p)) + 1
    return tokens[order[:reached]], kept[order[:reached]]


class IncrementalText:
    """Turns tokens into text piece by piece; a piece never ends inside a UTF-8 character.

    The pieces and `finish()` joined are exactly `tokenizer.decode` of all tokens, whatever bytes they hold, for
    tokenizers that work on bytes (as Qwen's) or fall back to them (as Llama's). A token costs the same however long the
    text is. (`tokenizers.decoders.DecodeStream` never gives out what is left at the end, and bytes that are no
    UTF-8 keep it from giving out anything until they are over.)
    """

    # No token is shorter than a byte, and whether a character is unfinished shows in the last three bytes.
    _CONTEXT = 4

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self._window: list[int] = []
        self._emitted = 0  # characters of the window's text

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is now sure, perhaps empty."""
        spelled = self._tokenizer.id_to_token(token)
        if spelled is None or token in self._special:  # decoding passes over these
            return ""
        self._window.append(token)
        # Byte fallback decodes a run of bytes as a whole: one bad byte at its end changes the text of all.
        if _BYTE_FALLBACK.fullmatch(spelled):
            return ""
        piece = self._advance(self._sure_text())
        del self._window[: -self._CONTEXT]
        self._emitted = len(self._sure_text())
        return piece

    def finish(self) -> str:
        """Returns what was held back."""
        return self._advance(self._tokenizer.decode(self._window))

    def _sure_text(self) -> str:
        # An unfinished character at the end decodes to one replacement character, which more bytes may change.
        return self._tokenizer.decode(self._window).removesuffix(_REPLACEMENT)

    def _advance(self, text: str) -> str:
        piece, self._emitted = text[self._emitted :], len(text)
        return piece


def every_row(row: int) -> bool:
    """Says that a row of a batch is still wanted."""
    return True


Token = int | Literal["stop", "length"] | PydeperError
"""What a row of a batch comes to next: a token, its end by itself or by a limit, or an error that ends it."""


def pieces_of_rows(
    steps: Iterator[tuple[int, Token]], tokenizer: Tokenizer
) -> Iterator[tuple[int, str | PydeperError | None]]:
    """Turns the tokens that rows of a batch choose into text.

    Args:
        steps: (row, token) as tokens are chosen, and what ends a row, once for every row.
        tokenizer: Of the model.

    Yields:
        (row, piece) as pieces are sure; and once for every row, at its end, (row, None) or (row, what went wrong).
    """
    texts: dict[int, IncrementalText] = defaultdict(lambda: IncrementalText(tokenizer))
    for row, token in steps:
        if isinstance(token, int):
            if piece := texts[row].push(token):
                yield row, piece
        elif isinstance(token, PydeperError):
            texts.pop(row, None)
            yield row, token
        else:
            if rest := texts.pop(row).finish() if row in texts else "":
                yield row, rest
            yield row, None


def only_row(pieces: Iterator[tuple[int, str | PydeperError | None]]) -> Generator[str, None, None]:
    """Yields the pieces of a batch of one row.

    Raises:
        PydeperError: The row failed.
    """
    for _, piece in pieces:
        if isinstance(piece, PydeperError):
            raise piece
        if piece is not None:
            yield piece


def _log_softmax(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    shifted: npt.NDArray[np.float32] = np.subtract(logits, logits.max(axis=-1, keepdims=True), dtype=np.float32)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def _penalise(logits: npt.NDArray[np.floating], tokens: list[int], penalty: float) -> None:
    found = logits[tokens].astype(np.float64)
    with np.errstate(over="ignore"):  # to minus infinity, as it should
        logits[tokens] = np.where(found < 0, found * penalty, found / penalty)


def _check_numbers(largest: npt.NDArray[np.floating]) -> None:
    # NaN counts as the largest of all, so the largest of each row tells of any.
    if not np.isfinite(largest).all():
        raise PydeperError(
            "the model's output holds NaN or infinity, as half precision gives where its range is left: load the "
            "model with another `precision`, or on another `device`"
        )
