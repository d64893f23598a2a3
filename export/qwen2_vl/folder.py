"""A VLM's folder as a bundle takes it over: the exported files, the tokenizer, and what `config.json` says of them."""

import json
from collections.abc import Callable
from pathlib import Path

import attrs
from tokenizers import Tokenizer
from transformers import AutoConfig

from export.qwen2_vl.export import DecoderRounding, VLMExport, export_vlm
from export.qwen2_vl.tokenizer import bundle_tokenizer, vision_config
from pydeper import hub
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.bundle.layout import TOKENIZER
from pydeper.bundle.openvino_files import FOLDERS
from pydeper.bundle.vlm_files import DECODER, EMBEDDING_TABLE, PREFILL_LAYERS, VISION_ENCODER
from pydeper.errors import BundleError
from pydeper.files.atomic import atomic_path
from training.outputs import OutputError, exists, refuse
from training.vlm.steered_vlm import vlm_config

VLM_CONFIG = "vlm.json"
_WRITTEN = (TOKENIZER, VISION_ENCODER, DECODER, EMBEDDING_TABLE, PREFILL_LAYERS.removesuffix(".onnx"), *FOLDERS)
"""How the names of files begin that an export writes."""


def export_vlm_folder(
    source: str | Path,
    out_dir: str | Path,
    precision: Precision,
    *,
    rounding: DecoderRounding | None = None,
    image_size: tuple[int, int] | None = (448, 448),
    revision: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[VLMConfig, VLMExport]:
    """Exports a Qwen2-VL with all that belongs to it; see `export.qwen2_vl.export.export_vlm` for the graphs.

    Beside these it writes `tokenizer.json`, with `<subj>` as a special token, and `vlm.json`, which is what a bundle's
    `config.json` has under `vlm`. Everything that can be wrong with the source's small files is found before the
    weights are read.

    Args:
        source: A folder in the Hub's layout, or a Hub id.
        out_dir: The folder; it may hold other precisions already.
        precision: Of the files, and what `vlm.json` names as the one to open.
        rounding: See `export_vlm`.
        image_size: (height, width) in pixels of every image, or None to keep aspect ratios (`vision_config`).
        revision: Branch, tag or commit of a Hub id.
        progress: Is told of each step as it begins.

    Raises:
        BundleError: A file of the source cannot be had or read, or `image_size` does not fit the patches.
        OutputError: The folder is the source, or holds files of a VLM that this function did not write.
        ValueError: See `export_vlm`.
    """
    described = describe_vlm(source, out_dir, precision, image_size, revision)
    report = export_vlm(source, out_dir, precision, rounding=rounding, revision=described.commit, progress=progress)
    described.write(Path(out_dir))
    return described.config, report


@attrs.frozen(eq=False)
class DescribedVLM:
    """What a VLM's folder says beside the graphs.

    Attributes:
        config: What a bundle's `config.json` will have under `vlm`.
        tokenizer: With `<subj>`.
        commit: Of a source on the Hub.
    """

    config: VLMConfig
    tokenizer: Tokenizer
    commit: str | None

    def write(self, folder: Path) -> None:
        """Writes `tokenizer.json` and `vlm.json`."""
        for name, text in (
            (TOKENIZER, self.tokenizer.to_str(pretty=False)),
            (VLM_CONFIG, json.dumps(attrs.asdict(self.config), indent=2) + "\n"),
        ):
            with atomic_path(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")


def describe_vlm(
    source: str | Path,
    out_dir: str | Path,
    precision: Precision,
    image_size: tuple[int, int] | None,
    revision: str | None,
) -> DescribedVLM:
    """Reads the small files of a source, and sees that an export may write into a folder; see `export_vlm_folder`."""
    _check_output(Path(out_dir), source)
    base_model, commit = _named(source, revision)
    config = AutoConfig.from_pretrained(source, revision=commit)
    if config.model_type != "qwen2_vl":
        raise ValueError(f"{source}: is a {config.model_type!r}; this export is for 'qwen2_vl'")
    tokenizer = bundle_tokenizer(source, commit, vocab_size=config.text_config.vocab_size)
    vision = vision_config(source, image_size, commit)
    described = vlm_config(config, tokenizer, vision, base_model=base_model, base_revision=commit, precision=precision)
    return DescribedVLM(described, tokenizer, commit)


def _check_output(folder: Path, source: str | Path) -> None:
    """Refuses to write among files of the source, or of anybody else: only `vlm.json` tells which folder is ours."""
    if folder.exists() and Path(source).exists() and folder.samefile(source):
        raise OutputError(f"{folder}: is the source, whose {TOKENIZER} would be replaced; name another folder")
    if exists(folder / VLM_CONFIG):
        try:
            read_vlm_folder(folder)
        except BundleError:
            refuse(folder, [VLM_CONFIG])
    elif folder.is_dir():
        refuse(folder, (path.name for path in folder.iterdir() if path.name.startswith(_WRITTEN)))


def read_vlm_folder(folder: Path) -> tuple[VLMConfig, Tokenizer]:
    """Reads what `export_vlm_folder` wrote beside the graphs: `vlm.json` and `tokenizer.json`.

    Raises:
        BundleError: One of them is missing or malformed.
    """
    try:
        config = VLMConfig.from_dict(json.loads((folder / VLM_CONFIG).read_text(encoding="utf-8")))
        return config, Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # tokenizers raises plain exceptions
        raise BundleError(f"{folder}: is not what `python -m export vlm` writes: {error}") from error


def _named(source: str | Path, revision: str | None) -> tuple[str, str | None]:
    """What the model is called, and its commit where it comes from the Hub."""
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise BundleError(f"revision: the folder {folder} has no revisions (got {revision!r})")
        return folder.resolve().name, None
    if isinstance(source, str) and hub.is_repo_id(source):
        file = hub.fetch_file(source, "config.json", revision=revision, local_files_only=False, error=BundleError)
        return source, file.parent.name  # the cache's folders are named after commits
    raise BundleError(f"{source}: is neither a folder nor a Hub id ('org/name')")
