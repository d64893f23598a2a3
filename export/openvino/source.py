"""A VLM's repository as Optimum reads it: with transformers 4, whose `config.json` is that of the published models."""

import json
from pathlib import Path
from typing import Any

from pydeper import hub
from pydeper.errors import BundleError

_CONFIG = "config.json"
_TEXT = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id",
)  # fmt: skip
_VISION = (
    "depth", "embed_dim", "hidden_size", "hidden_act", "num_heads", "mlp_ratio", "patch_size", "spatial_merge_size",
    "temporal_patch_size",
)  # fmt: skip
_TOP = (
    "architectures",
    "model_type",
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
)


def link_published(source: str | Path, commit: str | None, folder: Path) -> Path:
    """Makes a folder of links to a repository's files, with a `config.json` as published.

    transformers 5 writes the language model's settings into a section of their own, which transformers 4 does not
    read: it would take the sizes of Qwen2-VL-7B instead.

    Args:
        source: A folder in the Hub's layout, or a Hub id.
        commit: Of a Hub id.
        folder: Where the links are made; it need not exist.

    Returns:
        `folder`.

    Raises:
        BundleError: The files cannot be had.
    """
    if not Path(source).is_dir():
        source = hub.fetch_folder(str(source), revision=commit, local_files_only=False, error=BundleError)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(Path(source).iterdir()):
        link = folder / file.name
        link.unlink(missing_ok=True)
        if file.name == _CONFIG:
            config = published_config(json.loads(file.read_text(encoding="utf-8")))
            link.write_text(json.dumps(config, indent=2), encoding="utf-8")
        elif file.is_file():
            link.symlink_to(file.resolve())
    return folder


def published_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a Qwen2-VL's `config.json` as its makers published it, from that or from what transformers 5 writes."""
    text = config.get("text_config")
    if text is None:
        return config
    vision = config["vision_config"]
    rope = text["rope_parameters"]
    return {
        **{key: config[key] for key in _TOP if key in config},
        **{key: text[key] for key in _TEXT if key in text},
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "tie_word_embeddings": config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)),
        "torch_dtype": config.get("dtype", text.get("dtype", "float32")),
        "vision_config": {**{key: vision[key] for key in _VISION if key in vision}, "in_chans": vision["in_channels"]},
    }
