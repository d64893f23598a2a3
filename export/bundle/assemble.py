"""Puts the exported parts of a model together into a bundle: the folder that `pydeper` loads and the Hub carries."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from export.bundle.card import LICENCE, card_of
from pydeper.bundle.bundle import open_bundle
from pydeper.bundle.checksums import sha256
from pydeper.bundle.config import BundleConfig, Precision
from pydeper.bundle.layout import ADAPTER, CARD, CONFIG, MANIFEST, PERSONA_ENCODER, TOKENIZER
from pydeper.bundle.manifest import MANIFEST_FORMAT_VERSION, ManifestEntry, list_files, verify
from pydeper.bundle.openvino_files import LANGUAGE_MODEL, named_precisions
from pydeper.bundle.vlm_files import precisions_of
from pydeper.errors import BundleError
from pydeper.files.atomic import atomic_path
from pydeper.model.model import DeperModel
from pydeper.runtime.target import Runtime
from training.outputs import exists, output_folder

# What `python -m export vlm` writes beside a VLM's files: in a bundle its own tokenizer and config say it.
_SAID_ELSEWHERE = shutil.ignore_patterns(TOKENIZER, "vlm.json")


def assemble(
    target: Path,
    config: BundleConfig,
    *,
    tokenizer: Path,
    persona_encoder: Path,
    adapter: Path,
    vlm: Path | None,
    licence: Path | None = None,
    extras: Mapping[str, Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a bundle; it appears at `target` whole, once it has been loaded from disk, or not at all.

    Args:
        target: The folder to make.
        config: What `config.json` will say; the model card is made from it.
        tokenizer: The VLM's `tokenizer.json`, with `<subj>` as a special token.
        persona_encoder: The exported persona encoder, weights inside the file.
        adapter: The exported adapter.
        vlm: The folder with the exported VLM's files, in one precision or several; None where `config.vlm.source` is
            a repository on the Hub, of which the default precision is fetched to see that the model loads.
        licence: A licence text to carry along as `LICENSE`.
        extras: Further files and folders, by the name they will have in the bundle.
        overwrite: Replace the bundle that is at `target`; otherwise it must not exist.

    Returns:
        `target`.

    Raises:
        BundleError: `target` exists, or is not a bundle as it was written; or a part is missing, or lies around
            `target`; the parts do not make a model that loads, or the VLM does not
            come in the precision that the config gives as the default.
    """
    target = Path(target)
    if exists(target) and not overwrite:
        raise BundleError(f"{target}: exists already; remove it, or pass overwrite=True")
    check_replaceable(target)
    if (vlm is None) != config.vlm.is_on_hub:
        reason = "is on the Hub, so vlm must be None" if vlm else "is a folder of the bundle, so vlm must be given"
        raise BundleError(f"config.vlm.source: {config.vlm.source!r} {reason}")
    parts = {
        TOKENIZER: tokenizer,
        PERSONA_ENCODER: persona_encoder,
        ADAPTER: adapter,
        **({config.vlm.source: vlm} if vlm else {}),
        **({LICENCE: licence} if licence else {}),
        **(extras or {}),
    }
    for name, source in parts.items():
        if not source.exists():
            raise BundleError(f"{source}: does not exist, but is to become {name} of the bundle {target}")
        if source.resolve() in target.resolve().parents:
            raise BundleError(f"{target}: lies inside {source}, which is to become {name} of it; choose another place")
    with output_folder(target.parent):
        _assemble(target, config, parts)
    return target


