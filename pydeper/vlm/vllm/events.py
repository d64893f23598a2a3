"""The server-sent events of a streamed chat completion."""

from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Literal

import attrs

from pydeper.untrusted import parse_json, shown
from pydeper.vlm.vllm.failures import ServerFailedError

_LONGEST_LINE = 16 * 1024 * 1024  # the first event repeats the prompt's token ids, of which there are thousands
_DONE = b"[DONE]"


@attrs.frozen
class Tokens:
    """What an event, or several, say of a description.

    Attributes:
        ids: New tokens, which may include the end token.
        finish_reason: Why there are no more; None where there may be.
        prompt_ids: The server's tokens of the prompt, which the first event holds.
        error: The server's own words for what went wrong, or None.
    """

    ids: tuple[int, ...] = ()
    finish_reason: Literal["stop", "length"] | None = None
    prompt_ids: tuple[int, ...] | None = None
    error: dict[str, Any] | None = None


async def read_events(chunks: AsyncIterable[bytes]) -> AsyncGenerator[Tokens, None]:
    """Yields the events of a stream.

    Args:
        chunks: The body of the answer, cut anywhere.

    Raises:
        ServerFailedError: An event is malformed, or the stream ends before the description does.
    """
    finished = done = False
    async for line in _lines(chunks):
        name, _, value = line.partition(b":")
        # Comments keep a connection open. What follows the end is read as well: only then can it be used again.
        if name != b"data" or done:
            continue
        if done := value.strip() == _DONE:
            continue
        tokens = _parse(value)
        finished = finished or tokens.finish_reason is not None or tokens.error is not None
        yield tokens
    if not finished:
        raise ServerFailedError("its answer broke off before the description was complete")


async def _lines(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yields complete lines; only these end an event, not the other marks that Unicode counts as line breaks."""
    rest = bytearray()
    async for chunk in chunks:
        rest += chunk
        *lines, last = rest.split(b"\n")
        for line in lines:
            yield bytes(line.removesuffix(b"\r"))
        rest = bytearray(last)
        if len(rest) > _LONGEST_LINE:
            raise ServerFailedError(f"it sent an event of more than {_LONGEST_LINE} bytes")


def _parse(data: bytes) -> Tokens:
    try:
        event = parse_json(data, ServerFailedError)
        match event:
            case {"error": dict(error)}:
                return Tokens(error=error)
            case {"choices": [{"finish_reason": reason} as choice, *_]}:
                ids, prompt_ids = _token_ids(choice.get("token_ids")), _token_ids(event.get("prompt_token_ids"))
            case {"choices": []}:  # what some servers send at the end, to say what was used
                return Tokens()
            case _:
                raise ServerFailedError(shown(event))
    except ServerFailedError as error:
        raise ServerFailedError(f"it sent a malformed event: {error}") from None
    if reason not in ("stop", "length", None):
        raise ServerFailedError(f"it ended the description for another reason: {shown(reason)}")
    return Tokens(ids or (), reason, prompt_ids)


def _token_ids(value: object) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise ServerFailedError(f"token ids {shown(value)}")
    return tuple(value)
