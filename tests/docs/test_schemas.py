"""The docs' JSON Schemas: real files fit them, readers accept nothing that they refuse, classes have their keys."""

import copy
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

import pydeper
from pydeper import Persona, PydeperError
from pydeper.bundle import config as config_module
from pydeper.bundle.config import BundleConfig
from pydeper.bundle.manifest import ManifestEntry, read_manifest
from pydeper.persona.repository import PublishedPersona
from tests.support.docs.pages import blocks, pages
from tests.support.paths import ROOT

SCHEMAS = {path.name.split(".")[0]: json.loads(path.read_text()) for path in (ROOT / "docs/schemas").glob("*.json")}
BUNDLES = [ROOT / "pydeper/builtin/tiny", ROOT / "tests/golden/format-1/bundle"]
PERSONAS = sorted((ROOT / "tests/golden/format-1").glob("*.safetensors"))
SAMPLES = sorted([*(ROOT / "pydeper/builtin/tiny/demo").glob("*.jsonl"), *(ROOT / "tests/golden").rglob("*.jsonl")])


def fits(kind: str, value: Any) -> bool:
    return jsonschema.Draft202012Validator(SCHEMAS[kind]).is_valid(value)


def metadata_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_one(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[kind])


# --- real files


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_real_bundles_fit(folder: Path) -> None:
    for kind in ("config", "manifest"):
        jsonschema.validate(json.loads((folder / f"{kind}.json").read_text()), SCHEMAS[kind])


def test_real_samples_fit() -> None:
    assert len(SAMPLES) >= 3
    for path in SAMPLES:
        for line in path.read_text(encoding="utf-8").splitlines():
            jsonschema.validate(json.loads(line), SCHEMAS["sample"])


def test_real_personas_fit(tmp_path: Path) -> None:
    assert PERSONAS
    made = a_persona(model_revision="0" * 40).save(tmp_path / "made.safetensors")
    for path in (*PERSONAS, made):
        jsonschema.validate(metadata_of(path), SCHEMAS["persona"])
    assert set(metadata_of(made)) == set(SCHEMAS["persona"]["properties"])


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_real_list_of_personas_fits(hub_server) -> None:
    a_persona().push_to_hub("org/personas", consent="written consent, 2026-11-22")
    a_persona(name="ben", model_revision="1" * 40).push_to_hub("org/personas", synthetic=True)
    listed = json.loads(hub_server.repositories["org/personas"].files()["personas.json"])
    jsonschema.validate(listed, SCHEMAS["personas"])
    assert set(listed["personas"]) == {"ana", "ben"}
    del listed["personas"]["ana"]["consent"]
    assert not fits("personas", listed)


def a_persona(**changes: Any) -> Persona:
    vector = np.random.default_rng(0).standard_normal(384)
    made = Persona(
        subject_embedding=vector, encoder_fingerprint="sha256:" + "f" * 64, model_id="org/m", num_samples=5, name="ana"
    )
    return attrs.evolve(made, **changes)


def test_samples_that_pages_show_fit() -> None:
    shown = [
        json.loads(line)
        for page in (ROOT / "README.md", *pages())
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language == "json" and block.title != "recording.json"  # of the capture widget
        for line in block.text.splitlines()
    ]
    assert len(shown) >= 2
    for sample in shown:
        jsonschema.validate(sample, SCHEMAS["sample"])


# --- classes


def keys(schema: dict[str, Any]) -> tuple[set[str], set[str], object]:
    return set(schema["properties"]), set(schema["required"]), schema["additionalProperties"]


def names(kind: type) -> set[str]:
    return {field.name for field in attrs.fields(kind)}


def test_the_config_s_schema_has_the_keys_and_types_of_its_classes() -> None:
    whole = SCHEMAS["config"]
    classes = {"BundleConfig": whole, **whole["$defs"]}
    assert set(classes) == {
        one.__name__
        for one in vars(config_module).values()
        if attrs.has(one) and one.__module__ == config_module.__name__
    }
    for name, schema in classes.items():
        kind = getattr(config_module, name)
        assert keys(schema) == (names(kind), names(kind), False), name
        for field in attrs.fields(kind):
            check_type(field.type, schema["properties"][field.name], f"{name}.{field.name}")


def check_type(kind: Any, schema: dict[str, Any], place: str) -> None:
    origin, arguments = get_origin(kind), get_args(kind)
    if attrs.has(kind):
        assert schema["$ref"] == f"#/$defs/{kind.__name__}", place
    elif origin is Literal:
        assert schema["enum"] == list(arguments), place
    elif origin in (Union, types.UnionType):
        inner, nothing = arguments
        assert nothing is type(None)
        assert "null" in schema["type"], place
        check_type(inner, {**schema, "type": next(one for one in schema["type"] if one != "null")}, place)
    elif origin is tuple:
        assert schema["type"] == "array", place
        check_type(arguments[0], schema["items"], place)
        if arguments[-1] is not Ellipsis:
            assert schema["minItems"] == schema["maxItems"] == len(arguments), place
    elif origin is dict:
        assert schema["type"] == "object", place
        if arguments[1] is not Any:
            check_type(arguments[1], schema["additionalProperties"], place)
    elif "const" in schema:
        assert isinstance(schema["const"], kind), place
    else:
        assert schema["type"] == {int: "integer", float: "number", str: "string"}[kind], place


