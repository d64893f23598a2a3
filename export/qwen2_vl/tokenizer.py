"""What a bundle takes over from the VLM's own repository: the tokenizer, and how images are prepared for it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from tokenizers import AddedToken, Tokenizer

from pydeper import hub
from pydeper.bundle.config import SUBJECT_TOKEN, VisionConfig
from pydeper.bundle.tokenizer import token_id
from pydeper.errors import BundleError

_PREPROCESSOR = "preprocessor_config.json"
_TOKENIZER = "tokenizer.json"
_VOCABULARY = ("vocab.json", "merges.txt", "tokenizer_config.json")  # the last has the special tokens

# What `pydeper.vlm.image_patches` always does; the numbers are Pillow's for bicubic and the scale to [0, 1].
_ALWAYS = {
    "do_convert_rgb": True,
    "do_resize": True,
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
}


def bundle_tokenizer(source: str | Path, revision: str | None = None, *, vocab_size: int) -> Tokenizer:
    """Reads a VLM's tokenizer and gives it `<subj>`, a special token at the first free id (151657 for Qwen2-VL).

    The embedding table is not resized: it must have a row to spare. The tokenizer encodes whole texts, without padding,
    and never reads special tokens out of them; `tokenizer.json` does not store the latter, so `pydeper` sets it again
    when it loads the file.

    Args:
        source: A folder laid out as on the Hub, or a Hub id. `tokenizer.json` is read; where there is none,
            `vocab.json`, `merges.txt` and `tokenizer_config.json`, as transformers reads them.
        revision: Branch, tag or commit on the Hub; None for a folder.
        vocab_size: Rows of the VLM's embedding table (151,936 in Qwen2-VL-2B).

    Raises:
        BundleError: The files cannot be had or read.
        ValueError: `<subj>` is in the vocabulary already and is not a special token, or the table has no row for it.
    """
    path = _find(source, _TOKENIZER, revision)
    tokenizer = _from_vocabulary(source, revision) if path is None else _from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    _add_subject(tokenizer, source, vocab_size)
    return tokenizer


def vision_config(
    source: str | Path, image_size: tuple[int, int] | None = (448, 448), revision: str | None = None
) -> VisionConfig:
    """Reads `preprocessor_config.json` of a Qwen2-VL, with the resolution that the bundle is to have.

    Args:
        source: A folder laid out as on the Hub, or a Hub id.
        image_size: (height, width) in pixels that every image is resized to, multiples of `patch_size * merge_size`:
            the paper's 448×448 gives 256 image tokens. None keeps the aspect ratio, by Qwen's smart resize between the
            file's limits. These are published as `min_pixels` and `max_pixels`, or as `size.shortest_edge` and
            `size.longest_edge` (counts of pixels as well, whatever the names say); the former win where both are
            given, as in transformers.
        revision: Branch, tag or commit on the Hub; None for a folder.

    Raises:
        BundleError: The file cannot be had or read, a key is missing or has an impossible value, the file asks for
            another preparation than `pydeper`'s, or `image_size` does not fit the patches.
    """
    path = _find(source, _PREPROCESSOR, revision)
    if path is None:
        raise BundleError(f"{source}: has no {_PREPROCESSOR}, which says how images are prepared; check the path or id")
    settings = _read_json(path)
    for key, value in _ALWAYS.items():
        if (found := settings.get(key)) not in (None, value):
            raise BundleError(f"{path}: {key}: is {found!r}, but pydeper always prepares images with {value!r}")
    values: dict[str, Any] = {
        **{key: _integer(settings, key, path) for key in ("patch_size", "temporal_patch_size", "merge_size")},
        **{key: _channels(settings, key, path) for key in ("image_mean", "image_std")},
        "min_pixels": _limit(settings, "min_pixels", "shortest_edge", path),
        "max_pixels": _limit(settings, "max_pixels", "longest_edge", path),
    }
    try:
        config = VisionConfig(image_size=None, **values)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
    return attrs.evolve(config, image_size=image_size)


def _find(source: str | Path, name: str, revision: str | None) -> Path | None:
    """The path of one file of the repository, or None where the repository has no such file."""
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise BundleError(f"revision: the folder {folder} has no revisions, got {revision!r}; leave it out")
        return folder / name if (folder / name).is_file() else None
    if not hub.is_repo_id(str(source)):
        raise BundleError(f"{source}: is neither a folder nor a Hub id of the form 'organisation/name'")
    try:
        return hub.fetch_file(str(source), name, revision=revision, local_files_only=False, error=BundleError)
    except BundleError as error:
        cause = error.__cause__
        if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
            return None
        raise


def _from_file(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise BundleError(f"{path}: is not a tokenizer that this version of tokenizers reads: {error}") from error


def _from_vocabulary(source: str | Path, revision: str | None) -> Tokenizer:
    paths = {name: _find(source, name, revision) for name in _VOCABULARY}
    if missing := [name for name, path in paths.items() if path is None]:
        raise BundleError(f"{source}: has neither {_TOKENIZER} nor {' and '.join(missing)}; check the path or id")
    from transformers import AutoTokenizer

    folder = next(path.parent for path in paths.values() if path)
    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    except Exception as error:  # the readers of damaged files fail in many ways
        raise BundleError(f"{source}: transformers cannot read its {', '.join(_VOCABULARY)}: {error}") from error
    return tokenizer


def _add_subject(tokenizer: Tokenizer, source: str | Path, vocab_size: int) -> None:
    present = tokenizer.token_to_id(SUBJECT_TOKEN)
    if present is None:
        tokenizer.add_special_tokens([AddedToken(SUBJECT_TOKEN, special=True, normalized=False)])
    elif not _is_special(tokenizer, present):
        raise ValueError(
            f"the tokenizer of {source} has {SUBJECT_TOKEN} already, as the ordinary token {present}: a text could "
            "contain it, so it cannot be the persona's slot"
        )
    subject = token_id(tokenizer, SUBJECT_TOKEN)
    ids = tokenizer.get_vocab().values()
    if len(ids) != len(set(ids)):
        raise ValueError(
            f"the vocabulary of {source} has gaps, so {SUBJECT_TOKEN} got the id {subject} of another token"
        )
    if subject >= vocab_size:
        raise ValueError(
            f"{SUBJECT_TOKEN} would be token {subject} of {source}, but the embedding table has {vocab_size} rows, "
            f"0 to {vocab_size - 1}: it needs one row more"
        )


def _is_special(tokenizer: Tokenizer, token: int) -> bool:
    added = tokenizer.get_added_tokens_decoder().get(token)
    return added is not None and added.special


def _read_json(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: is not valid JSON: {error}") from error
    if not isinstance(settings, dict):
        raise BundleError(f"{path}: must hold an object, holds {type(settings).__name__}")
    return settings


def _limit(settings: Mapping[str, Any], key: str, edge: str, path: Path) -> int:
    if settings.get(key) is not None:
        return _integer(settings, key, path)
    size = settings.get("size")
    if isinstance(size, dict) and edge in size:
        return _integer(size, edge, path, "size.")
    raise BundleError(f"{path}: has neither {key} nor size.{edge}, a limit to the pixels of an image")


def _integer(settings: Mapping[str, Any], key: str, path: Path, prefix: str = "") -> int:
    value = settings.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BundleError(f"{path}: {prefix}{key}: must be a whole number, {_found(settings, key)}")


def _channels(settings: Mapping[str, Any], key: str, path: Path) -> tuple[float, float, float]:
    value = settings.get(key)
    if isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value):
        return value[0], value[1], value[2]
    raise BundleError(f"{path}: {key}: must be three numbers, for R, G and B, {_found(settings, key)}")


def _found(settings: Mapping[str, Any], key: str) -> str:
    return f"got {settings[key]!r}" if key in settings else "but is missing"
