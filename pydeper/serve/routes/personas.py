"""`/v1/personas`: a tenant's personas, made of samples, listed, fetched and deleted."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from pydeper.persona.persona import Persona
from pydeper.serve.access import Tenant
from pydeper.serve.engine import Engine
from pydeper.serve.problems import Problem, responses_of
from pydeper.serve.routes.bodies import (
    PersonaForm,
    PersonaId,
    PersonaOut,
    PersonaRequest,
    Personas,
    body_of,
    read_persona_request,
)
from pydeper.serve.routes.images import check_image
from pydeper.serve.settings import Settings
from pydeper.serve.store.store import Store, StoredPersona

router = APIRouter(prefix="/v1/personas", tags=["personas"])

_COMMON = ("invalid-request", "no-key", "forbidden-origin", "store-unavailable")


def no_such_persona() -> Problem:
    """Returns the answer where a tenant has no persona of an id, whether or not another tenant has one."""
    return Problem("not-found", "there is no persona of this id", "GET /v1/personas lists those that there are")


def _out(stored: StoredPersona) -> PersonaOut:
    return PersonaOut(
        id=stored.id,
        name=stored.name,
        model=stored.model_id,
        num_samples=stored.num_samples,
        created=stored.created,
    )


@router.post(
    "",
    status_code=201,
    summary="Make a persona of samples of one person",
    openapi_extra=body_of(PersonaRequest, PersonaForm),
    responses=responses_of(
        *_COMMON,
        "invalid-samples",
        "unreadable-image",
        "upload-too-slow",
        "too-large",
        "wrong-content-type",
        "too-many-personas",
        "queue-full",
        "deadline",
        "model-unavailable",
        "store-full",
    ),
)
async def create_persona(
    request: Request, tenant: Tenant, body: Annotated[PersonaRequest, Depends(read_persona_request)]
) -> PersonaOut:
    """Makes a persona and keeps it. The samples are forgotten; the persona holds no image, text or gaze."""
    settings: Settings = request.app.state.settings
    engine: Engine = request.app.state.engine
    store: Store = request.app.state.store
    model = engine.model()

    def make() -> StoredPersona:
        samples = [sample.sample(number) for number, sample in enumerate(body.samples)]
        for sample in body.samples:
            check_image(sample.image, settings)
        return store.add_persona(tenant, Persona.from_samples(samples, model=model, name=body.name))

    return _out(await engine.alone(make, settings.deadline_seconds))


@router.get("", summary="List the personas", responses=responses_of(*_COMMON))
def list_personas(
    request: Request,
    tenant: Tenant,
    after: Annotated[str, Query(max_length=64, description="the `next` of the page before")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Personas:
    """Lists the tenant's own personas, a page at a time."""
    store: Store = request.app.state.store
    found = store.list_personas(tenant, after=after, limit=limit + 1)
    page = found[:limit]
    return Personas(personas=[_out(stored) for stored in page], next=page[-1].id if len(found) > limit else None)


@router.get("/{persona_id}", summary="Tell about a persona", responses=responses_of(*_COMMON, "not-found"))
def get_persona(request: Request, tenant: Tenant, persona_id: PersonaId) -> PersonaOut:
    """Tells what is known of one of the tenant's own personas."""
    return _out(_found(request, tenant, persona_id)[0])


@router.get(
    "/{persona_id}/file",
    summary="Fetch a persona's file",
    response_class=Response,
    responses={
        200: {
            "description": "the file that Persona.load reads",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **responses_of(*_COMMON, "not-found"),
    },
)
def get_persona_file(request: Request, tenant: Tenant, persona_id: PersonaId) -> Any:
    """Gives back the file of one of the tenant's own personas, to use it elsewhere or send it along."""
    return Response(_found(request, tenant, persona_id)[1], media_type="application/octet-stream")


@router.delete(
    "/{persona_id}", status_code=204, summary="Delete a persona", responses=responses_of(*_COMMON, "not-found")
)
def delete_persona(request: Request, tenant: Tenant, persona_id: PersonaId) -> None:
    """Removes one of the tenant's own personas for good."""
    store: Store = request.app.state.store
    if not store.delete_persona(tenant, persona_id):
        raise no_such_persona()


def _found(request: Request, tenant: str, persona_id: str) -> tuple[StoredPersona, bytes]:
    store: Store = request.app.state.store
    if (found := store.find_persona(tenant, persona_id)) is None:
        raise no_such_persona()
    return found
