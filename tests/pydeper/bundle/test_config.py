import contextlib
import copy
import json
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pydeper.bundle.config import (
    BundleConfig,
    ImageEncoderInfo,
    PersonaEncoderConfig,
    Prompts,
    PromptStyle,
    SpecialTokens,
    VisionConfig,
    VLMConfig,
)
from pydeper.errors import BundleError


def make_config() -> BundleConfig:
    return BundleConfig(
        name="small",
        description="A small model.",
        licence="Apache-2.0",
        persona_encoder=PersonaEncoderConfig(
            fingerprint="sha256:00",
            image_encoder=ImageEncoderInfo("dinov3-convnext-tiny", "DINOv3 License"),
            image_size=448,
            image_mean=(0.485, 0.456, 0.406),
            image_std=(0.229, 0.224, 0.225),
            max_fixations=30,
            max_description_tokens=256,
            modalities=("text+trajectory", "text"),
        ),
        vlm=VLMConfig(
            base_model="Qwen/Qwen2-VL-2B-Instruct",
            base_revision=None,
            source="vlm",
            source_revision=None,
            precision="int4",
            hidden_size=1536,
            num_layers=28,
            num_key_value_heads=2,
            head_dim=128,
            vocab_size=151936,
            max_positions=32768,
            vision=VisionConfig(
                patch_size=14,
                temporal_patch_size=2,
                merge_size=2,
                image_mean=(0.48, 0.46, 0.41),
                image_std=(0.27, 0.26, 0.28),
                image_size=None,
                min_pixels=3136,
                max_pixels=200704,
            ),
            tokens=SpecialTokens(
                subject=151657,
                image=151655,
                vision_start=151652,
                vision_end=151653,
                end=(151645, 151643),
                suppressed=(151657, 151655),
            ),
        ),
        prompts=Prompts(
            "You are a helpful assistant.",
            {
                "description": PromptStyle(
                    "Write a description of this photo in the style of <subj>", "Write a description of this photo"
                ),
            },
        ),
        training={"people": 160, "nested": {"list": [1, 2.5, None, "x"]}},
    )


def as_json() -> dict[str, Any]:
    return json.loads(make_config().to_json())


def parent_of(data: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    *folders, last = path.split(".")
    for key in folders:
        data = data[key]
    return data, last


def test_round_trip() -> None:
    config = make_config()
    assert BundleConfig.from_json(config.to_json()) == config
    assert BundleConfig.from_dict(config.to_dict()) == config
    fixed = attrs.evolve(
        config, vlm=attrs.evolve(config.vlm, vision=attrs.evolve(config.vlm.vision, image_size=[84, 112]))
    )
    assert BundleConfig.from_json(fixed.to_json()).vlm.vision.image_size == (84, 112)


def test_json_holds_plain_values_in_declared_order() -> None:
    data = as_json()
    assert list(data)[:3] == ["format_version", "name", "description"]
    assert data["vlm"]["tokens"]["end"] == [151645, 151643]
    assert data["vlm"]["vision"]["image_size"] is None


def test_classes_are_frozen() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        make_config().name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", ""),
        ("name", 3),
        ("name", "a\x1b[31m"),
        ("name", "a\nb"),
        ("name", "x" * 257),
        ("description", "\u202ehidden"),
        ("description", "x" * 20_000),
        ("licence", "\x07"),
        ("prompts.system", "\x00"),
        ("persona_encoder.image_size", 10**6),
        ("persona_encoder.image_mean", [0.5, 0.5, 1e38]),
        ("persona_encoder.image_std", [0.5, 0.5, 1e-40]),
        ("persona_encoder.max_fixations", 10**30),
        ("vlm.num_layers", 10**9),
        ("vlm.vision.max_pixels", 10**12),
        ("vlm.vision.image_size", [28 * 10**6, 28]),
        ("vlm.source", ".hidden"),
        ("vlm.source", "nul"),
        ("vlm.source", "vlm."),
        ("vlm.base_revision", "\x9b1A"),
        ("format_version", 0),
        ("description", None),
        ("persona_encoder.image_size", 448.0),
        ("persona_encoder.image_size", True),
        ("persona_encoder.image_size", 0),
        ("persona_encoder.image_mean", [0.5, 0.5]),
        ("persona_encoder.image_std", [0.5, 0.5, 0.0]),
        ("persona_encoder.image_encoder", "dinov3"),
        ("persona_encoder.image_encoder.licence", " "),
        ("persona_encoder.modalities", []),
        ("persona_encoder.modalities", ["text", "text"]),
        ("vlm.hidden_size", "1536"),
        ("vlm.source", "../elsewhere"),
        ("vlm.source", ".."),
        ("vlm.source", "a/b/c"),
        ("vlm.source", "C:\\vlm"),
        ("vlm.source_revision", "0" * 40),
        ("vlm.source_revision", 7),
        ("vlm.precision", "int3"),
        ("vlm.precision", "FP16"),
        ("vlm.precision", None),
        ("vlm.vision.image_size", [100, 84]),
        ("vlm.vision.image_size", [84]),
        ("vlm.vision.max_pixels", 10),
        ("vlm.tokens.end", []),
        ("vlm.tokens.end", [1, 1]),
        ("vlm.tokens.suppressed", [151655]),
        ("vlm.tokens.suppressed", [151657, 151645]),
        ("vlm.tokens.image", 151936),
        ("vlm.tokens.image", -1),
        ("prompts.styles", {}),
        ("prompts.styles", {" ": {"with_persona": "<subj>", "without_persona": ""}}),
        ("prompts.styles.description.with_persona", "no slot"),
        ("prompts.styles.description.with_persona", "<subj> and <subj>"),
        ("prompts.styles.description.without_persona", "like <subj>"),
        ("format_version", 2),
        ("format_version", "1"),
        ("training", []),
    ],
)
def test_wrong_values_name_their_path(path: str, value: object) -> None:
    data = as_json()
    parent, key = parent_of(data, path)
    parent[key] = value
    with pytest.raises(BundleError, match=f"^{path}"):
        BundleConfig.from_dict(data)