def test_the_other_schemas_have_the_keys_of_their_classes() -> None:
    assert keys(SCHEMAS["manifest"]["$defs"]["file"]) == (names(ManifestEntry), names(ManifestEntry), False)
    published = names(PublishedPersona) - {"name"}
    assert keys(SCHEMAS["personas"]["$defs"]["persona"]) == (published, published, False)
    assert set(SCHEMAS["sample"]["properties"]) == names(pydeper.Sample) - {"source"}
    assert set(SCHEMAS["sample"]["$defs"]["fixation"]["properties"]) == names(pydeper.Fixation)
    persona = names(Persona) - {"subject_embedding"} | {"format_version"}
    assert set(SCHEMAS["persona"]["properties"]) == persona
    optional = {field.name for field in attrs.fields(Persona) if field.default is None}
    assert set(SCHEMAS["persona"]["required"]) == persona - optional


# --- what readers accept


WRONG = (None, True, -1, 0, 1.5, 10**9, "", " ", "x", "y" * 300, [], [1], [None], {}, {"unknown": 1})


def changed(value: Any, *, wrong: tuple[Any, ...] = WRONG) -> Iterator[Any]:
    """A value with one part removed, replaced, or one unknown key added."""

    def places(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, below in inner:
            yield (*path, key)
            yield from places(below, (*path, key))

    for path in places(value):
        for replacement in (*wrong, places):  # `places` stands for removing
            new = copy.deepcopy(value)
            holder = new
            for key in path[:-1]:
                holder = holder[key]
            if replacement is places:
                del holder[path[-1]]
            else:
                holder[path[-1]] = replacement
            yield new
    if isinstance(value, dict):
        yield {**value, "unknown": 1}


def accepted_by(read: Any) -> bool:
    try:
        read()
    except PydeperError:
        return False
    return True


def check(kind: str, candidates: Iterator[Any], accepts: Any) -> None:
    """Holds a reader to a schema: what it accepts must fit. Both refuse and accept enough for that to say something."""
    refused = accepted = 0
    for candidate in candidates:
        if accepts(candidate):
            accepted += 1
            assert fits(kind, candidate), f"accepted, but does not fit: {candidate}"
        else:
            refused += not fits(kind, candidate)
    assert accepted > 3
    assert refused > 20


def test_a_config_that_is_accepted_fits() -> None:
    real = json.loads((BUNDLES[1] / "config.json").read_text())
    check("config", changed(real), lambda config: accepted_by(lambda: BundleConfig.from_dict(config)))


def test_a_manifest_that_is_accepted_fits(tmp_path: Path) -> None:
    real = json.loads((BUNDLES[1] / "manifest.json").read_text())

    def accepts(manifest: Any) -> bool:
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        return accepted_by(lambda: read_manifest(tmp_path))

    check("manifest", changed(real), accepts)


@pytest.mark.filterwarnings("ignore:.*fields that are not part of the format:UserWarning")
def test_a_sample_that_is_accepted_fits(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"only looked for, not opened")
    real = {
        "image": "image.png",
        "description": "A dog.",
        "subject": "ana",
        "split": "train",
        "trajectory": [{"box": [0.1, 0.2, 0.3, 0.4], "duration": 0.3}, {"box": [0, 0, 1, 1], "duration": 3600}],
    }

    def accepts(sample: Any) -> bool:
        (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
        return accepted_by(lambda: pydeper.read_samples(tmp_path / "samples.jsonl", check_durations=False))

    assert accepts(real)
    check("sample", changed(real), accepts)


def test_a_persona_that_is_accepted_fits(tmp_path: Path) -> None:
    path = a_persona(model_revision="0" * 40).save(tmp_path / "real.safetensors")
    real = metadata_of(path)
    texts = ("", " ", "x", "y" * 300, "2", "0", "-1", "05", "1.5", "2026-11-22", "2026-11-22T10:00:00", "a\x1b[2J")

    def accepts(metadata: dict[str, str]) -> bool:
        save_file({"subject_embedding": np.ones(384, np.float32)}, tmp_path / "one.safetensors", metadata)
        return accepted_by(lambda: Persona.load(tmp_path / "one.safetensors"))

    def candidates() -> Iterator[dict[str, str]]:
        return (one for one in changed(real, wrong=texts) if all(isinstance(value, str) for value in one.values()))

    check("persona", candidates(), accepts)
