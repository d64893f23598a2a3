"""Where the vLLM servers are, and how to speak to them."""

import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.untrusted import shown

API_KEY_VARIABLE = "PYDEPER_VLLM_API_KEY"


def _addresses(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Iterable) or isinstance(values, bytes):
        raise InvalidArgumentError(f"addresses: must be an address or several, got {type(value).__name__}")
    addresses = tuple(_address(item) for item in values)
    if not addresses or len(set(addresses)) < len(addresses):
        raise InvalidArgumentError("addresses: must be at least one, and none twice")
    return addresses


def _address(value: object) -> str:
    """Returns the address of a server's API without a slash at its end; what lacks a path is given vLLM's own, /v1."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"addresses: must be texts, got {type(value).__name__}")
    try:
        parts = urlsplit(value)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed or not value.isascii() or not value.isprintable() or " " in value:
        # What looks like no address may hold a password, so the message does not repeat it.
        raise InvalidArgumentError("addresses: must look like 'http://host:8000/v1' or 'https://…'")
    if parts.username is not None or parts.password is not None:
        raise InvalidArgumentError("addresses: must not hold a user or a password; give the server's key as api_key")
    if parts.query or parts.fragment:
        raise InvalidArgumentError(f"addresses: must end with the path of the API, as /v1 does, got {shown(value)}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def _key(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value and value.isascii() and value.isprintable()):
        return value
    raise InvalidArgumentError("api_key: must be a text of printable ASCII characters")  # and is not shown


def _number(least: float, demand: str, *, whole: bool = False) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < least:
            raise InvalidArgumentError(f"{attribute.name}: must be {demand}, got {shown(value)}")

    return check


def _is(kind: type, demand: str) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not isinstance(value, kind) and value is not attribute.default:
            raise InvalidArgumentError(f"{attribute.name}: must be {demand}, got {shown(value)}")

    return check


@attrs.frozen
class VLLMServers:
    """vLLM servers that all serve the vision-language model of one bundle, and how to speak to them.

    Attributes:
        addresses: ``"http://host:8000/v1"``, or several. Each request goes to the least busy server; one that fails is
            set aside for a while, and its requests go to the others.
        api_key: Sent as a bearer token; None is ``$PYDEPER_VLLM_API_KEY``, and where that is not set none is sent. It
            is in no message and no repr, and is left out when a model is pickled: set the variable where it is opened.
        model: The name under which the servers serve the model. None takes the model that is called like the bundle's
            base model, or by the path of a folder of that name.
        ca_file: Certificates (PEM) of the authorities to trust, in place of those that come with httpx.
        verify: Whether to check the servers' certificates; False is for tests alone.
        max_concurrency: The most requests that are open at a time, over all servers.
        connect_timeout: Seconds until a server that does not take the connection counts as not reachable.
        timeout: The longest silence in seconds, before the first token and between tokens.
        retries: How often a request is sent again, after a broken connection or an answer 429, 502, 503 or 504. What
            has yielded a piece is never sent again.
        backoff: Seconds until the first retry at the same server; doubled each time, to at most 30, with some jitter.
            Where a server says when to come back (Retry-After), that counts.

    Raises:
        InvalidArgumentError: A value is not what it should be.

    Examples:
        >>> from pydeper import DeperModel, VLLMServers
        >>> servers = VLLMServers(["http://one:8000", "http://two:8000"], timeout=30.0, retries=2)
        >>> servers.addresses
        ('http://one:8000/v1', 'http://two:8000/v1')
        >>> model = DeperModel.from_pretrained("org/name", vlm=servers)  # doctest: +SKIP
    """

    addresses: tuple[str, ...] = attrs.field(converter=_addresses)
    api_key: str | None = attrs.field(default=None, kw_only=True, repr=False, converter=_key)
    model: str | None = attrs.field(default=None, kw_only=True, validator=_is(str, "a text, or None"))
    ca_file: Path | None = attrs.field(default=None, kw_only=True, converter=attrs.converters.optional(Path))
    verify: bool = attrs.field(default=True, kw_only=True, validator=_is(bool, "True or False"))
    max_concurrency: int = attrs.field(
        default=32, kw_only=True, validator=_number(1, "a whole number of at least 1", whole=True)
    )
    connect_timeout: float = attrs.field(
        default=10.0, kw_only=True, validator=_number(1e-3, "seconds, at least 0.001, and finite")
    )
    timeout: float = attrs.field(
        default=120.0, kw_only=True, validator=_number(1e-3, "seconds, at least 0.001, and finite")
    )
    retries: int = attrs.field(
        default=4, kw_only=True, validator=_number(0, "a whole number of at least 0", whole=True)
    )
    backoff: float = attrs.field(default=0.5, kw_only=True, validator=_number(0, "seconds, 0 or more, and finite"))

    @classmethod
    def of(cls, given: "VLLMServers | str | Iterable[str]") -> "VLLMServers":
        """Returns settings as they are, and addresses with the settings that are the default.

        Examples:
            >>> from pydeper import VLLMServers
            >>> VLLMServers.of("http://host:8000").addresses
            ('http://host:8000/v1',)
        """
        return given if isinstance(given, VLLMServers) else cls(given)

    def bearer_token(self) -> str | None:
        """Returns the API key to send, or None.

        Raises:
            InvalidArgumentError: The environment variable holds what cannot be a key.

        Examples:
            >>> from pydeper import VLLMServers
            >>> VLLMServers("http://host:8000", api_key="a key").bearer_token()
            'a key'
        """
        if self.api_key is not None:
            return self.api_key
        try:
            return _key(os.environ.get(API_KEY_VARIABLE, "").strip() or None)
        except InvalidArgumentError:
            raise InvalidArgumentError(f"${API_KEY_VARIABLE}: must be a text of printable ASCII characters") from None

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in attrs.asdict(self, recurse=False).items() if name != "api_key"}

    def __setstate__(self, state: dict[str, object]) -> None:
        type(self).__init__(self, **state)  # type: ignore[arg-type]