def _assemble(target: Path, config: BundleConfig, parts: Mapping[str, Path]) -> None:
    # Beside the target, so that the renaming stays within one file system.
    building = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.building")
    replaced = building.with_suffix(".replaced")
    try:
        building.mkdir()
        for name, source in parts.items():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, building / name, ignore=_SAID_ELSEWHERE)
            else:
                shutil.copyfile(source, building / name)
        (building / CONFIG).write_text(config.to_json(), encoding="utf-8")
        (building / CARD).write_text(card_of(building), encoding="utf-8")
        write_manifest(building)
        for precision, runtime in _variants(building, config):
            DeperModel(open_bundle(building, precision=precision, runtime=runtime), device="cpu")
        with suppress(FileNotFoundError):
            target.rename(replaced)
        building.rename(target)
    except BaseException:
        with suppress(FileNotFoundError):
            replaced.rename(target)
        raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def check_replaceable(target: Path) -> None:
    """Refuses to replace anything but a bundle as it was written, or an empty folder.

    Raises:
        BundleError: There is something else at `target`, or a bundle with files that its manifest does not list.
    """
    if not exists(target) or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        verify(target)
        strange = sorted(path.name for path in target.iterdir() if path.name.startswith("."))
        if strange:
            raise BundleError(f"{target / strange[0]}: is no file of a bundle")
    except (BundleError, OSError) as error:
        raise BundleError(
            f"{target}: would be replaced, but is not a bundle as it was written ({error}); name another folder, or "
            "remove it first"
        ) from error


def _variants(folder: Path, config: BundleConfig) -> list[tuple[Precision, Runtime | None]]:
    """The variants of its VLM that a bundle can be opened in without fetching more than its default.

    Returns:
        Precisions, each with the runtime that its files are for, or None where any runtime reads them.
    """
    default = config.vlm.precision
    if config.vlm.is_on_hub:
        return [(default, None)]
    vlm = folder / config.vlm.source
    names = [path.relative_to(vlm).as_posix() for path in vlm.rglob("*")]
    there: list[tuple[Precision, Runtime | None]] = [(precision, None) for precision in precisions_of(names)]
    there += [(precision, "openvino") for precision in named_precisions(names)]
    if LANGUAGE_MODEL in names:
        there.append((default, "openvino"))
    if default not in (precisions := [precision for precision, _ in there]):
        raise BundleError(
            f"config.vlm.precision: {default!r} is not among the exported: {', '.join(precisions) or 'none'}"
        )
    return there


def with_fingerprint(config: BundleConfig, *, persona_encoder: Path, tokenizer: Path) -> BundleConfig:
    """Returns the config with the fingerprint of its persona encoder: a hash of all that makes a sample's vector.

    That is the file itself, the tokenizer, and the preprocessing that the config states. So another export of the same
    weights has another fingerprint; to keep personas valid across it, hand the first one's fingerprint on instead.

    Args:
        config: Its present fingerprint does not matter.
        persona_encoder: The exported persona encoder.
        tokenizer: The VLM's `tokenizer.json`.
    """
    settings = attrs.asdict(config.persona_encoder)
    del settings["fingerprint"]
    whole = json.dumps([sha256(persona_encoder), sha256(tokenizer), settings], sort_keys=True)
    fingerprint = "sha256:" + hashlib.sha256(whole.encode()).hexdigest()
    return attrs.evolve(config, persona_encoder=attrs.evolve(config.persona_encoder, fingerprint=fingerprint))


def write_manifest(folder: Path) -> dict[str, ManifestEntry]:
    """Writes `manifest.json`: size and sha256 of every other file of a bundle; returns what it says.

    Raises:
        BundleError: The folder has no `config.json`, or its `manifest.json` is another program's.
    """
    if not (folder / CONFIG).is_file():
        raise BundleError(f"{folder}: holds no {CONFIG}, so it is not a bundle; check the path")
    if exists(folder / MANIFEST) and not _is_manifest(folder / MANIFEST):
        raise BundleError(f"{folder / MANIFEST}: is not a bundle's manifest, and would be replaced; check the path")
    entries = {
        name: ManifestEntry((folder / name).stat().st_size, sha256(folder / name)) for name in list_files(folder)
    }
    manifest = {
        "format_version": MANIFEST_FORMAT_VERSION,
        "files": {name: attrs.asdict(entry) for name, entry in entries.items()},
    }
    with atomic_path(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return entries


def _is_manifest(path: Path) -> bool:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and {"format_version", "files"} <= manifest.keys()


def write_card(folder: Path) -> Path:
    """Writes a bundle's model card anew from what is there (see `export.bundle.card`), and then its manifest.

    Raises:
        BundleError: `config.json` is missing or malformed, or `evaluation.json` is malformed.
    """
    card = card_of(folder)
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(card, encoding="utf-8")
    write_manifest(folder)
    return folder / CARD
