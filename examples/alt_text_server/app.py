"""Alt texts for a web app: one picture, described for each reader in their own way.

Run it with ``uvicorn --factory examples.alt_text_server.app:from_environment``.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pydeper import (
    DeperModel,
    InvalidArgumentError,
    InvalidImageError,
    OutOfMemoryError,
    Persona,
    PydeperError,
)

MAX_BYTES = 8 * 2**20
MAX_NEW_TOKENS = 96  # an alt text is a sentence or two
AT_ONCE = 2  # descriptions computed at the same time; further requests wait their turn
HEADERS = {"Vary": "X-Reader, Cookie", "Cache-Control": "private"}  # an alt text is its reader's alone

STATUSES: dict[type[PydeperError], int] = {
    InvalidImageError: 422,
    InvalidArgumentError: 400,
    OutOfMemoryError: 503,
}


def from_environment() -> Starlette:
    """Serves ``$PYDEPER_MODEL`` (else "tiny") to the readers whose personas lie in ``$ALT_TEXT_PERSONAS``."""
    folder = Path(os.environ.get("ALT_TEXT_PERSONAS", "personas"))
    model = DeperModel.from_pretrained(os.environ.get("PYDEPER_MODEL", "tiny"), image_cache=16)
    # A name with a dot in front is a persona that is being written at this moment.
    paths = [path for path in sorted(folder.glob("*.safetensors")) if not path.name.startswith(".")]
    return make_app(model, {path.stem: Persona.load(path) for path in paths})


def make_app(model: DeperModel, personas: Mapping[str, Persona], *, max_bytes: int = MAX_BYTES) -> Starlette:
    """Builds the app.

    Args:
        model: One for all requests.
        personas: Reader -> persona.
        max_bytes: The largest image file taken.

    Raises:
        IncompatiblePersonaError: A persona was made by another model; better now than at its reader's first picture.
    """
    for persona in personas.values():
        model.check_persona(persona)
    turn = asyncio.Semaphore(AT_ONCE)

    async def pieces(request: Request) -> AsyncGenerator[str, None]:
        """The alt text, piece by piece, in the style that the address asks for."""
        persona = _persona_of(request, personas)
        image = await _uploaded(request, max_bytes)
        style = request.query_params.get("style", "description")
        async with turn, aclosing(model.astream(image, persona, style=style, max_new_tokens=MAX_NEW_TOKENS)) as text:
            async for piece in text:
                yield piece

    async def alt_text(request: Request) -> Response:
        return JSONResponse({"alt": "".join([piece async for piece in pieces(request)])}, headers=HEADERS)

    async def alt_text_stream(request: Request) -> Response:
        text = pieces(request)
        # Whatever is wrong shows before the first piece, while there is still a status to say it with.
        first = await anext(text, "")

        async def body() -> AsyncGenerator[str, None]:
            async with aclosing(text):
                yield first
                async for piece in text:
                    yield piece

        return StreamingResponse(body(), media_type="text/plain", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/alt-text", alt_text, methods=["POST"]),
            Route("/alt-text/stream", alt_text_stream, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _http_error, **dict.fromkeys(STATUSES, _pydeper_error)},
    )


def _persona_of(request: Request, personas: Mapping[str, Persona]) -> Persona | None:
    """The persona of the reader that a header or else a cookie names; None where neither does."""
    reader = request.headers.get("X-Reader") or request.cookies.get("reader")
    if reader is not None and reader not in personas:
        raise HTTPException(404, "there is no persona of this reader")
    return None if reader is None else personas[reader]


async def _uploaded(request: Request, max_bytes: int) -> bytes:
    image = bytearray()
    async for chunk in request.stream():
        image += chunk
        if len(image) > max_bytes:
            raise HTTPException(413, f"the image file is larger than {max_bytes} bytes; send a smaller version")
    return bytes(image)


async def _pydeper_error(_: Request, error: Exception) -> Response:
    status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    return JSONResponse(
        {"error": str(error)}, status, headers=HEADERS | ({"Retry-After": "5"} if status == 503 else {})
    )


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
