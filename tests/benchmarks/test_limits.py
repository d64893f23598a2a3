"""What a machine could do at most, and what Qwen2-VL asks of it."""

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from benchmarks.measuring.limits import image_operations, integer_throughput, memory_bandwidth, prompt_operations

TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}
VISION = {
    "depth": 2,
    "embed_dim": 32,
    "num_heads": 2,
    "mlp_ratio": 4,
    "in_chans": 3,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}


@torch.no_grad()
def test_operations_are_those_that_torch_counts() -> None:
    config = Qwen2VLConfig(
        text_config={**TEXT, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}},
        vision_config={**VISION, "hidden_size": 64},
    )
    model = Qwen2VLForConditionalGeneration(config).eval()
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as image:
        model.model.visual(torch.randn(4 * 12, 3 * 2 * 14 * 14), grid_thw=torch.tensor([[1, 6, 8]]))
    assert image_operations(VISION, 64, tokens=12) == image.get_total_flops()
    with FlopCounterMode(display=False) as prompt:
        model(input_ids=torch.randint(1, 300, (1, 21)), logits_to_keep=1)
    counted = prompt.get_total_flops()
    # torch also counts the angles of the rotary embedding, which come from a product of two vectors.
    assert 0 <= counted - prompt_operations(TEXT, tokens=21) < 0.005 * counted


def test_a_machine_multiplies_and_reads_at_some_rate() -> None:
    """A tenth of what any machine of this century reaches, and far more than any has."""
    assert 0.001 < integer_throughput(threads=1) < 1000
    assert 0.1 < memory_bandwidth(threads=1) < 10_000
