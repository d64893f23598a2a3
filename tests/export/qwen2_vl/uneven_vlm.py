"""One Qwen2-VL, of sizes that no block of weights divides, exported in every precision that rounds."""

import copy
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from export.qwen2_vl.export import VLMExport, export_vlm
from pydeper.bundle.config import Precision, VLMConfig
from pydeper.bundle.vlm_files import find_files
from pydeper.runtime.session import CPU
from pydeper.vlm import VisionLanguageModel, open_vlm
from pydeper.vlm.onnx.decoder import Decoder
from pydeper.vlm.onnx.kv_cache import Prefix
from tests.export.onnx_graphs import rounded
from tests.support.small_vlm import PROMPTS, SmallVLM
from training.vlm.steered_vlm import vlm_config

ROUNDED: tuple[Precision, ...] = ("fp16", "int8", "int4")


@attrs.frozen
class Exported:
    """One model in transformers and, in every precision that rounds, in files.

    Attributes:
        model: In float32.
        source: What was exported, in bfloat16.
        before: The source's weights before that.
        folder: Holds a folder of each precision.
    """

    model: Qwen2VLForConditionalGeneration
    source: Qwen2VLForConditionalGeneration
    before: dict[str, torch.Tensor]
    folder: Path
    config: VLMConfig
    tokenizer: Tokenizer
    reports: dict[Precision, VLMExport]

    def open(self, precision: Precision) -> VisionLanguageModel:
        folder = self.folder / precision
        return open_vlm(folder, self.config, PROMPTS, self.tokenizer, threads=1, precision=precision)

    def decoder(self, precision: Precision, *, streams: bool = True) -> Decoder:
        files = find_files(self.folder / precision, precision)
        files = files if streams else attrs.evolve(files, prefill=None)
        return Decoder(files, self.config, providers=CPU, threads=1)


@pytest.fixture(scope="session")
def uneven_vlm(tokenizer: Tokenizer) -> Qwen2VLForConditionalGeneration:
    """hidden 192, 3 layers, feed-forward of 320: none is a multiple of the 128 inputs that share a scale."""
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size() + 5,
            "hidden_size": 192,
            "intermediate_size": 320,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={"depth": 2, "embed_dim": 192, "hidden_size": 192, "num_heads": 4, "mlp_ratio": 2},
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = (
                0.6 if "embed_tokens" in name else 1.5 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            )
            offset = float(("norm" in name or "ln_q" in name) and not name.endswith("bias"))
            parameter.copy_(offset + spread * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def exported(
    uneven_vlm: Qwen2VLForConditionalGeneration, small_vlm: SmallVLM, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Exported from bfloat16, in training mode, as a trainer might have it."""
    source = copy.deepcopy(uneven_vlm).to(torch.bfloat16).train()
    before = copy.deepcopy(source.state_dict())
    folder = tmp_path_factory.mktemp("precisions")
    reports = {precision: export_vlm(source, folder / precision, precision) for precision in ROUNDED}
    config = vlm_config(source.config, small_vlm.tokenizer, small_vlm.config.vision, base_model="random")
    model = copy.deepcopy(source).float().eval()
    return Exported(model, source, before, folder, config, small_vlm.tokenizer, reports)


def rounded_model(model: Qwen2VLForConditionalGeneration, bits: int) -> Qwen2VLForConditionalGeneration:
    """The model with the weights of its decoder rounded; the embedding table stays."""
    other = copy.deepcopy(model)
    other.lm_head = copy.deepcopy(other.lm_head)
    linears = [m for m in (*other.model.language_model.modules(), other.lm_head) if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer in linears:
            layer.weight.copy_(torch.from_numpy(rounded(layer.weight.numpy(), bits)))
    return other


def prompt(exported: Exported, tokens: int, seed: int = 0) -> np.ndarray:
    """(1, tokens, hidden) embeddings as wide as the table's."""
    rng = np.random.default_rng(seed)
    return (0.6 * rng.standard_normal((1, tokens, exported.config.hidden_size))).astype(np.float32)


@torch.no_grad()
def expected_logits(model: Qwen2VLForConditionalGeneration, embeddings: np.ndarray, last: int) -> np.ndarray:
    """(last, V) logits of the last positions, text throughout."""
    positions = torch.arange(embeddings.shape[1]).expand(3, 1, -1)
    text = model.model.language_model(
        inputs_embeds=torch.from_numpy(embeddings), position_ids=positions, use_cache=False
    )
    return model.lm_head(text.last_hidden_state[0, -last:]).numpy()


def logits_of(decoder: Decoder, embeddings: np.ndarray, pieces: Sequence[int]) -> np.ndarray:
    """(pieces, V) logits after each piece of a sequence."""
    cache = decoder.start(decoder.empty, embeddings.shape[1])
    parts = np.split(embeddings, np.cumsum(pieces)[:-1], axis=1)
    return np.concatenate([decoder.extend(cache, part) for part in parts])


def prefix_of(decoder: Decoder, embeddings: np.ndarray) -> Prefix:
    """Keys and values of all tokens but the last, which no layers for long prompts compute."""
    cache = decoder.start(decoder.empty, embeddings.shape[1])
    decoder.extend(cache, embeddings)
    return cache.prefix(embeddings.shape[1] - 1, embeddings.shape[1] - 1)
