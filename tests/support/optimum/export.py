"""A real export by Optimum, in an environment of its own, for the tests.

`PYTHONPATH=tests/support/torchvision_startup python -m tests.support.optimum.export` writes `tests/golden/optimum`
anew: what Optimum made of the small VLM of `tests.support.small_vlm`, for the tests that read such folders where
Optimum is not installed.
"""

import json
import shutil
import tempfile
from pathlib import Path

from tokenizers import Tokenizer
from transformers import Qwen2VLForConditionalGeneration

from export.openvino.optimum import find_optimum, run_optimum
from export.openvino.source import link_published
from pydeper.bundle.openvino_files import GRAPHS, weights_of


def write_source(folder: Path, model: Qwen2VLForConditionalGeneration, tokenizer: Tokenizer) -> Path:
    """Writes a model as the Hub has Qwen2-VL's, but for `config.json`, which is that of transformers 5."""
    model.save_pretrained(folder)
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


def main() -> None:
    """Writes the golden folder."""
    from tests.support.paths import OPTIMUM
    from tests.support.small_vlm import small_model, small_tokenizer

    tokenizer = small_tokenizer()
    with tempfile.TemporaryDirectory() as temporary:
        source = write_source(Path(temporary) / "source", small_model(tokenizer), tokenizer)
        made = Path(temporary) / "made"
        run_optimum(find_optimum(), link_published(source, None, Path(temporary) / "published"), made, "fp32")
        target = OPTIMUM
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        for graph in GRAPHS:
            for name in (graph, weights_of(graph)):
                shutil.copyfile(made / name, target / name)


if __name__ == "__main__":
    main()
