"""A Qwen2-VL with random weights, laid out as the Hub has Qwen2-VL-2B-Instruct: `python -m benchmarks.standin OUT`.

It stands in for the real model where no model hub can be reached: everything that reads the real repository reads this
one, at the real size (4.4 GB) or small, with the real vocabulary. It describes nothing.
"""

import argparse
import base64
import importlib.util
import json
import secrets
import shutil
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.torch import save_file
from tokenizers import AddedToken, pre_tokenizers
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration

# In the order of their ids, which follow those of the vocabulary: 151643 to 151656.
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# config.json in the form that is published, which transformers 4 wrote: text and model side by side.
_PUBLISHED: dict[str, Any] = {
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_token_id": 151654,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 1536,
    "initializer_range": 0.02,
    "intermediate_size": 8960,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2_vl",
    "num_attention_heads": 12,
    "num_hidden_layers": 28,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.41.2",
    "use_cache": True,
    "use_sliding_window": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
_SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
    "vision_config": {**_PUBLISHED["vision_config"], "depth": 2, "embed_dim": 64, "num_heads": 2, "hidden_size": 128},
}
# vLLM's kernels know only some widths of a head, and 64 is one of them.
_SERVED = _SMALL | {
    "hidden_size": 256,
    "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
    "vision_config": {**_SMALL["vision_config"], "embed_dim": 128, "hidden_size": 256},
}
CONFIGS: Mapping[str, dict[str, Any]] = {
    "2b": _PUBLISHED,
    "small": _PUBLISHED | _SMALL,
    "served": _PUBLISHED | _SERVED,
}
_SHARD_BYTES = {"2b": 2**30, "small": 2**20, "served": 2**20}

_GENERATION = {
    "bos_token_id": 151643,
    "pad_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "repetition_penalty": 1.0,
    "temperature": 0.01,
    "top_p": 0.001,
    "top_k": 1,
    "transformers_version": "4.37.0",
}
_PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
# Qwen2-VL's chat format, for texts and still images.
_CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_CHUNK = 2**24  # numbers drawn at a time, in float32


def write_standin(folder: Path, size: Literal["2b", "small", "served"] = "2b", seed: int = 0) -> Path:
    """Writes the whole repository; it appears at `folder` complete, or not at all.

    Args:
        folder: Must not exist.
        size: "2b", 2,208,985,600 parameters as published, in half a minute and 3 GB of memory; "small", a network of
            128 channels and two layers, with the same 151,936 embeddings, which are 39 MB of its 40; or "served", one
            of 256 channels that vLLM can serve on a CPU.
        seed: Of the weights. Embeddings are N(0, 0.6), matrices N(0, 1.5/√fan_in), biases N(0, 0.1) and the scales of
            norms N(1, 0.1): wide enough for a text to depend on everything before it; narrow ones repeat one token.

    Returns:
        `folder`.

    Raises:
        FileExistsError: There is something at `folder`.
        ModuleNotFoundError: The package with the vocabulary is not installed.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; remove it, or name another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.building")
    try:
        building.mkdir()
        _write_json(building / "config.json", CONFIGS[size])
        _write_json(building / "generation_config.json", _GENERATION)
        _write_json(building / "preprocessor_config.json", _PREPROCESSOR)
        _write_tokenizer(building)
        _write_weights(building, seed, _SHARD_BYTES[size])
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def read_ranks() -> dict[bytes, int]:
    """Reads the Qwen vocabulary, all 151,643 entries: the bytes of each token, and its id.

    Raises:
        ModuleNotFoundError: The package that ships it is not installed.
    """
    spec = importlib.util.find_spec("dashscope")  # found, not imported: only its file is wanted
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "the Qwen vocabulary comes with the package dashscope, which is not installed: "
            "pip install --no-deps --require-hashes -r requirements-qwen-vocabulary.txt"
        )
    text = (Path(spec.submodule_search_locations[0]) / "resources" / "qwen.tiktoken").read_bytes()
    return {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, text.splitlines())}


def _write_tokenizer(folder: Path) -> None:
    ranks = read_ranks()
    letters = _byte_letters()

    def spelled(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    vocab = {spelled(token): rank for token, rank in ranks.items()}
    merges: Any = [tuple(map(spelled, _halves(token, ranks))) for token in ranks if len(token) > 1]
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges).backend_tokenizer
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    # These two come out as the very files that are published.
    vocab_json = json.dumps(vocab, ensure_ascii=False, separators=(",", ":"))
    (folder / "vocab.json").write_text(vocab_json, encoding="utf-8")
    (folder / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges), encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    _write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(len(ranks) + i): {"content": token, **flags} for i, token in enumerate(SPECIAL_TOKENS)
            },
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "bos_token": None,
            "chat_template": _CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 32768,
            "pad_token": "<|endoftext|>",
            "padding_side": "left",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        },
    )


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: itself where it is visible, one from U+0100 on where not."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    visible = {ord(letter): letter for letter in alphabet if ord(letter) < 256}
    others = iter(letter for letter in alphabet if ord(letter) >= 256)
    return [visible.get(byte) or next(others) for byte in range(256)]


def _halves(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two tokens that were merged into this one: what BPE leaves of it when its own merge is not yet known."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        first = pairs.index(min(pairs))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return parts


def _write_weights(folder: Path, seed: int, shard_bytes: int) -> None:
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(folder))
    shapes = {_published_name(name): parameter for name, parameter in model.named_parameters()}
    split = split_state_dict_into_shards_factory(
        shapes,
        get_storage_size=lambda parameter: parameter.numel() * torch.bfloat16.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    generator = torch.Generator().manual_seed(seed)
    for file, names in split.filename_to_tensors.items():
        save_file(
            {name: _draw(name, shapes[name].shape, generator) for name in names},
            folder / file,
            metadata={"format": "pt"},
        )
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    _write_json(folder / "model.safetensors.index.json", index)


def _published_name(name: str) -> str:
    """The name that transformers 4 gave a parameter."""
    return name.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1)


def _draw(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    drawn = torch.empty(shape, dtype=torch.bfloat16)
    if drawn.ndim == 1:  # of the vectors, only the norms' scales are called weights
        return drawn.copy_(torch.randn(shape, generator=generator) * 0.1 + float(name.endswith("weight")))
    fan_in = drawn[0].numel()
    spread = 0.6 if "embed_tokens" in name else 1.5 * fan_in**-0.5
    for rows in drawn.split(max(1, _CHUNK // fan_in)):
        rows.copy_(torch.randn(rows.shape, generator=generator).mul_(spread))
    return drawn


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument("--size", choices=list(CONFIGS), default="2b")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    arguments = parser.parse_args()
    print(write_standin(arguments.out, arguments.size, arguments.seed))


if __name__ == "__main__":
    main()
