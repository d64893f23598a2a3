"""The HTTP client of vLLM servers: queries what they serve, sends requests, and retries those that fail."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import attrs
import httpx

from pydeper.bundle.config import VLMConfig
from pydeper.errors import InvalidArgumentError, PydeperError, VLLMError, VLLMIncompatibleError, VLLMUnreachableError
from pydeper.untrusted import parse_json, shown
from pydeper.version import __version__
from pydeper.vlm.inputs import room_for
from pydeper.vlm.vllm.events import Tokens, read_events
from pydeper.vlm.vllm.failures import ServerFailedError, check_prompt, check_version, raise_for_status, refusal
from pydeper.vlm.vllm.fleet import Fleet, ServedModel, Server
from pydeper.vlm.vllm.settings import VLLMServers

_MOST_BYTES = 2**20  # of an answer that is no stream


@attrs.frozen
class Request:
    """A request for one description.

    Attributes:
        body: The chat completion, but for what depends on the server.
        prompt_ids: The prompt's tokens; None in the place of the soft token.
        max_new_tokens: The most tokens of the description.
    """

    body: dict[str, Any] = attrs.field(repr=False)
    prompt_ids: tuple[int | None, ...] = attrs.field(repr=False)
    max_new_tokens: int


class VLLMClient:
    """Sends requests to servers that all serve one model; used in one event loop alone.

    Attributes:
        fleet: The servers.
    """

    def __init__(self, settings: VLLMServers, config: VLMConfig) -> None:
        """Opens no connection yet.

        Raises:
            InvalidArgumentError: The certificates cannot be read, or the API key is none.
        """
        self.fleet = Fleet(settings.addresses, backoff=settings.backoff, patience=settings.timeout)
        self._settings, self._config = settings, config
        self._slots = asyncio.Semaphore(settings.max_concurrency)
        self._key = key = settings.bearer_token()
        self._http = httpx.AsyncClient(
            headers={
                "User-Agent": f"pydeper/{__version__}",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
            verify=_certificates(settings),
            timeout=httpx.Timeout(settings.timeout, connect=settings.connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=settings.max_concurrency),
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._http.aclose()

    async def connect(self) -> None:
        """Queries every server for what it serves.

        A server that cannot be reached is set aside, unless none can.

        Raises:
            VLLMUnreachableError: None can be reached.
            VLLMError: One refuses, is too old, or serves another model.
        """
        found = await asyncio.gather(*map(self._identify, self.fleet.servers), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException) and not isinstance(error, ServerFailedError):
                raise error
        if all(isinstance(error, ServerFailedError) for error in found):
            raise self.fleet.unreachable("none can be reached")

    async def tokens(self, request: Request, *, whole: bool) -> AsyncGenerator[Tokens, None]:
        """Yields the tokens of a description.

        Args:
            request: What to send.
            whole: Yield all tokens at once at the end: until then, the request can be sent again. Otherwise they are
                yielded as they come, and what breaks off after the first cannot be mended.

        Raises:
            VLLMUnreachableError: No server went through with it.
            PydeperError: A server refuses the request; see `pydeper.vlm.vllm.failures`.
        """
        async with self._slots:
            for attempt in range(self._settings.retries + 1):
                server = await self.fleet.take()
                yielded, finish = False, None
                held: tuple[int, ...] = ()
                try:
                    with self.fleet.working(server):
                        async with aclosing(self._attempt(server, request)) as stream:
                            async for tokens in stream:
                                held += tokens.ids
                                if not whole and tokens.ids:
                                    yielded = True
                                    yield tokens
                                finish = tokens.finish_reason or finish
                except ServerFailedError as failure:
                    if yielded:
                        raise VLLMUnreachableError(
                            f"{server.address}: {failure}, after {len(held)} tokens; what has been yielded cannot be "
                            "taken back, so the request was not sent again: call again"
                        ) from failure
                    if attempt == self._settings.retries:
                        tries = f"{attempt + 1} tries" if attempt else "1 try"
                        raise self.fleet.unreachable(tries) from failure
                else:
                    if whole:
                        yield Tokens(held, finish)
                    return

    async def _attempt(self, server: Server, request: Request) -> AsyncGenerator[Tokens, None]:
        """Yields what one server answers, up to the end of the description.

        Raises:
            ServerFailedError: It fails, or cannot be reached.
            PydeperError: It refuses.
        """
        if server.serves is None:
            await self._identify(server)
        serves = server.serves
        assert serves is not None
        context = min(serves.context_length or self._config.max_positions, self._config.max_positions)
        if context < self._config.max_positions and len(request.prompt_ids) >= context:
            raise InvalidArgumentError(
                f"the prompt takes {len(request.prompt_ids)} tokens and the vLLM server's context holds "
                f"{context}: use a smaller image, or start vLLM with a larger --max-model-len"
            )
        room = room_for(len(request.prompt_ids), context)
        prompt_seen = finished = False
        body = {**request.body, "model": serves.name, "max_tokens": min(request.max_new_tokens, room)}
        try:
            async with self._http.stream("POST", f"{server.address}/chat/completions", json=body) as response:
                await self._check(server, response)
                async with aclosing(read_events(response.aiter_bytes())) as events:
                    async for tokens in events:
                        if tokens.error is not None:
                            raise refusal(server.address, None, self._without_key(tokens.error))
                        if tokens.prompt_ids is not None and not prompt_seen:
                            image = self._config.tokens.image
                            check_prompt(server.address, tokens.prompt_ids, request.prompt_ids, image)
                            prompt_seen = True
                        if tokens.ids and not prompt_seen:
                            raise VLLMIncompatibleError(
                                f"{server.address}: does not return the tokens of the prompt (return_token_ids): use "
                                "vLLM itself, or a proxy that passes this on"
                            )
                        finished = finished or tokens.finish_reason is not None
                        yield tokens
        except httpx.TransportError as error:
            if not finished:
                raise _failure(server, error, self._settings) from error

    async def _identify(self, server: Server) -> None:
        """Queries a server for what it serves."""
        with self.fleet.working(server):
            models = await self._get(server, f"{server.address}/models")
            version = await self._version(server)
            check_version(server.address, version)
            server.serves = _served(server.address, models, version, self._config.base_model, self._settings.model)

    async def _version(self, server: Server) -> str | None:
        try:
            found = await self._get(server, f"{server.address.removesuffix('/v1')}/version")
        except VLLMError:
            return None  # gateways in front of vLLM pass on its API alone
        version = found.get("version") if isinstance(found, dict) else None
        return version if isinstance(version, str) else None

    async def _get(self, server: Server, address: str) -> object:
        try:
            async with self._http.stream("GET", address) as response:
                await self._check(server, response)
                body = await _beginning(response)
        except httpx.TransportError as error:
            raise _failure(server, error, self._settings) from error
        try:
            return parse_json(body, ServerFailedError)
        except ServerFailedError as error:
            raise VLLMError(f"{address}: does not answer as vLLM does ({error}); check the address") from None

    async def _check(self, server: Server, response: httpx.Response) -> None:
        if response.status_code != 200:
            body = self._without_key(await _beginning(response))
            raise_for_status(server.address, response.status_code, response.headers.get("Retry-After"), body)

    def _without_key(self, said: Any) -> Any:
        """Returns a server's words without the API key, which no message of ours may repeat."""
        key = self._key
        if key is None:
            return said
        if isinstance(said, bytes):
            return said.replace(key.encode(), b"...")
        return {name: value.replace(key, "...") if isinstance(value, str) else value for name, value in said.items()}


