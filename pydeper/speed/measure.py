"""What a model takes with one choice of settings: measured in a process of its own, so that its memory is its own."""

import statistics
import time

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

from pydeper.bundle.bundle import Bundle
from pydeper.bundle.config import Precision
from pydeper.demo import demo_image
from pydeper.images import open_image
from pydeper.model.adapter import Adapter
from pydeper.model.loading import find_bundle, load_vlm, target_of
from pydeper.persona.encoder import PersonaEncoder
from pydeper.runtime.target import Runtime
from pydeper.speed.machine import peak_memory
from pydeper.vlm.decoding import DecodingOptions
from pydeper.vlm.protocol import VisionLanguageModel

_IMAGE_SIZE = (640, 480)  # as a photograph from a camera is resized to before it is described
_ROUNDS = 3


@attrs.frozen
class Settings:
    """With which settings a model is measured.

    Attributes:
        runtime: What computes it.
        precision: Of the vision-language model; None is the model's own choice.
        threads: CPU threads of one operator; None leaves the number to the runtime.
        large_pages: Whether the process allocates memory in large pages, by `GLIBC_TUNABLES`.
    """

    runtime: Runtime
    precision: Precision | None = None
    threads: int | None = None
    large_pages: bool = False

    def __str__(self) -> str:
        said: list[str] = [self.runtime]
        if self.precision is not None:
            said.append(self.precision)
        if self.threads is not None:
            said.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        if self.large_pages:
            said.append("large pages")
        return ", ".join(said)


@attrs.frozen
class Speed:
    """What a model took.

    Attributes:
        precision: Of the vision-language model that was opened.
        load_seconds: From the checked files to a model that is ready.
        first_token_seconds: From a new image to the first token of its description: the median of some.
        tokens_per_second: Of a single description, after its first token; None where it had only one.
        peak_memory_bytes: The most memory that the process has had; None where the system does not tell.
    """

    precision: Precision
    load_seconds: float
    first_token_seconds: float
    tokens_per_second: float | None
    peak_memory_bytes: int | None

    def seconds_for(self, tokens: int) -> float:
        """Returns how long a description of so many tokens takes, from the image to its end.

        Where the model ended every description with its first token, that is the time to it.
        """
        following = (tokens - 1) / self.tokens_per_second if self.tokens_per_second else 0.0
        return self.first_token_seconds + following


def measure_speed(model: str, settings: Settings, *, tokens: int, seconds: float) -> Speed:
    """Loads a model, and describes an image with it.

    Args:
        model: As `DeperModel.from_pretrained` takes it. Its files are there already; nothing is fetched.
        settings: How it is loaded. Large pages are the matter of who starts the process.
        tokens: How many tokens are generated at most.
        seconds: After so long no further round is begun; there is one in any case.

    Raises:
        BundleError, InvalidArgumentError, RuntimeMissingError: See `DeperModel.from_pretrained`.
        OutOfMemoryError: The model does not fit into memory.
    """
    opened = find_bundle(model, None, True, settings.precision, None, settings.runtime)
    assert isinstance(opened, Bundle)
    began = time.perf_counter()
    target = target_of(opened, settings.runtime, "auto", settings.threads)
    encoder = PersonaEncoder(opened, threads=settings.threads, runtime=settings.runtime)
    adapter = Adapter(opened, target)
    vlm = load_vlm(opened, encoder.tokenizer, target=target, servers=None)
    loaded = time.perf_counter()
    (soft_token,) = adapter([np.zeros(opened.config.persona_encoder.subject_embedding_size, np.float32)])
    image = open_image(demo_image()).resize(_IMAGE_SIZE)
    style = next(iter(opened.config.prompts.styles))
    rounds = [_describe(vlm, image, style, soft_token, tokens)]
    while len(rounds) <= _ROUNDS and time.perf_counter() - loaded <= seconds:
        rounds.append(_describe(vlm, image, style, soft_token, tokens))
    # The first round reads weights from the disk; it counts only where there was no time for another.
    first, rates = zip(*(rounds[1:] or rounds), strict=True)
    known = [rate for rate in rates if rate is not None]
    return Speed(
        opened.precision,
        loaded - began,
        statistics.median(first),
        statistics.median(known) if known else None,
        peak_memory(),
    )


def _describe(
    vlm: VisionLanguageModel, image: Image.Image, style: str, soft_token: npt.NDArray[np.float32], tokens: int
) -> tuple[float, float | None]:
    """Returns the seconds to the first token of an image, and the tokens a second that follow."""
    began = time.perf_counter()
    encoded = vlm.encode_image(image)
    vlm.generate(encoded, style, soft_token[None], DecodingOptions(max_new_tokens=1))
    first = time.perf_counter() - began
    # The image is known from here on: two descriptions of different lengths differ in decoding alone.
    seconds = []
    for limit in (1, tokens):
        began = time.perf_counter()
        (generation,) = vlm.generate(encoded, style, soft_token[None], DecodingOptions(max_new_tokens=limit))
        seconds.append(time.perf_counter() - began)
    chosen = len(generation.token_ids) + (generation.finish_reason == "stop")
    decoding = seconds[1] - seconds[0]
    return first, (chosen - 1) / decoding if chosen > 1 and decoding > 0 else None