def test_a_vlms_configuration_is_parsed_by_itself_as_strictly() -> None:
    config, data = make_config(), as_json()["vlm"]
    assert VLMConfig.from_dict(data) == config.vlm
    for change, message in (
        ({"hidden_size": 0}, "^hidden_size: must be a size"),
        ({"extra": 1}, "^extra: unknown key"),
        ({"vision": None}, "^vision: must be an object"),
    ):
        with pytest.raises(BundleError, match=message):
            VLMConfig.from_dict(data | change)
    with pytest.raises(BundleError, match="must be an object"):
        VLMConfig.from_dict([])


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_vlm_on_the_hub_is_pinned_by_its_commit() -> None:
    data = as_json()
    data["vlm"] |= {"source": "org/name", "source_revision": COMMIT}
    config = BundleConfig.from_dict(data)
    assert config.vlm.is_on_hub
    assert BundleConfig.from_json(config.to_json()) == config
    assert not make_config().vlm.is_on_hub
    for revision, told in (
        (None, "must be a commit of 'org/name'"),
        ("main", "a commit in full"),
        (COMMIT[:12], "full"),
    ):
        data["vlm"]["source_revision"] = revision
        with pytest.raises(BundleError, match=rf"^vlm\.source_revision: .*{told}"):
            BundleConfig.from_dict(data)


def test_one_wrong_item_is_named_by_its_index() -> None:
    data = as_json()
    data["persona_encoder"]["modalities"] = ["text", "gaze"]
    with pytest.raises(BundleError, match=r"^persona_encoder\.modalities\[1\]: .*'gaze'"):
        BundleConfig.from_dict(data)


def test_a_number_that_python_will_not_print_is_refused() -> None:
    data = as_json()
    data["vlm"]["vocab_size"] = 10**5000
    with pytest.raises(BundleError, match=r"^vlm\.vocab_size: must be a size from 1 to"):
        BundleConfig.from_dict(data)


def test_a_newer_format_is_the_first_complaint() -> None:
    with pytest.raises(
        BundleError, match=r"^format_version: pydeper .* reads bundles of format 1, got 2: a newer .*--upgrade"
    ):
        BundleConfig.from_dict({"format_version": 2, "something": "new"})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1e999", "NaN", "[" * 100_000, b"\xff\xfe\x00"])
def test_text_that_is_no_config(text: str | bytes) -> None:
    with pytest.raises(BundleError):
        BundleConfig.from_json(text)


def test_repeated_keys_and_nan_are_refused() -> None:
    text = make_config().to_json()
    with pytest.raises(BundleError, match="same key twice in one object: 'name'"):
        BundleConfig.from_json(text.replace('"name": "small"', '"name": "a", "name": "b"'))
    with pytest.raises(BundleError, match="NaN"):
        BundleConfig.from_json(text.replace("0.485", "NaN"))


def every_path(data: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(data, dict):
        return []
    inner = [p for key, value in data.items() if (*path, key) != ("training",) for p in every_path(value, (*path, key))]
    return [(*path, key) for key in data] + inner


PATHS = every_path(as_json())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(PATHS), st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_any_mutation_parses_and_round_trips_or_is_a_bundle_error(path: tuple[str, ...], data: st.DataObject) -> None:
    config = as_json()
    parent, key = parent_of(config, ".".join(path))
    action = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if action == "replace":
        parent[key] = data.draw(JSON)
    elif action == "remove":
        del parent[key]
    else:
        parent[data.draw(st.text(max_size=8))] = data.draw(JSON)
    before = copy.deepcopy(config)
    with contextlib.suppress(BundleError):  # nothing else may come out
        parsed = BundleConfig.from_dict(config)
        assert BundleConfig.from_json(parsed.to_json()) == parsed
    assert config == before


@given(st.sampled_from(PATHS))
def test_every_key_is_needed_and_named(path: tuple[str, ...]) -> None:
    dotted = ".".join(path)
    if dotted == "prompts.styles.description":
        return
    config = as_json()
    parent, key = parent_of(config, dotted)
    del parent[key]
    with pytest.raises(BundleError, match=f"^{dotted}: missing key"):
        BundleConfig.from_dict(config)
    parent[key + "x"] = None
    with pytest.raises(BundleError, match=f"^{dotted}x: unknown key"):
        BundleConfig.from_dict(config)
