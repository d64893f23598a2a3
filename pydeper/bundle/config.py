"""What a bundle's `config.json` says, as classes that check themselves.

Reading is strict: an unknown key, a missing key, a wrong type or an impossible value is a `BundleError` that names the
key's path, as in `vlm.vision.patch_size`. Every key is written out in the file, so a bundle never depends on defaults.
"""

import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from pydeper import hub
from pydeper.errors import BundleError
from pydeper.untrusted import check_format_version, is_plain_name, is_plain_text, parse_json, shown

FORMAT_VERSION = 1
SUBJECT_TOKEN = "<subj>"
Modality = Literal["text+trajectory", "text", "trajectory"]
Precision = Literal["fp32", "fp16", "int8", "int4"]

_LONGEST_NAME = 256
_LONGEST_TEXT = 16_384

_T = TypeVar("_T")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _check(holds: Callable[[Any], bool], demand: str) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def validator(_: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if not holds(value):
            raise BundleError(f"{attribute.name}: must be {demand}, got {shown(value)}")

    return validator


def _size(most: int) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    """What is allocated by a config's word must have a bound; these lie far above any model that there is."""
    return _check(lambda n: 0 < n <= most, f"a size from 1 to {most}")


def _as_tuple(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(values)


def _distinct(values: tuple[Any, ...]) -> bool:
    return len(set(values)) == len(values)


_token_id = _check(lambda n: n >= 0, "a token id (0 or more)")
_named = _check(
    lambda s: bool(s.strip()) and len(s) <= _LONGEST_NAME and is_plain_text(s),
    f"a text of 1 to {_LONGEST_NAME} characters without control characters or line breaks",
)
_text = _check(
    lambda s: len(s) <= _LONGEST_TEXT and is_plain_text(s, breaks=True),
    f"a text of at most {_LONGEST_TEXT} characters without control characters",
)
_source = _check(
    lambda s: hub.is_repo_id(s) or (is_plain_name(s) and not s.startswith(".")),
    "the plain name of a folder in the bundle, or a Hugging Face Hub id ('org/name')",
)
_commit = _check(
    lambda s: s is None or _COMMIT.fullmatch(s) is not None, "a commit in full (40 hexadecimal digits), or null"
)
_optional_name = attrs.validators.optional(_named)
# Outside of float32's range they would be 0 or infinite in preprocessing.
_floats = _check(lambda xs: all(abs(x) <= 1e6 for x in xs), "numbers from -1e6 to 1e6")
_positive_floats = _check(lambda xs: all(1e-6 <= x <= 1e6 for x in xs), "numbers from 1e-6 to 1e6")
_token_ids = _check(lambda ids: all(i >= 0 for i in ids) and _distinct(ids), "distinct token ids (0 or more)")


@attrs.frozen
class ImageEncoderInfo:
    """The frozen image encoder inside the persona encoder, and the licence its weights came under."""

    name: str = attrs.field(validator=_named)
    licence: str = attrs.field(validator=_named)


@attrs.frozen(kw_only=True)
class PersonaEncoderConfig:
    """Sizes and preprocessing of the persona encoder.

    Attributes:
        fingerprint: Identity of the encoder's weights; a persona made with another encoder is refused.
        subject_embedding_size: Length of z_s (384 in the paper).
        image_encoder: The frozen image encoder's name and licence.
        image_size: Side of the square the image is resized to, in pixels.
        image_mean: Mean per channel (RGB), for pixels in [0, 1].
        image_std: Standard deviation per channel (RGB).
        max_fixations: Longer trajectories are cut (30 in the paper).
        max_description_tokens: Longer descriptions are cut (256 in the paper).
        modalities: The kinds of sample the encoder was trained to accept.
    """

    fingerprint: str = attrs.field(validator=_named)
    subject_embedding_size: int = attrs.field(default=384, validator=_size(2**16))
    image_encoder: ImageEncoderInfo
    image_size: int = attrs.field(validator=_size(2**12))
    image_mean: tuple[float, float, float] = attrs.field(converter=_as_tuple, validator=_floats)
    image_std: tuple[float, float, float] = attrs.field(converter=_as_tuple, validator=_positive_floats)
    max_fixations: int = attrs.field(validator=_size(2**16))
    max_description_tokens: int = attrs.field(validator=_size(2**16))
    modalities: tuple[Modality, ...] = attrs.field(
        converter=_as_tuple,
        validator=_check(lambda ms: bool(ms) and _distinct(ms), "at least one modality, none twice"),
    )


@attrs.frozen(kw_only=True)
class VisionConfig:
    """How the VLM turns an image into patches.

    Attributes:
        patch_size: Side of a patch in pixels (14 in Qwen2-VL).
        temporal_patch_size: Frames per patch; a still image is repeated (2 in Qwen2-VL).
        merge_size: Side of the square of patches that becomes one image token (2 in Qwen2-VL).
        image_mean: Mean per channel (RGB), for pixels in [0, 1].
        image_std: Standard deviation per channel (RGB).
        image_size: Fixed (height, width) in pixels, or None for Qwen's smart resize within the two limits below.
        min_pixels: Smaller images are enlarged to at least this many pixels (smart resize only).
        max_pixels: Larger images are reduced to at most this many pixels (smart resize only).
    """

    patch_size: int = attrs.field(validator=_size(2**8))
    temporal_patch_size: int = attrs.field(validator=_size(2**4))
    merge_size: int = attrs.field(validator=_size(2**4))
    image_mean: tuple[float, float, float] = attrs.field(converter=_as_tuple, validator=_floats)
    image_std: tuple[float, float, float] = attrs.field(converter=_as_tuple, validator=_positive_floats)
    image_size: tuple[int, int] | None = attrs.field(converter=attrs.converters.optional(_as_tuple))
    min_pixels: int = attrs.field(validator=_size(2**25))
    max_pixels: int = attrs.field(validator=_size(2**25))

    def __attrs_post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise BundleError(f"max_pixels: must be at least min_pixels = {self.min_pixels}, got {self.max_pixels}")
        side = self.patch_size * self.merge_size
        if self.image_size is not None and any(not 0 < n <= 2**12 or n % side for n in self.image_size):
            raise BundleError(
                f"image_size: both sides must be multiples of patch_size * merge_size = {side} from {side} to {2**12}, "
                f"got {shown(list(self.image_size))}"
            )


@attrs.frozen(kw_only=True)
class SpecialTokens:
    """Ids of the VLM tokenizer's special tokens.

    Attributes:
        subject: `<subj>`, the slot of the soft token.
        image: The placeholder that stands for one image token.
        vision_start: Opens an image.
        vision_end: Closes an image.
        end: Tokens that end a description.
        suppressed: Tokens that are never generated; includes `subject`.
    """

    subject: int = attrs.field(validator=_token_id)
    image: int = attrs.field(validator=_token_id)
    vision_start: int = attrs.field(validator=_token_id)
    vision_end: int = attrs.field(validator=_token_id)
    end: tuple[int, ...] = attrs.field(
        converter=_as_tuple, validator=[_token_ids, _check(bool, "at least one token id")]
    )
    suppressed: tuple[int, ...] = attrs.field(converter=_as_tuple, validator=_token_ids)

    def __attrs_post_init__(self) -> None:
        if not _distinct((self.subject, self.image, self.vision_start, self.vision_end)):
            raise BundleError("subject: subject, image, vision_start and vision_end must be four different ids")
        if self.subject not in self.suppressed:
            raise BundleError(f"suppressed: must include the subject {self.subject}, got {shown(self.suppressed)}")
        if both := set(self.end) & set(self.suppressed):
            raise BundleError(f"suppressed: must not include end tokens, got {shown(sorted(both))} in both")


@attrs.frozen(kw_only=True)
class VLMConfig:
    """The frozen vision-language model: where it comes from, its sizes and its special tokens.

    Attributes:
        base_model: Hub id (or name) of the model these files were exported from.
        base_revision: Its revision, or None where there is none.
        source: Where the ONNX files lie: the name of a folder in the bundle, or the Hub id of a repository that holds
            them as published Qwen2-VL repositories do (see `pydeper.bundle.vlm_files`). Tokenizer, prompts and image
            preprocessing are the bundle's own either way.
        source_revision: The commit of a Hub `source`, in full, so that the files can never change; None for a folder.
        precision: Which variant of the files is opened where no other is asked for.
        hidden_size: Width of the decoder, and so of the soft token.
        num_layers: Decoder layers.
        num_key_value_heads: Key/value heads per layer.
        head_dim: Width of one head.
        vocab_size: Rows of the embedding table.
        max_positions: Longest sequence in tokens: image, prompt and description together.
        vision: Image preprocessing.
        tokens: Special token ids.
    """

    base_model: str = attrs.field(validator=_named)
    base_revision: str | None = attrs.field(validator=_optional_name)
    source: str = attrs.field(validator=_source)
    source_revision: str | None = attrs.field(validator=_commit)
    precision: Precision
    hidden_size: int = attrs.field(validator=_size(2**16))
    num_layers: int = attrs.field(validator=_size(2**10))
    num_key_value_heads: int = attrs.field(validator=_size(2**10))
    head_dim: int = attrs.field(validator=_size(2**12))
    vocab_size: int = attrs.field(validator=_size(2**22))
    max_positions: int = attrs.field(validator=_size(2**24))
    vision: VisionConfig
    tokens: SpecialTokens

    @classmethod
    def from_dict(cls, data: object) -> "VLMConfig":
        """Parses the decoded JSON of a VLM's configuration by itself: what `config.json` has under `vlm`.

        Raises:
            BundleError: A key is unknown or missing, a type is wrong or a value impossible; names the key's path.
        """
        return _parse_class(cls, data, "")

    @property
    def is_on_hub(self) -> bool:
        """Whether `source` is a repository on the Hub rather than a folder in the bundle."""
        return hub.is_repo_id(self.source)

    def __attrs_post_init__(self) -> None:
        if self.is_on_hub and self.source_revision is None:
            raise BundleError(
                f"source_revision: must be a commit of {self.source!r}: its files would not be pinned with null"
            )
        if not self.is_on_hub and self.source_revision is not None:
            raise BundleError(
                f"source_revision: must be null, for source is a folder of the bundle, got {self.source_revision!r}"
            )
        for name, value in attrs.asdict(self.tokens).items():
            for token in value if isinstance(value, tuple) else (value,):
                if token >= self.vocab_size:
                    raise BundleError(f"tokens.{name}: must be below vocab_size {self.vocab_size}, got {shown(value)}")


@attrs.frozen
class PromptStyle:
    """The user's text of one style, with a persona and without.

    Attributes:
        with_persona: Contains `<subj>` exactly once.
        without_persona: Asks for the same without a persona; contains no `<subj>`.
    """

    with_persona: str = attrs.field(
        validator=[_text, _check(lambda s: s.count(SUBJECT_TOKEN) == 1, f"a text with {SUBJECT_TOKEN} exactly once")]
    )
    without_persona: str = attrs.field(
        validator=[_text, _check(lambda s: SUBJECT_TOKEN not in s, f"a text without {SUBJECT_TOKEN}")]
    )


@attrs.frozen
class Prompts:
    """The system turn and the user's text by style; the image always comes before the text."""

    system: str = attrs.field(validator=_text)
    styles: dict[str, PromptStyle] = attrs.field(
        validator=_check(
            lambda d: bool(d) and all(k.strip() and len(k) <= _LONGEST_NAME and is_plain_text(k) for k in d),
            "at least one style, each with a name without control characters",
        )
    )


@attrs.frozen(kw_only=True)
class BundleConfig:
    """All of `config.json`.

    Attributes:
        format_version: Version of the bundle format.
        name: The model's name.
        description: What it is for, in a sentence or two.
        licence: Licence of the bundle as a whole.
        persona_encoder: Sizes and preprocessing of the persona encoder.
        vlm: The frozen VLM.
        prompts: System turn and styles.
        training: Facts for the model card, in free form (JSON values).
    """

    format_version: int = attrs.field(
        default=FORMAT_VERSION, validator=_check(lambda n: n == FORMAT_VERSION, f"{FORMAT_VERSION}")
    )
    name: str = attrs.field(validator=_named)
    description: str = attrs.field(validator=_text)
    licence: str = attrs.field(validator=_text)
    persona_encoder: PersonaEncoderConfig
    vlm: VLMConfig
    prompts: Prompts
    training: dict[str, Any]

    @classmethod
    def from_dict(cls, data: object) -> "BundleConfig":
        """Parses the decoded JSON of a `config.json`.

        Raises:
            BundleError: A key is unknown or missing, a type is wrong or a value impossible; names the key's path.
        """
        # A newer format has other keys, so its version must be the first complaint.
        if isinstance(data, Mapping) and "format_version" in data:
            again = "export or download the bundle again"
            check_format_version(data["format_version"], FORMAT_VERSION, "bundles", again, BundleError)
        return _parse_class(cls, data, "")

    @classmethod
    def from_json(cls, text: str | bytes) -> "BundleConfig":
        """Parses the text of a `config.json` (UTF-8).

        Raises:
            BundleError: The text is not JSON, repeats a key, or `from_dict` refuses what it says.
        """
        data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        return cls.from_dict(parse_json(data, BundleError))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values; `from_dict(config.to_dict()) == config`."""
        return attrs.asdict(
            self, value_serializer=lambda *where: list(where[-1]) if type(where[-1]) is tuple else where[-1]
        )

    def to_json(self) -> str:
        """Returns the text of a `config.json`, indented, keys in the order of the classes."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _parse(kind: Any, value: object, path: str) -> Any:
    """Turns decoded JSON into `kind`: an attrs class, a scalar, a Literal, an optional, a tuple or a dict."""
    if attrs.has(kind):
        return _parse_class(kind, value, path)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _parse(inner, value, path)
    if origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
        raise _wrong(path, f"one of {', '.join(map(repr, arguments))}", value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(path, "a list", value)
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise _wrong(path, f"a list of {len(arguments)} values", value)
        return tuple(_parse(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        table = _object(value, path)
        return {key: _parse(arguments[1], item, f"{path}.{key[:_LONGEST_NAME]}") for key, item in table.items()}
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300:
            return float(value)
        raise _wrong(path, "a finite number", value)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise _wrong(path, {int: "a whole number", str: "a string"}[kind], value)


def _parse_class(kind: type[_T], value: object, path: str) -> _T:
    table = _object(value, path)
    fields = get_type_hints(kind)
    prefix = f"{path}." if path else ""
    if unknown := [key for key in table if key not in fields]:
        raise BundleError(f"{prefix}{unknown[0][:_LONGEST_NAME]}: unknown key; known here: {', '.join(fields)}")
    if missing := [key for key in fields if key not in table]:
        raise BundleError(f"{prefix}{missing[0]}: missing key; needed here: {', '.join(fields)}")
    parsed = {key: _parse(hint, table[key], prefix + key) for key, hint in fields.items()}
    try:
        return kind(**parsed)
    except BundleError as error:
        raise BundleError(f"{prefix}{error}") from None


def _object(value: object, path: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _wrong(path, "an object with string keys", value)
    return value


def _wrong(path: str, wanted: str, value: object) -> BundleError:
    return BundleError(f"{path or 'config'}: must be {wanted}, got {type(value).__name__} {shown(value)}")
