"""What goes wrong at a server: failures that another try may mend, and refusals, which are explained."""

import contextlib
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from pydeper.errors import (
    InvalidArgumentError,
    PydeperError,
    VLLMAuthenticationError,
    VLLMError,
    VLLMIncompatibleError,
)
from pydeper.untrusted import parse_json, shown

OLDEST_VERSION = (0, 21)
"""The first minor version of vLLM that takes embeddings between the parts of a chat message."""

_MOST_WORDS = 300  # of a server's own message, in characters

_TOO_OLD = f"pydeper needs vLLM {OLDEST_VERSION[0]}.{OLDEST_VERSION[1]} or newer: upgrade the server"
_RETRIED = {
    429: "it has too many requests (429)",
    502: "its proxy could not reach it (502)",
    503: "it is not available (503)",
    504: "its proxy did not get an answer from it (504)",
}


class ServerFailedError(Exception):
    """A server, or the way to it, failed; the same request may succeed later or elsewhere.

    Attributes:
        retry_after: Seconds that the server asks to wait, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


def raise_for_status(address: str, status: int, retry_after: str | None, body: bytes) -> None:
    """Raises what an answer other than 200 means.

    Args:
        address: The server.
        status: The answer's status.
        retry_after: Its header of that name.
        body: The answer, or its beginning.

    Raises:
        ServerFailedError: Another try may succeed.
        PydeperError: None will; see `refusal`.
    """
    if status in _RETRIED:
        raise ServerFailedError(_RETRIED[status], _seconds(retry_after))
    if status != 200:
        raise refusal(address, status, _error_of(body))


def refusal(address: str, status: int | None, error: dict[str, Any]) -> PydeperError:
    """Returns the error that explains why a server refuses a request.

    Args:
        address: The server.
        status: The answer's status; None where the refusal came within a stream.
        error: What vLLM puts under `error`, or an empty dict.
    """
    words = str(error.get("message", ""))
    said = f'; it says: "{words[:_MOST_WORDS]}"' if words else ""
    if status in (401, 403):
        return VLLMAuthenticationError(
            f"{address}: refuses the API key, or wants one ({status}): set $PYDEPER_VLLM_API_KEY, or pass "
            "VLLMServers(..., api_key=...)"
        )
    if status in (301, 302, 303, 307, 308):
        return VLLMError(f"{address}: sends requests elsewhere ({status}): give the address that it points to")
    if "--enable-prompt-embeds" in words:
        return VLLMIncompatibleError(
            f"{address}: takes no embeddings: start vLLM with --enable-prompt-embeds, which is for clients that are "
            "trusted"
        )
    if found := re.search(r"hidden_size (\d+) does not match the model's hidden_size (\d+)", words):
        return VLLMIncompatibleError(
            f"{address}: serves a model of hidden size {found[2]}, and the bundle's soft tokens have {found[1]} "
            "numbers: serve the bundle's base model"
        )
    if re.search(r"max_model_len|maximum (context|model) length|longer than the maximum", words):
        return InvalidArgumentError(
            "the prompt and the description do not fit into the context of the vLLM server: use a smaller image or a "
            f"lower max_new_tokens, or start vLLM with a larger --max-model-len{said}"
        )
    if re.search(r"prompt_embeds", words):
        return VLLMIncompatibleError(f"{address}: does not take a soft token in a chat message; {_TOO_OLD}{said}")
    if re.search(r"At most 0 image|multimodal|multi-modal", words):
        return VLLMIncompatibleError(
            f"{address}: takes no images: serve the bundle's base model, without --limit-mm-per-prompt or "
            f"--language-model-only{said}"
        )
    if status == 404:
        return VLLMIncompatibleError(
            f"{address}: does not answer as vLLM's API does, or no longer serves the model (404): check the address, "
            f"which ends in /v1 as a rule{said}"
        )
    return VLLMError(f"{address}: refused the request{f' ({status})' if status else ''}{said}")


def check_version(address: str, version: str | None) -> None:
    """Refuses a server whose version says that it is too old; what says nothing, such as a build, passes.

    Raises:
        VLLMIncompatibleError: It is too old.
    """
    found = re.match(r"(\d+)\.(\d+)(?!.*dev)", version or "")
    if found and (int(found[1]), int(found[2])) < OLDEST_VERSION:
        raise VLLMIncompatibleError(f"{address}: is vLLM {shown(version)}, and {_TOO_OLD}")


def check_prompt(address: str, found: tuple[int, ...], expected: tuple[int | None, ...], image_token: int) -> None:
    """Refuses a server that reads a prompt as other tokens than the model was trained with.

    Args:
        address: The server.
        found: Its tokens of the prompt.
        expected: The model's; None in the soft token's place, for which the server has a placeholder of its own.
        image_token: The id that stands for one image token.

    Raises:
        VLLMIncompatibleError: They differ.
    """
    if len(found) == len(expected) and all(a == b or b is None for a, b in zip(found, expected, strict=True)):
        return
    theirs, ours = found.count(image_token), expected.count(image_token)
    if theirs != ours and theirs > 0:
        raise VLLMIncompatibleError(
            f"{address}: takes an image as {theirs} tokens, and the bundle's model as {ours}: start vLLM with limits "
            "that hold every size of the bundle's images (--mm-processor-kwargs, min_pixels and max_pixels)"
        )
    place = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if b not in (a, None)), None)
    where = f"they differ from token {place + 1} on" if place is not None else f"{len(found)} and {len(expected)}"
    raise VLLMIncompatibleError(
        f"{address}: reads the prompt as other tokens than the bundle's model ({where}): serve the bundle's base model "
        "with the tokenizer and the chat template that come with it"
    )


def _error_of(body: bytes) -> dict[str, Any]:
    with contextlib.suppress(ServerFailedError):
        match parse_json(body, ServerFailedError):
            case {"error": dict(error)}:
                return error
            case {"error": str(message)} | {"message": str(message)} | {"detail": str(message)}:
                return {"message": message}
    return {}


def _seconds(retry_after: str | None) -> float | None:
    """Returns what a Retry-After header asks to wait; it holds seconds, or the time when to come back."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\d{1,9}", retry_after.strip()):
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None
