"""Request bodies under limits: of size, and of the time that they may take to arrive."""

import asyncio
from collections.abc import AsyncGenerator

import attrs
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pydeper.serve.problems import Problem
from pydeper.serve.settings import Settings

_DRAIN_SECONDS = 2.0


async def read_body(request: Request, settings: Settings) -> bytes:
    """Reads a request's body, declared or chunked.

    Raises:
        Problem: It is too large, or too slow.
        ClientDisconnect: The client has gone.
    """
    too_large = Problem(
        "too-large",
        f"the body is larger than {settings.max_bytes} bytes",
        "send a smaller version of the image, or fewer samples",
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_bytes:
                    raise too_large
    except TimeoutError:
        raise Problem(
            "upload-too-slow",
            f"the body did not arrive within {settings.upload_seconds:g} seconds",
            "send a smaller version of the image, or use a faster connection",
        ) from None
    return bytes(body)


@attrs.frozen
class Part:
    """A part of a form: a text, or a file's name and its bytes."""

    name: str
    value: str | bytes
    file_name: str | None = None


async def read_form(content_type: str, body: bytes, *, max_files: int) -> list[Part]:
    """Parses a multipart body, in memory: nothing of it is written to a disk.

    Raises:
        Problem: It is no such body, or has too many parts.
    """

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        Headers({"content-type": content_type}), chunks(), max_files=max_files, max_fields=32, max_part_size=len(body)
    )
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError, ValueError) as error:
        reason = getattr(error, "message", "its parts cannot be told apart")
        raise Problem(
            "invalid-request",
            f"the multipart body cannot be read: {reason}",
            "send multipart/form-data as curl -F or a browser's FormData does",
        ) from error
    try:
        return [
            Part(name, value.file.read(), value.filename) if isinstance(value, UploadFile) else Part(name, value)
            for name, value in form.multi_items()
        ]
    finally:
        await form.close()


class FinishUploads:
    """Reads what is left of a request's body after an early answer, for a short while.

    A connection that is closed on a client that still sends is reset, and the client may lose the answer: a 429 or a
    413 would look like a broken network.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Wraps an app."""
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or any(name == b"expect" for name, _ in scope["headers"]):
            await self._app(scope, receive, send)
            return
        received = 0
        complete = False

        async def counted() -> Message:
            nonlocal received, complete
            message = await receive()
            received += len(message.get("body", b""))
            complete = complete or not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            if message["type"] != "http.response.body" or message.get("more_body") or complete:
                await send(message)
                return
            await send({**message, "more_body": True})
            most = received + self._settings.max_bytes
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    while not complete and received < most:
                        await counted()
            except (TimeoutError, ClientDisconnect):
                pass
            await send({"type": "http.response.body", "body": b""})

        await self._app(scope, counted, sent)
