"""Everything that goes wrong, as a client reads it: problem details (RFC 9457) with a cause and a remedy."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from pydeper.errors import (
    IncompatiblePersonaError,
    InvalidArgumentError,
    InvalidImageError,
    InvalidSampleError,
    PersonaError,
    PydeperError,
)
from pydeper.runtime.memory import OutOfMemoryError

MEDIA_TYPE = "application/problem+json"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What was wrong, and what to do about it (RFC 9457).",
    "required": ["type", "title", "status", "detail", "remedy"],
    "properties": {
        "type": {"type": "string", "description": "names the kind of problem, as in urn:pydeper:problem:queue-full"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "the cause"},
        "remedy": {"type": "string", "description": "what to do"},
        "errors": {
            "type": "array",
            "description": "the fields of the request that are wrong, where there are any",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}
"""The JSON Schema of an answer."""

KINDS: dict[str, tuple[int, str]] = {
    "invalid-request": (422, "The request does not hold what it should"),
    "unreadable-image": (422, "The image cannot be read"),
    "invalid-samples": (422, "The samples do not hold what their format promises"),
    "invalid-persona": (422, "The persona cannot be used"),
    "wrong-content-type": (415, "The body is of another type"),
    "too-large": (413, "The request is too large"),
    "upload-too-slow": (408, "The request did not arrive in time"),
    "no-key": (401, "An API key is needed"),
    "forbidden-origin": (403, "The request comes from another site"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "There is no such method here"),
    "too-many-personas": (409, "There are as many personas as a tenant may have"),
    "queue-full": (429, "Too many requests are waiting"),
    "deadline": (504, "The description was not ready in time"),
    "out-of-memory": (503, "Memory ran out"),
    "model-unavailable": (503, "The model cannot be reached"),
    "store-unavailable": (503, "The database cannot be reached"),
    "store-full": (507, "The database is full"),
    "failure": (500, "Something failed inside the gateway"),
}
"""Every kind of problem: its status and its title."""

_AGAIN = "try again after the seconds that Retry-After says"
_OF_ERRORS: dict[type[PydeperError], tuple[str, str]] = {
    InvalidImageError: ("unreadable-image", "send a whole PNG, JPEG or WebP file"),
    InvalidSampleError: ("invalid-samples", "correct the sample that the detail names"),
    IncompatiblePersonaError: ("invalid-persona", "make the persona anew with this gateway's model"),
    PersonaError: ("invalid-persona", "send a file that Persona.save wrote"),
    InvalidArgumentError: ("invalid-request", "change the option that the detail names"),
    OutOfMemoryError: ("out-of-memory", f"send a smaller image, or {_AGAIN}"),
    PydeperError: ("model-unavailable", _AGAIN),
}


class Problem(Exception):  # noqa: N818 - the standard's word
    """A request that cannot be answered as it was meant."""

    def __init__(
        self,
        kind: str,
        detail: str,
        remedy: str,
        *,
        retry_after: int | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        """Describes a problem.

        Args:
            kind: One of `KINDS`.
            detail: The cause.
            remedy: What the client can do.
            retry_after: Seconds after which to try again.
            errors: The fields that are wrong.
        """
        super().__init__(detail)
        self.kind = kind
        self.status, self.title = KINDS[kind]
        self.body: dict[str, Any] = {
            "type": f"urn:pydeper:problem:{kind}",
            "title": self.title,
            "status": self.status,
            "detail": detail,
            "remedy": remedy,
        }
        if errors is not None:
            self.body["errors"] = errors
        self.headers: dict[str, str] = {}
        if self.status == 503 and retry_after is None:
            retry_after = 5
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        if self.status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"

    def response(self, headers: Mapping[str, str] | None = None) -> JSONResponse:
        """Returns the answer."""
        return JSONResponse(self.body, self.status, {**self.headers, **(headers or {})}, MEDIA_TYPE)


def problem_of(error: PydeperError) -> Problem:
    """Returns what an error of the SDK is to a client, who need not know where the model runs."""
    kind, remedy = next(_OF_ERRORS[base] for base in type(error).__mro__ if base in _OF_ERRORS)
    if kind == "model-unavailable":
        return Problem(kind, f"the vision-language model is not available ({type(error).__name__})", remedy)
    return Problem(kind, str(error), remedy)


def responses_of(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI entries of an operation's problems, by status."""
    titles: dict[int, list[str]] = {}
    for kind in (*kinds, "failure"):
        status, title = KINDS[kind]
        titles.setdefault(status, []).append(title)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "; ".join(found), "content": content} for status, found in titles.items()}
