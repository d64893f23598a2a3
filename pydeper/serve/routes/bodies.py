"""What clients send and get, as classes: they check requests, and the OpenAPI page is made from them.

A body is JSON with files in base64, or multipart/form-data with files as parts. Both are read here, under limits, into
the same classes.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.json_schema import models_json_schema

from pydeper.errors import InvalidSampleError
from pydeper.readers.records import parse_object
from pydeper.samples.sample import Sample
from pydeper.samples.trajectory import Fixation, Trajectory
from pydeper.serve.problems import Problem
from pydeper.serve.settings import Settings
from pydeper.serve.uploads import Part, read_body, read_form

REF = "#/components/schemas/{model}"


def _decoded(value: object) -> object:
    if not isinstance(value, str):
        return value  # a part of a form, which is bytes already
    if value[:5].lower() == "data:":
        raise ValueError("is a data URI; send what follows its comma")
    if re.match(r"\w+://", value):
        raise ValueError("is an address, and addresses are not fetched; send the file itself")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"is not base64: {error}") from error


File = Annotated[
    bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64", "minLength": 1})
]
FilePart = Annotated[bytes, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})]
PersonaId = Annotated[str, Field(pattern="^[0-9a-f]{32}$", examples=["5f0c3e2b9d8a4c6f8e7d6c5b4a392817"])]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Options(_Strict):
    """How a description is asked for; the ranges are those of `DeperModel.describe`."""

    persona_id: PersonaId | None = Field(None, description="a stored persona; neither this nor a file: nobody's style")
    style: str = Field("description", max_length=64, description="one of the model's styles")
    max_new_tokens: int = Field(256, ge=1, le=2**31, description="the most tokens to write")
    temperature: float = Field(0.0, ge=0, le=1e6, description="0 takes the likeliest token; above 0 samples")
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1, le=1e6)
    seed: int | None = Field(None, ge=0, lt=2**63, description="makes sampling repeatable")
    strength: float = Field(1.0, ge=0, le=1e6, description="0 without the persona, 1 as trained, above 1 more")
    stream: bool = Field(False, description="answer with server-sent events while the text is written")
    deadline_seconds: float | None = Field(
        None, gt=0, description="how long the answer may take; the gateway has a limit"
    )


class DescribeRequest(Options):
    """A description that is asked for, in JSON."""

    image: File = Field(description="the bytes of an image file, in base64")
    persona: File | None = Field(None, description="a persona's file, in base64, in place of persona_id")


class DescribeForm(Options):
    """A description that is asked for, as a form."""

    image: FilePart = Field(description="an image file")
    persona: FilePart | None = Field(None, description="a persona's file, in place of persona_id")


class FixationIn(_Strict):
    """One fixation."""

    box: tuple[float, float, float, float] = Field(description="(x1, y1, x2, y2), fractions of the upright image")
    duration: float = Field(description="seconds")


class SampleIn(_Strict):
    """One image, with what the person said about it, how they looked at it, or both."""

    image: File = Field(description="the bytes of an image file, in base64")
    description: str | None = Field(None, max_length=20_000)
    trajectory: list[FixationIn] | None = Field(None, max_length=10_000)

    def sample(self, number: int) -> Sample:
        """Returns the sample.

        Raises:
            InvalidSampleError: It does not hold what a sample does; names its number.
        """
        try:
            fixations = None if self.trajectory is None else [Fixation(it.box, it.duration) for it in self.trajectory]
            trajectory = None if fixations is None else Trajectory(fixations)
            return Sample(image=self.image, description=self.description, trajectory=trajectory)
        except InvalidSampleError as error:
            raise InvalidSampleError(f"samples[{number}]: {error}") from error


class PersonaRequest(_Strict):
    """A persona that is to be made of samples of one person, in JSON."""

    name: str | None = Field(None, min_length=1, max_length=256, description="what to call the person")
    samples: list[SampleIn] = Field(min_length=1, description="about 5 are enough")


class PersonaForm(_Strict):
    """A persona that is to be made of samples of one person, as a form."""

    name: str | None = Field(None, min_length=1, max_length=256, description="what to call the person")
    samples: FilePart = Field(
        description="a samples file (JSON Lines), whose images are the names of the files sent along"
    )
    images: list[FilePart] = Field(description="the image files")


class Description(BaseModel):
    """A finished description."""

    description: str
    model: str


class PersonaOut(BaseModel):
    """A stored persona."""

    id: str
    name: str | None
    model: str
    num_samples: int
    created: datetime


class Personas(BaseModel):
    """A page of personas."""

    personas: list[PersonaOut]
    next: str | None = Field(description="give it as `after` for the next page; null on the last one")


class Health(BaseModel):
    """Whether something works."""

    status: Literal["ok", "unavailable"]
    reasons: list[str] = []


_T = TypeVar("_T", bound=BaseModel)
_REQUESTS = (DescribeRequest, DescribeForm, PersonaRequest, PersonaForm)


def request_schemas() -> dict[str, Any]:
    """Returns the JSON Schemas of all bodies, by their names."""
    _, schemas = models_json_schema([(model, "validation") for model in _REQUESTS], ref_template=REF)
    found: dict[str, Any] = schemas["$defs"]
    return found


def body_of(json_model: type[BaseModel], form_model: type[BaseModel]) -> dict[str, Any]:
    """Returns the OpenAPI entry of a body that comes in either form."""
    content = {
        media_type: {"schema": {"$ref": REF.format(model=model.__name__)}}
        for media_type, model in (("application/json", json_model), ("multipart/form-data", form_model))
    }
    return {"requestBody": {"required": True, "content": content}}


async def read_describe_request(request: Request) -> DescribeRequest:
    """Reads the body of a request for a description.

    Raises:
        Problem: It is of another type, too large, too slow, or not as it should be.
    """
    settings: Settings = request.app.state.settings
    kind, body = await _body(request, settings)
    if kind == "application/json":
        return await run_in_threadpool(_parsed, DescribeRequest, body)
    form = await read_form(request.headers["content-type"], body, max_files=2)
    fields = _unique(form)
    for name in ("image", "persona"):
        if isinstance(fields.get(name), str):
            raise _not_a_file(name)
    return _validated(DescribeRequest, fields)


async def read_persona_request(request: Request) -> PersonaRequest:
    """Reads the body of a request for a persona.

    Raises:
        Problem: It is of another type, too large, too slow, or not as it should be.
    """
    settings: Settings = request.app.state.settings
    kind, body = await _body(request, settings)
    if kind == "application/json":
        found = await run_in_threadpool(_parsed, PersonaRequest, body)
    else:
        form = await read_form(request.headers["content-type"], body, max_files=settings.max_samples + 1)
        images = {
            part.file_name: part.value for part in form if part.name == "images" and isinstance(part.value, bytes)
        }
        fields = _unique([part for part in form if part.name != "images"])
        if not isinstance(fields.get("samples"), bytes):
            raise _not_a_file("samples")
        fields["samples"] = _samples_of(fields["samples"], images)
        found = _validated(PersonaRequest, fields)
    if len(found.samples) > settings.max_samples:
        raise Problem(
            "invalid-request",
            f"there are {len(found.samples)} samples; at most {settings.max_samples} are taken",
            "send fewer; about 5 are enough",
        )
    return found


def _samples_of(lines: bytes, images: dict[str | None, bytes]) -> list[dict[str, Any]]:
    """The samples of a JSON Lines file, each with the bytes of its image."""
    samples: list[dict[str, Any]] = []
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = parse_object(line)
        except InvalidSampleError as error:
            raise InvalidSampleError(f"samples, line {number}: {error}") from error
        name = str(record.get("image")).rpartition("/")[2]
        if name not in images:
            raise InvalidSampleError(f"samples, line {number}: no file {name[:80]!r} was sent as images")
        wanted: dict[str, Any] = {key: record[key] for key in ("description", "trajectory") if key in record}
        samples.append({**wanted, "image": images[name]})
    return samples


async def _body(request: Request, settings: Settings) -> tuple[str, bytes]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "multipart/form-data"):
        raise Problem(
            "wrong-content-type",
            f"the body's type is {kind[:80]!r}" if kind else "the request says no type of its body",
            "send application/json or multipart/form-data",
        )
    return kind, await read_body(request, settings)


def _unique(form: Sequence[Part]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for part in form:
        if part.name in fields:
            raise Problem("invalid-request", f"the part {part.name[:80]!r} comes twice", "send it once")
        fields[part.name] = part.value
    return fields


def _not_a_file(name: str) -> Problem:
    return Problem(
        "invalid-request",
        f"{name} must be a part with a file name",
        f"send it as a file, as `curl -F {name}=@FILE` does; addresses are not fetched",
        errors=[{"field": name, "message": "must be a file"}],
    )


def _parsed(model: type[_T], body: bytes) -> _T:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from error


def _validated(model: type[_T], fields: dict[str, Any]) -> _T:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise _invalid(error) from error


def invalid_fields(errors: Sequence[Any]) -> Problem:
    """Returns the answer to fields that are wrong; it names them, and repeats nothing of what they held."""
    found = [
        {"field": ".".join(str(part)[:80] for part in error["loc"]) or "body", "message": str(error["msg"])[:300]}
        for error in errors[:20]
    ]
    detail = "; ".join(f"{error['field']}: {error['message']}" for error in found[:3])
    return Problem("invalid-request", detail, "correct these fields; /docs says what each may hold", errors=found)


def _invalid(error: ValidationError) -> Problem:
    return invalid_fields(error.errors(include_url=False, include_context=False, include_input=False))
