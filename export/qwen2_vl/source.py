"""Loads the Qwen2-VL that is exported, and refuses architectures that the graphs in this package do not implement."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Qwen2VLForConditionalGeneration


def load_model(source: str | Path, revision: str | None) -> Any:
    """Loads a Qwen2-VL in the precision that it is stored in.

    Raises:
        ValueError: The weights are damaged or not those of `config.json`, or see `check_architecture`.
        OSError: A file is missing, or the Hub cannot be reached.
    """
    try:
        loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(
            source, revision=revision or "main", dtype="auto", output_loading_info=True
        )
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{source}: its weights cannot be read: {error}") from error
    model, found = loaded
    # transformers draws missing weights at random, and drops those that are left over.
    for problem in ("missing", "unexpected"):
        if keys := sorted(found[f"{problem}_keys"]):
            raise ValueError(
                f"{source}: its weights are not those of its config.json: {problem} is {keys[0]} ({len(keys)} in all)"
            )
    check_architecture(model.config)
    return model


def check_architecture(config: Any) -> None:
    """Refuses what the statements in `export.qwen2_vl.decoder` and `export.qwen2_vl.vision_encoder` do not cover.

    Raises:
        ValueError: Names the key, what it says, and what is covered.
    """
    text, vision = config.text_config, config.vision_config
    for name, found, stated in (
        ("text_config.rope_parameters.rope_type", text.rope_parameters["rope_type"], "default"),
        ("text_config.layer_types", set(text.layer_types), {"full_attention"}),
        ("text_config.hidden_act", text.hidden_act, "silu"),
        ("vision_config.rope_parameters.rope_type", vision.rope_parameters["rope_type"], "axial"),
    ):
        if found != stated:
            raise ValueError(f"this export states {name} = {stated}, but the model has {found}")
