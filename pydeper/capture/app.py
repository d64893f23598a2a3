"""The HTTP interface of a capture session, and the files of its page."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pydeper.capture.access import Guard, problem
from pydeper.capture.outcome import RECOMMENDED
from pydeper.capture.pictures import DamagedPicture, browser_image
from pydeper.capture.refusal import RefusalError
from pydeper.capture.session import CaptureSession, Stored
from pydeper.errors import InvalidImageError, InvalidSampleError
from pydeper.readers.journal_lines import EmptyDescriptionError
from pydeper.samples.sample import Sample
from pydeper.untrusted import parse_json
from pydeper.version import __version__

PAGE = Path(__file__).parent / "page"
STATIC = {
    "api.js": "text/javascript",
    "app.js": "text/javascript",
    "drafts.js": "text/javascript",
    "icon.svg": "image/svg+xml",
    "pydeper-capture.js": "text/javascript",
    "style.css": "text/css",
    "texts.json": "application/json",
}
"""The files of the page, and their media types; no other is given out."""

NO_FIXATION = (
    "No stop of the pointer was found, so the description is kept without a trajectory. Look again, and rest for a "
    "moment on what you describe."
)

_Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


def make_app(
    session: CaptureSession,
    damaged: Sequence[DamagedPicture] = (),
    *,
    model: str,
    host: str = "127.0.0.1",
    token: str | None = None,
) -> ASGIApp:
    """Builds the app.

    Args:
        session: The one that it serves.
        damaged: Files of the folder that are not shown.
        model: What the persona is made with, for the page to say.
        host: The address that the server listens on.
        token: What the first visit has to know, on an address that others reach; see `pydeper.capture.access`.
    """
    handlers = _Handlers(session, damaged, model)
    routes = [
        Route("/", handlers.page),
        Route("/static/{name}", handlers.static),
        Route("/api/session", handlers.session),
        Route("/api/session", handlers.delete, methods=["DELETE"]),
        Route("/api/claim", handlers.claim, methods=["POST"]),
        Route("/api/consent", handlers.consent, methods=["POST"]),
        Route("/api/pictures/{index}/image", handlers.image),
        Route("/api/pictures/{index}", handlers.stored),
        Route("/api/pictures/{index}", handlers.record, methods=["PUT"]),
        Route("/api/pictures/{index}/skip", handlers.skip, methods=["POST"]),
        Route("/api/persona", handlers.persona),
        Route("/api/persona", handlers.make_persona, methods=["POST"]),
        Route("/api/samples", handlers.samples),
    ]
    errors: Mapping[Any, Callable[[Request, Any], Awaitable[Response]]] = {
        RefusalError: _refused,
        InvalidSampleError: _malformed,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        Exception: _failed,
    }
    return Guard(Starlette(routes=_joined(routes), exception_handlers=errors), host=host, token=token)


def _joined(routes: list[Route]) -> list[Route]:
    """One route a path, which chooses by the method, so that a wrong method is 405 and says which are right."""
    by_path: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in route.methods or ():
            by_path.setdefault(route.path, {})[method] = route.endpoint
    return [Route(path, _by_method(methods), methods=[*methods]) for path, methods in by_path.items()]


def _by_method(methods: Mapping[str, _Handler]) -> _Handler:
    async def handle(request: Request) -> Response:
        return await methods[request.method](request)

    return handle


class _Handlers:
    """One method a route; what touches files runs in a thread."""

    def __init__(self, session: CaptureSession, damaged: Sequence[DamagedPicture], model: str) -> None:
        self._session = session
        self._damaged = damaged
        self._model = {"name": model, "demonstration": model == "tiny"}

    async def page(self, _: Request) -> Response:
        return await _file(PAGE / "index.html", "text/html")

    async def static(self, request: Request) -> Response:
        if (name := request.path_params["name"]) not in STATIC:
            raise HTTPException(404)
        return await _file(PAGE / name, STATIC[name])

    async def session(self, request: Request) -> Response:
        session, settings = self._session, self._session.settings
        shown = ("blur", "radius", "time_limit", "instructions", "dictation")
        consent = session.consent
        return JSONResponse(
            {
                "session": session.about.session,
                "subject": session.about.subject,
                "language": settings.language,
                "page_version": __version__,
                "mode": settings.mode,
                "settings": {name: getattr(settings, name) for name in shown},
                "consent": None if consent is None else {"given_at": consent.given_at, "publish": consent.publish},
                "active": session.is_active(request.headers.get("x-tab")),
                "pictures": [
                    {
                        "index": i,
                        "name": picture.name,
                        "status": session.status(i),
                        "width": picture.width,
                        "height": picture.height,
                    }
                    for i, picture in enumerate(session.pictures)
                ],
                "skipped_files": [attrs.asdict(picture) for picture in self._damaged],
                "minimum": 1,
                "recommended": RECOMMENDED,
                "model": self._model,
            }
        )

    async def claim(self, request: Request) -> Response:
        await run_in_threadpool(self._session.claim, self._tab(request))
        return Response(status_code=204)

    async def consent(self, request: Request) -> Response:
        tab, body = self._tab(request), await _object(request)
        _check_fields(body, {"publish", "language", "text"})
        await run_in_threadpool(self._session.give_consent, tab, body["publish"], body["language"], body["text"])
        return Response(status_code=204)

    async def image(self, request: Request) -> Response:
        picture = self._session.picture(_index(request))
        try:
            content, media_type = await run_in_threadpool(browser_image, picture.path)
        except (InvalidImageError, OSError) as error:
            detail = f"The picture {picture.name} cannot be read any more: skip it, or put its file back."
            raise RefusalError("no-picture", 404, detail) from error
        return Response(content, media_type=media_type)

    async def stored(self, request: Request) -> Response:
        stored = self._session.stored(_index(request))
        recording = stored.recording
        return JSONResponse(
            {
                "description": recording.description,
                "points": recording.points,
                "fixations": _fixations(stored.sample),
            }
        )

    async def record(self, request: Request) -> Response:
        tab, index = self._tab(request), _index(request)
        stored: Stored = await run_in_threadpool(self._session.record, tab, index, await _object(request))
        fixations = _fixations(stored.sample)
        return JSONResponse(
            {
                "fixations": fixations,
                "description": stored.recording.description,
                "problem": None if fixations else NO_FIXATION,
            }
        )

    async def skip(self, request: Request) -> Response:
        await run_in_threadpool(self._session.skip, self._tab(request), _index(request))
        return Response(status_code=204)

    async def make_persona(self, request: Request) -> Response:
        outcome, index = await run_in_threadpool(self._session.make_persona, self._tab(request))
        persona = outcome.persona
        return JSONResponse(
            {
                "persona": {"name": persona.name, "num_samples": persona.num_samples, "model": persona.model_id},
                "picture": index,
                "described": outcome.described,
                "plain": outcome.plain,
            }
        )

    async def persona(self, _: Request) -> Response:
        return await _download(self._session.files.persona, "application/octet-stream")

    async def samples(self, _: Request) -> Response:
        return await _download(self._session.files.samples, "application/jsonl")

    async def delete(self, request: Request) -> Response:
        await run_in_threadpool(self._session.delete, self._tab(request))
        return Response(status_code=204)

    def _tab(self, request: Request) -> str:
        """The tab that sends something, which must show this session and not an earlier one at the same address."""
        shown = request.headers.get("x-session", "")
        if shown and shown != self._session.about.session:
            raise RefusalError("another-session", 409, "This page shows another session: load it again.")
        return _tab(request)


def _fixations(sample: Sample) -> list[dict[str, Any]]:
    return [{"box": list(look.box), "duration": look.duration} for look in sample.trajectory or ()]


def _tab(request: Request) -> str:
    tab = request.headers.get("x-tab", "")
    if not re.fullmatch(r"[\w.-]{1,64}", tab, re.ASCII):
        raise RefusalError("malformed", 422, "X-Tab must be 1 to 64 letters, digits, '.', '_' or '-'.")
    return tab


def _index(request: Request) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", index := request.path_params["index"]):
        raise HTTPException(404)
    return int(index)


async def _object(request: Request) -> dict[str, Any]:
    body = parse_json(await request.body(), InvalidSampleError)
    if not isinstance(body, dict):
        raise InvalidSampleError("the body must be a JSON object")
    return body


def _check_fields(body: Mapping[str, Any], names: set[str]) -> None:
    for what, wrong in (("missing", names - body.keys()), ("unknown", body.keys() - names)):
        if wrong:
            raise InvalidSampleError(f"{min(wrong)} is {what}; the fields are {', '.join(sorted(names))}")


async def _file(path: Path, media_type: str) -> Response:
    try:
        content = await run_in_threadpool(path.read_bytes)
    except FileNotFoundError as error:
        raise HTTPException(404) from error
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


async def _download(path: Path, media_type: str) -> Response:
    try:
        content = await run_in_threadpool(path.read_bytes)
    except FileNotFoundError as error:
        raise RefusalError("not-there", 404, "There is no such file yet.") from error
    name = path.name.encode("ascii", "replace").decode().replace('"', "_").replace("\\", "_").replace("?", "_")
    return Response(content, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _refused(_: Request, refusal: RefusalError) -> Response:
    return problem(refusal)


async def _malformed(_: Request, error: InvalidSampleError) -> Response:
    code = "empty-description" if isinstance(error, EmptyDescriptionError) else "malformed"
    return problem(RefusalError(code, 422, str(error)))


async def _http_error(_: Request, error: HTTPException) -> Response:
    known = {404: "There is nothing at this address.", 405: "This address does not take such requests."}
    answer = problem(
        RefusalError(f"http-{error.status_code}", error.status_code, known.get(error.status_code, error.detail))
    )
    answer.headers.update(error.headers or {})
    return answer


async def _gone(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody hears it


async def _failed(_: Request, __: Exception) -> Response:
    return problem(
        RefusalError("failed", 500, "The server made a mistake, which the terminal shows. Nothing was lost: try again.")
    )
