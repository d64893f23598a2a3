"""The sides that see an image: pydeper on both of its runtimes, OpenVINO GenAI, and transformers."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring.timing import timed
from benchmarks.qwen2_vl_2b import STYLE, Transformers, described
from pydeper.runtime.target import Runtime


class Pydeper:
    """The VLM of a bundle, with a soft token in its prompt.

    Args:
        work: The work folder.
        runtime: Which runtime.
        threads: CPU threads.
        tokens: How many tokens are written after the first one.
    """

    def __init__(self, work: Path, runtime: Runtime, threads: int, tokens: int) -> None:
        from pydeper.vlm import open_vlm

        folder = work / "int4"
        self._vlm = open_vlm(folder, *described(work, "int4"), runtime=runtime, threads=threads, precision="int4")
        self._soft = soft_token(self._vlm.config.hidden_size)
        self._tokens = tokens

    def describe(self, image: Path) -> dict[str, float]:
        """Seconds for the image and for the prompt, and tokens a second after them."""
        vision, encoded = timed(lambda: self._vlm.encode_image(Image.open(image).convert("RGB")))
        prompt, _ = timed(lambda: self._generate(encoded, 1))
        again, _ = timed(lambda: self._generate(encoded, 1))
        more, _ = timed(lambda: self._generate(encoded, 1 + self._tokens))
        return {
            "first token s": vision + prompt,
            "image s": vision,
            "prompt s": prompt,
            "tokens/s": self._tokens / (more - again),
        }

    def _generate(self, encoded: Any, tokens: int) -> Any:
        from pydeper.vlm import DecodingOptions

        return self._vlm.generate(encoded, STYLE, self._soft[None], DecodingOptions(max_new_tokens=tokens))


class OpenVINOGenAI:
    """What Optimum exported, in OpenVINO GenAI's own pipeline.

    Args:
        folder: Optimum's.
        threads: CPU threads.
        tokens: How many tokens are written after the first one.
    """

    def __init__(self, folder: Path, threads: int, tokens: int) -> None:
        import openvino_genai

        self._pipeline = openvino_genai.VLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads)
        self._tokens = tokens

    def describe(self, image: Path) -> dict[str, float]:
        """Seconds to the first token, and tokens a second after it, as the pipeline itself measures them."""
        first, _ = timed(lambda: self._generate(image, 1))
        metrics = self._generate(image, 1 + self._tokens).perf_metrics
        if metrics.get_num_generated_tokens() != 1 + self._tokens:
            raise RuntimeError(f"OpenVINO GenAI wrote {metrics.get_num_generated_tokens()} tokens")
        return {"first token s": first, "tokens/s": 1000 / metrics.get_tpot().mean}

    def _generate(self, image: Path, tokens: int) -> Any:
        import openvino

        # 448×448 is what the other sides make of every picture: 256 image tokens.
        pixels = np.asarray(Image.open(image).convert("RGB").resize((448, 448), Image.Resampling.BICUBIC))
        return self._pipeline.generate(
            "Write a description of this photo",
            images=[openvino.Tensor(np.ascontiguousarray(pixels)[None])],
            max_new_tokens=tokens,
            ignore_eos=True,
            do_sample=False,
        )


class PlainTransformers:
    """transformers, on PyTorch.

    Args:
        work: The work folder.
        threads: CPU threads.
        tokens: How many tokens are written after the first one.
        dtype: "bfloat16" or "float32".
    """

    def __init__(self, work: Path, threads: int, tokens: int, dtype: str) -> None:
        self._model = Transformers(work, threads, dtype, "int4")
        self._soft = soft_token(self._model.steered.config.hidden_size)
        self._tokens = tokens

    def describe(self, image: Path) -> dict[str, float]:
        """Seconds for the image and for the prompt, and tokens a second after them."""
        tokens = self._model.tokens(image, self._soft)
        first, _ = timed(lambda: next(tokens))
        more, _ = timed(lambda: [next(tokens) for _ in range(self._tokens)])
        picture = Image.open(image).convert("RGB")
        vision, _ = timed(lambda: self._model.steered.image_features([picture]))
        return {
            "first token s": first,
            "image s": vision,
            "prompt s": first - vision,
            "tokens/s": self._tokens / more,
        }


def soft_token(size: int) -> np.ndarray:
    """A persona's, as far as time is concerned."""
    return (np.random.default_rng(0).standard_normal(size) * 0.6).astype(np.float32)
