"""The gateway as an ASGI application.

The application holds its settings alone. Model, database and threads are opened when the server of a process starts, in
that process: servers that load an application first and fork their workers later (gunicorn with --preload) get a sound
model in each of them, as nothing that must not cross a fork exists before.
"""

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pydeper.errors import PydeperError
from pydeper.model.model import DeperModel
from pydeper.serve.engine import Engine, open_model
from pydeper.serve.logs import fields_of_error, log
from pydeper.serve.metrics import Metrics
from pydeper.serve.problems import SCHEMA, Problem, problem_of
from pydeper.serve.routes import describe, operations, personas
from pydeper.serve.routes.bodies import invalid_fields, request_schemas
from pydeper.serve.settings import Settings
from pydeper.serve.settings import from_environment as settings_from_environment
from pydeper.serve.store.store import Store, StoreFullError, StoreUnavailableError, TooManyPersonasError
from pydeper.serve.uploads import FinishUploads
from pydeper.version import __version__

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def from_environment() -> FastAPI:
    """Makes the gateway that the variables ``PYDEPER_SERVE_…`` describe, for ASGI servers of the user's choice."""
    return make_app(settings_from_environment())


def make_app(settings: Settings, opened: Callable[[Settings], DeperModel] = open_model) -> FastAPI:
    """Makes a gateway.

    Args:
        settings: How it works.
        opened: Loads the model.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        store = Store(settings.database, max_personas=settings.max_personas)
        engine = Engine(settings, metrics, opened)
        metrics.watch(queue_length=lambda: engine.batcher.waiting, model_ready=lambda: engine.ready)
        app.state.store, app.state.engine = store, engine
        try:
            store.migrate()
            await engine.start()
            yield
        finally:
            await engine.close()
            store.close()

    metrics = Metrics()
    app = FastAPI(
        title="pydeper gateway",
        version=__version__,
        description="Image descriptions in the words, order and detail of one particular person.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.settings, app.state.metrics = settings, metrics
    for routes in (describe, personas, operations):
        app.include_router(routes.router)
    for kind in (Problem, PydeperError, RequestValidationError, HTTPException, ClientDisconnect):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(FinishUploads, settings=settings)
    app.add_middleware(Observed, metrics=metrics)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


async def _answer(_: Request, error: Exception) -> Response:
    """Answers with a problem, whatever was raised on purpose."""
    match error:
        case Problem():
            return error.response()
        case RequestValidationError():
            return invalid_fields(error.errors()).response()
        case ClientDisconnect():
            return Response(status_code=499)  # nobody reads it; the logs call it so
        case HTTPException(status_code=404):
            return Problem("not-found", "there is nothing at this address", "/docs lists what there is").response()
        case HTTPException(status_code=405):
            problem = Problem(
                "method-not-allowed", "this address does not take this method", "/docs lists what there is"
            )
            return problem.response(error.headers)
        case StoreUnavailableError():
            return Problem("store-unavailable", str(error), "try again after the seconds of Retry-After").response()
        case StoreFullError():
            return Problem("store-full", str(error), "tell whoever runs this gateway").response()
        case TooManyPersonasError():
            return Problem("too-many-personas", str(error), "delete some that are not needed any more").response()
        case PydeperError():
            return problem_of(error).response()
    return Problem("invalid-request", "the request cannot be read", "/docs says how requests look").response()


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema["components"]["schemas"] |= {"Problem": SCHEMA, **request_schemas()}
        app.openapi_schema = schema
    return app.openapi_schema


class Observed:
    """Counts, times and logs every request, and answers one that fails inside with a problem."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wraps an app."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id, status = time.monotonic(), secrets.token_hex(8), 0
        method = scope["method"] if scope["method"] in _METHODS else "(other)"  # anybody can make up more
        scope.setdefault("state", {})

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode()), (b"cache-control", b"no-store")]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception as error:
            log(
                "request failed", logging.ERROR, request=request_id, **fields_of_error(type(error), error.__traceback__)
            )
            if status:
                raise
            problem = Problem(
                "failure", f"request {request_id} failed inside the gateway", "report it with this number"
            )
            await problem.response()(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "(none)")
            seconds = time.monotonic() - began
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.request_seconds.labels(method, route).observe(seconds)
            log(
                "request",
                request=request_id,
                method=method,
                route=route,
                status=status,
                seconds=round(seconds, 4),
                tenant=scope["state"].get("tenant"),
            )
