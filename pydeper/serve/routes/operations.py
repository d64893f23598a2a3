"""What operators look at: whether the gateway lives and is ready, its metrics, and the page of its interface."""

import html
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from pydeper.serve.engine import Engine
from pydeper.serve.routes.bodies import Health
from pydeper.serve.store.store import Store, StoreFullError, StoreUnavailableError

router = APIRouter(tags=["operations"])

# The page loads nothing from anywhere and runs nothing.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}code,pre{font-family:"
    "ui-monospace,monospace}table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .8rem .2rem 0;"
    "vertical-align:top}h2{margin-top:2.5rem}"
)


@router.get("/healthz", summary="Whether the process answers")
async def healthz() -> Health:
    """Says that the process answers; it asks neither the model nor the database."""
    return Health(status="ok")


@router.get("/readyz", summary="Whether requests can be answered", responses={503: {"model": Health}})
def readyz(request: Request) -> Any:
    """Says whether the model is loaded and the database answers; with status 503 and the reasons where not."""
    engine: Engine = request.app.state.engine
    store: Store = request.app.state.store
    reasons = [] if engine.ready else ["the model is not ready"]
    try:
        store.ping()
    except (StoreUnavailableError, StoreFullError):
        reasons.append("the database does not answer")
    health = Health(status="unavailable" if reasons else "ok", reasons=reasons)
    return JSONResponse(health.model_dump(), 503 if reasons else 200)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Any:
    """Counts and times of requests, batches and the queue; `pydeper_queue_length` is what to scale by."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """The interface as a page, made from /openapi.json."""
    return HTMLResponse(_page(request.app.openapi()), headers=_PAGE_HEADERS)


def _page(schema: dict[str, Any]) -> str:
    """Returns an OpenAPI schema as a page of HTML that stands alone."""
    parts = [f"<h1>{_text(schema['info']['title'])} {_text(schema['info']['version'])}</h1>"]
    parts.append(f'<p>{_text(schema["info"]["description"])} The same for programs: <a href="openapi.json">')
    parts.append("openapi.json</a>.</p>")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {_text(path)}</code></h2><p>{_text(operation['summary'])}. ")
            parts.append(f"{_text(operation.get('description', ''))}</p>")
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
                name = content["schema"]["$ref"].rpartition("/")[2]
                parts.append(
                    f"<h3><code>{_text(media_type)}</code></h3>{_fields(schema['components']['schemas'], name)}"
                )
            rows = ((status, answer.get("description", "")) for status, answer in operation["responses"].items())
            parts.append("<h3>Answers</h3>" + _table(rows))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(schema["info"]["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<main>{''.join(parts)}</main></html>"
    )


def _fields(schemas: dict[str, Any], name: str) -> str:
    schema = schemas[name]
    required = schema.get("required", [])
    return _table(
        (field + (" (required)" if field in required else ""), entry.get("description", ""))
        for field, entry in schema["properties"].items()
    )


def _table(rows: Any) -> str:
    cells = "".join(f"<tr><td><code>{_text(key)}</code></td><td>{_text(value)}</td></tr>" for key, value in rows)
    return f"<table>{cells}</table>"


def _text(value: object) -> str:
    return html.escape(str(value))