def _served(address: str, models: object, version: str | None, base_model: str, named: str | None) -> ServedModel:
    """Returns which of a server's models is the bundle's.

    Raises:
        VLLMIncompatibleError: None is.
    """
    entries = models.get("data") if isinstance(models, dict) else None
    if not isinstance(entries, list) or not all(isinstance(e, dict) and isinstance(e.get("id"), str) for e in entries):
        raise VLLMError(f"{address}: does not answer as vLLM does; check the address")
    for entry in entries:
        called = [entry["id"], str(entry.get("root") or "")]
        if named in called if named is not None else any(_is_called(name, base_model) for name in called):
            length = entry.get("max_model_len")
            return ServedModel(entry["id"], length if type(length) is int and length > 0 else None, version)
    there = ", ".join(shown(entry["id"]) for entry in entries) or "none"
    if named is not None:
        raise VLLMIncompatibleError(f"{address}: serves no model {shown(named)}; it serves {there}")
    raise VLLMIncompatibleError(
        f"{address}: serves another model than the bundle's base model {base_model!r}; it serves {there}. Where that "
        "is the same model under another name, pass VLLMServers(..., model=NAME)"
    )


def _is_called(name: str, base_model: str) -> bool:
    """Whether a name, or the last part of a path, is the base model's, with or without who published it."""
    return _last_part(name) == _last_part(base_model)


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()


async def _beginning(response: httpx.Response) -> bytes:
    """Reads an answer, at most so much of it as pydeper will look at."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _MOST_BYTES:
            break
    return bytes(body[:_MOST_BYTES])


def _failure(server: Server, error: httpx.TransportError, settings: VLLMServers) -> ServerFailedError | PydeperError:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return VLLMUnreachableError(
            f"{server.address}: its certificate is not trusted ({error}): pass VLLMServers(..., ca_file=...) with the "
            "certificate of the authority that signed it"
        )
    if isinstance(error, httpx.ConnectTimeout):
        return ServerFailedError(f"it did not take the connection within {settings.connect_timeout:g} s")
    if isinstance(error, httpx.TimeoutException):
        return ServerFailedError(f"it was silent for {settings.timeout:g} s")
    if isinstance(error, httpx.ConnectError):
        return ServerFailedError(f"it cannot be reached ({str(error) or type(error).__name__})")
    return ServerFailedError(f"the connection broke ({str(error) or type(error).__name__})")


def _certificates(settings: VLLMServers) -> ssl.SSLContext | bool:
    if settings.ca_file is None or not settings.verify:
        return settings.verify
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise InvalidArgumentError(
            f"ca_file: {settings.ca_file}: holds no certificates that can be read: {error}"
        ) from error
