"""`POST /v1/describe`: an image as one person would describe it, at once or piece by piece."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from pydeper.errors import PersonaError
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions, split_options
from pydeper.persona.file import parse_persona
from pydeper.persona.persona import Persona
from pydeper.serve.access import Tenant
from pydeper.serve.batching import Request as Asked
from pydeper.serve.engine import Engine
from pydeper.serve.problems import Problem, responses_of
from pydeper.serve.routes.bodies import (
    DescribeForm,
    DescribeRequest,
    Description,
    body_of,
    read_describe_request,
)
from pydeper.serve.routes.images import check_image
from pydeper.serve.routes.personas import no_such_persona
from pydeper.serve.settings import Settings
from pydeper.serve.store.store import Store

router = APIRouter(tags=["descriptions"])

_T = TypeVar("_T")

_EVENTS = {
    "type": "string",
    "description": (
        'server-sent events: `piece` with {"text": …} while the text is written, then `done` with {"model": …}; '
        "or `error` with a problem, where something fails after the first piece"
    ),
}


async def _has_room(request: Request, _: Tenant) -> None:
    """Refuses a request before its body is read, where there would be no place for it."""
    engine: Engine = request.app.state.engine
    engine.model()
    engine.batcher.check_room()


@router.post(
    "/v1/describe",
    summary="Describe an image as one person would",
    response_model=Description,
    dependencies=[Depends(_has_room)],
    openapi_extra=body_of(DescribeRequest, DescribeForm),
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENTS}}},
        **responses_of(
            "invalid-request",
            "unreadable-image",
            "invalid-persona",
            "not-found",
            "no-key",
            "forbidden-origin",
            "upload-too-slow",
            "too-large",
            "wrong-content-type",
            "queue-full",
            "deadline",
            "model-unavailable",
            "store-unavailable",
        ),
    },
)
async def describe(
    request: Request, tenant: Tenant, body: Annotated[DescribeRequest, Depends(read_describe_request)]
) -> Any:
    """Describes an image for a stored persona, a persona that is sent along, or nobody in particular.

    Requests of the same moment with the same options are computed together. With `stream`, errors up to the first
    piece have a status of their own, and later ones are an event.
    """
    settings: Settings = request.app.state.settings
    engine: Engine = request.app.state.engine
    model = engine.model()
    options = _options(body, model, settings)

    def checked_persona() -> Persona | None:
        check_image(body.image, settings)
        persona = _persona(body, tenant, request.app.state.store)
        if persona is not None:
            model.check_persona(persona)
        return persona

    persona = await run_in_threadpool(checked_persona)
    seconds = min(body.deadline_seconds or settings.deadline_seconds, settings.deadline_seconds)
    asked = Asked(body.image, persona, options, time.monotonic() + seconds, by_piece=body.stream)
    engine.batcher.submit(asked)
    if not body.stream:
        text = await _unless_gone(request, _whole(asked))
        return Response(
            Description(description=text, model=model.model_id).model_dump_json(), media_type="application/json"
        )
    pieces = asked.pieces()
    first = await _unless_gone(request, _first(pieces))
    return StreamingResponse(_events(first, pieces, model.model_id), media_type="text/event-stream")


def _options(body: DescribeRequest, model: DeperModel, settings: Settings) -> DescribeOptions:
    if body.max_new_tokens > settings.max_new_tokens:
        raise Problem(
            "invalid-request",
            f"max_new_tokens: at most {settings.max_new_tokens} are written here, got {body.max_new_tokens}",
            "ask for fewer",
        )
    options: DescribeOptions = {
        "style": body.style,
        "max_new_tokens": body.max_new_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "repetition_penalty": body.repetition_penalty,
        "seed": body.seed,
        "strength": body.strength,
    }
    split_options(options, model.styles, model.model_id)
    return options


def _persona(body: DescribeRequest, tenant: str, store: Store) -> Persona | None:
    if body.persona is not None and body.persona_id is not None:
        raise Problem("invalid-request", "persona and persona_id are both given", "give one of them")
    if body.persona_id is not None:
        if (found := store.find_persona(tenant, body.persona_id)) is None:
            raise no_such_persona()
        return Persona(**parse_persona(found[1]))
    if body.persona is not None:
        try:
            return Persona(**parse_persona(body.persona))
        except PersonaError as error:
            raise PersonaError(f"persona: {error}") from error
    return None


async def _whole(asked: Asked) -> str:
    async with aclosing(asked.pieces()) as pieces:
        return "".join([piece async for piece in pieces])


async def _first(pieces: AsyncGenerator[str, None]) -> str | None:
    try:
        return await anext(pieces, None)
    except BaseException:
        await pieces.aclose()
        raise


async def _unless_gone(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Returns what work gives, unless the client goes away before, which ends the work.

    Raises:
        ClientDisconnect: The client has gone.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        gone.cancel()
        working.cancel()


async def _events(first: str | None, pieces: AsyncGenerator[str, None], model_id: str) -> AsyncGenerator[str, None]:
    async with aclosing(pieces):
        try:
            if first is not None:
                yield _event("piece", {"text": first})
            async for piece in pieces:
                yield _event("piece", {"text": piece})
            yield _event("done", {"model": model_id})
        except Problem as problem:
            yield _event("error", problem.body)


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
