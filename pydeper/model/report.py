"""What a loaded model is and how it runs, for people and for programs."""

from collections.abc import Sequence
from typing import Any

import attrs

from pydeper.bundle.config import BundleConfig, VisionConfig
from pydeper.model.image_cache import ImageCache
from pydeper.runtime.memory import readable_bytes
from pydeper.runtime.target import Target
from pydeper.version import __version__


@attrs.frozen(kw_only=True)
class ModelReport:
    """What a loaded model is and how it runs; `print` shows it as a table, `attrs.asdict` gives it as a dict.

    Attributes:
        model_id: A Hub id, or the bundle's own name.
        revision: Its commit on the Hub, or None where it does not come from there.
        base_model: The vision-language model inside it, with its revision where there is one.
        device: The device that was asked for.
        provider: The execution provider or device that was taken, and why.
        runtime: The runtime that was taken, its version, and why.
        threads: CPU threads of one operator; None where the runtime chooses.
        vlm: What the vision-language model says of itself, by fact: its precision, its files, its KV cache.
        image_size: What an image is resized to, in pixels.
        image_tokens: The fewest and the most tokens that an image takes.
        context_length: The most tokens of image, prompt and description together.
        subject_embedding_size: Numbers in a persona.
        hidden_size: Numbers in the soft token that steers the vision-language model.
        num_layers: Layers of its decoder.
        vocab_size: Rows of its embedding table.
        image_cache: The most encoded images that are kept; 0 keeps none.
        cached_images: How many are kept now.
        cached_bytes: The memory that these hold, in bytes.
        pydeper_version: The version of pydeper.

    Examples:
        >>> from pydeper import DeperModel
        >>> report = DeperModel.from_pretrained("tiny").report()
        >>> report.base_model, report.context_length, report.image_tokens
        ('tiny (drawn scenes only)', 1024, (61, 82))
    """

    model_id: str
    revision: str | None
    base_model: str
    device: str
    provider: str
    runtime: str
    threads: int | None
    vlm: dict[str, str]
    image_size: str
    image_tokens: tuple[int, int]
    context_length: int
    subject_embedding_size: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    image_cache: int
    cached_images: int
    cached_bytes: int
    pydeper_version: str

    def __str__(self) -> str:
        least, most = self.image_tokens
        rows = {
            "model": self.model_id + (f" at {self.revision}" if self.revision else ""),
            "base model": self.base_model,
            "device": f"{self.device} -> {self.provider}",
            "runtime": self.runtime,
            "threads": "the runtime's choice" if self.threads is None else str(self.threads),
            **{f"VLM {fact}": value for fact, value in self.vlm.items()},
            "image": f"{self.image_size}, {least if least == most else f'{least} to {most}'} tokens",
            "context": f"{self.context_length} tokens for image, prompt and description",
            "sizes": f"{self.subject_embedding_size} numbers a persona, {self.hidden_size} a soft token; "
            f"{self.num_layers} decoder layers, a vocabulary of {self.vocab_size}",
            "image cache": f"{self.cached_images} of {self.image_cache} images, {readable_bytes(self.cached_bytes)}"
            if self.image_cache
            else "off",
            "pydeper": self.pydeper_version,
        }
        width = max(map(len, rows)) + 2
        return "\n".join(f"{fact + ':':<{width}}{value}" for fact, value in rows.items())


def report_of(
    config: BundleConfig,
    *,
    model_id: str,
    revision: str | None,
    target: Target,
    providers: Sequence[str],
    vlm: dict[str, str],
    images: ImageCache[Any],
) -> ModelReport:
    """Returns the report of a model that was opened for `target`, runs on `providers` and keeps `images`."""
    cached_images, cached_bytes = images.held()
    image_size, image_tokens = _image_facts(config.vlm.vision)
    return ModelReport(
        model_id=model_id,
        revision=revision,
        base_model=config.vlm.base_model + (f" at {config.vlm.base_revision}" if config.vlm.base_revision else ""),
        device=target.device,
        provider=target.explain_device(providers),
        runtime=target.explain_runtime(),
        threads=target.threads,
        vlm=vlm,
        image_size=image_size,
        image_tokens=image_tokens,
        context_length=config.vlm.max_positions,
        subject_embedding_size=config.persona_encoder.subject_embedding_size,
        hidden_size=config.vlm.hidden_size,
        num_layers=config.vlm.num_layers,
        vocab_size=config.vlm.vocab_size,
        image_cache=images.images,
        cached_images=cached_images,
        cached_bytes=cached_bytes,
        pydeper_version=__version__,
    )


def _image_facts(vision: VisionConfig) -> tuple[str, tuple[int, int]]:
    """Returns what an image is resized to, in words, and the fewest and the most tokens that it takes."""
    side = vision.patch_size * vision.merge_size
    if vision.image_size is not None:
        height, width = vision.image_size
        tokens = height * width // side**2
        return f"{width}×{height} pixels", (tokens, tokens)
    least, most = -(-vision.min_pixels // side**2), max(vision.max_pixels // side**2, 1)
    return f"multiples of {side} pixels, {vision.min_pixels} to {vision.max_pixels} in all", (least, most)
