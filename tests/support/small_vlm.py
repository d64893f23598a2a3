"""A whole small Qwen2-VL with random weights, as transformers has it and as exported files."""

import json
from pathlib import Path

import attrs
import pytest
import torch
from tokenizers import Tokenizer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from export.qwen2_vl.export import VLMExport, export_vlm
from pydeper.bundle.config import Prompts, PromptStyle, VisionConfig, VLMConfig
from pydeper.runtime.target import Runtime
from pydeper.vlm.local.runtime import Qwen2VLRuntime
from tests.support.made_once import made_once
from training.tiny.tokenizer import build_tokenizer
from training.vlm.steered_vlm import vlm_config

CORPUS = ["Write a description of this photo in the style of", "Caption this image", "a red circle and a blue square."]
PROMPTS = Prompts(
    "You are a helpful assistant.",
    {
        "description": PromptStyle(
            "Write a description of this photo in the style of <subj>", "Write a description of this photo"
        ),
        "caption": PromptStyle("<subj>: caption this image, naïvely 😀.", "Caption this image."),
    },
)


@attrs.frozen
class SmallVLM:
    """One model, twice: `model` in transformers, `folder` with its exported files."""

    model: Qwen2VLForConditionalGeneration
    folder: Path
    config: VLMConfig
    prompts: Prompts
    tokenizer: Tokenizer
    report: VLMExport

    def open(self, runtime: Runtime = "onnxruntime") -> Qwen2VLRuntime:
        return Qwen2VLRuntime(self.folder, self.config, self.prompts, self.tokenizer, runtime=runtime, threads=1)


def small_tokenizer() -> Tokenizer:
    return build_tokenizer(CORPUS * 10, 340)


def small_model(tokenizer: Tokenizer) -> Qwen2VLForConditionalGeneration:
    """hidden 64, 2 layers, 4 heads of 16 on 2 key heads; vision width 32, depth 2; weights that float16 can hold."""
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + 5,  # rows no token uses, as in the real table
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    generator = torch.Generator().manual_seed(1)
    model = Qwen2VLForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Wide weights make the text depend on everything before it; narrow ones repeat one token for ever.
            spread = (
                0.6 if "embed_tokens" in name else 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            )
            offset = 1.0 if "norm" in name or "ln_q" in name else 0.0
            offset = 0.0 if name.endswith("bias") else offset
            parameter.copy_((offset + spread * noise).half().float())
    return model


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture(scope="session")
def torch_vlm(tokenizer: Tokenizer) -> Qwen2VLForConditionalGeneration:
    return small_model(tokenizer)


@pytest.fixture(scope="session")
def small_vlm(
    torch_vlm: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> SmallVLM:
    def make(folder: Path) -> None:
        report = export_vlm(torch_vlm, folder / "vlm", store_fp16=True)
        (folder / "report.json").write_text(json.dumps(attrs.asdict(report)), encoding="utf-8")

    made = made_once(tmp_path_factory, "small-vlm", make)
    report = VLMExport(**json.loads((made / "report.json").read_text(encoding="utf-8")))
    vision = VisionConfig(
        patch_size=14,
        temporal_patch_size=2,
        merge_size=2,
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
        image_size=None,
        min_pixels=56 * 56,
        max_pixels=140 * 140,
    )
    config = vlm_config(torch_vlm.config, tokenizer, vision, base_model="random")
    return SmallVLM(torch_vlm, made / "vlm", config, PROMPTS, tokenizer, report)


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository as the Hub has Qwen2-VL's: a small network, and the whole vocabulary of 151,936 rows."""
    from benchmarks.standin import write_standin

    return write_standin(tmp_path_factory.mktemp("hub") / "Qwen2-VL-Small", "small")


@pytest.fixture(scope="session")
def vlm(small_vlm: SmallVLM) -> Qwen2VLRuntime:
    return small_vlm.open()
