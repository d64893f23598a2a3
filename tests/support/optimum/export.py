"""A real export by Optimum, in an environment of its own, for the tests.

`python -m tests.support.optimum.export` writes `tests/golden/optimum` anew: what Optimum made of the small VLM of
`tests.support.small_vlm`, for the tests that read such folders where Optimum is not installed.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import Qwen2VLForConditionalGeneration

from pydeper.bundle.openvino_files import GRAPHS, weights_of

PYTHON_VARIABLE = "PYDEPER_OPTIMUM_PYTHON"
STARTUP = Path(__file__).parents[1] / "torchvision_startup"


def write_source(folder: Path, model: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer) -> Path:
    """Writes a model as the Hub has Qwen2-VL's, with a `config.json` as transformers 4 reads it."""
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(_published_config(model), indent=2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2TokenizerFast"}')
    limits = {"min_pixels": 56 * 56, "max_pixels": 140 * 140, "image_processor_type": "Qwen2VLImageProcessor"}
    sizes = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    colours = {
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(limits | sizes | colours))
    return folder


def run_optimum(source: Path, folder: Path, python: str, weight_format: str = "fp32") -> Path:
    """Runs `optimum-cli export openvino`."""
    command = [python, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", str(source)]
    command += ["--task", "image-text-to-text", "--weight-format", weight_format, str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(STARTUP)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def _published_config(model: Qwen2VLForConditionalGeneration) -> dict[str, Any]:
    text, vision = model.config.text_config, model.config.vision_config
    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act",
    )  # fmt: skip
    names = ("depth", "embed_dim", "hidden_size", "num_heads", "mlp_ratio", "patch_size", "spatial_merge_size")
    rope = text.rope_parameters
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "image_token_id": model.config.image_token_id,
        "vision_start_token_id": model.config.vision_start_token_id,
        "vision_end_token_id": model.config.vision_end_token_id,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "vision_config": {**{name: getattr(vision, name) for name in names}, "in_chans": vision.in_channels},
        **{name: getattr(text, name) for name in same},
    }


def main() -> None:
    """Writes the golden folder."""
    from tests.support.paths import OPTIMUM
    from tests.support.small_vlm import small_model, small_tokenizer

    tokenizer = small_tokenizer()
    with tempfile.TemporaryDirectory() as temporary:
        source = write_source(Path(temporary) / "source", small_model(tokenizer), tokenizer)
        made = run_optimum(source, Path(temporary) / "made", os.environ.get(PYTHON_VARIABLE, sys.executable))
        target = OPTIMUM
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for graph in GRAPHS:
            for name in (graph, weights_of(graph)):
                shutil.copyfile(made / name, target / name)


if __name__ == "__main__":
    main()
