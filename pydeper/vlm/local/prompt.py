"""Prompts computed: an image and the words before the persona once for all personas, then what is a row's own."""

import threading

import attrs
import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.vlm.local.decoder import Decoder, Floats, KVCache, Prefix
from pydeper.vlm.local.embeddings import Embed
from pydeper.vlm.prompt import PromptTemplate, rotary_positions
from pydeper.vlm.protocol import EncodedImage


@attrs.frozen(eq=False, repr=False)
class ImageFeatures(EncodedImage):
    """An image as the vision encoder's features.

    Keys and values of the prompt up to the persona's slot are added for each style when it is first used.

    Attributes:
        features: (image tokens, hidden) float32, what the vision encoder made of the image.
        prefixes: By the tokens between image and persona; () is the image alone.
        lock: Held while a prefix is computed, so that others wait for it.
    """

    features: Floats
    prefixes: dict[tuple[int, ...], Prefix] = attrs.field(factory=dict, init=False)
    lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @property
    def image_tokens(self) -> int:
        """How many tokens it takes in a prompt."""
        return len(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds at present."""
        return self.features.nbytes + sum(prefix.nbytes for prefix in list(self.prefixes.values()))


class PromptRunner:
    """Computes prompts with a decoder; thread-safe."""

    def __init__(self, decoder: Decoder, embed: Embed, template: PromptTemplate, config: VLMConfig) -> None:
        self._decoder, self._embed, self._template, self._config = decoder, embed, template, config

    def run(self, image: ImageFeatures, before: tuple[int, ...], rest: Floats, room: int) -> tuple[Floats, KVCache]:
        """Computes one prompt; of image and `before` only what is not known yet.

        Args:
            image: The image that it begins with.
            before: The tokens between image and persona.
            rest: (S, hidden) embeddings of the persona and all that follows.
            room: How many tokens the description may have.

        Returns:
            (V,) logits of the first token of the description, and a cache of one row.
        """
        with image.lock:
            if before not in image.prefixes:
                # All in one pass: two would read the decoder's weights twice.
                return self._first_run(image, before, rest, room)
        cache = self._decoder.start(image.prefixes[before], len(rest) + room)
        return self._extend(cache, rest), cache

    def _first_run(
        self, image: ImageFeatures, before: tuple[int, ...], rest: Floats, room: int
    ) -> tuple[Floats, KVCache]:
        """Computes the prompt, and keeps the prefix."""
        ids = self._template.image_ids(len(image.features))
        # Any id of a text stands for those that have none.
        text = [*before, *[self._config.tokens.subject] * len(rest)]
        places, following = rotary_positions(
            [*ids, *text], self._config.tokens.image, np.array([image.grid]), self._config.vision.merge_size
        )
        positions = np.concatenate([places, np.full((3, 1), following)], axis=1)
        if image.prefixes:
            known = next(iter(image.prefixes.values())).cut(len(ids), int(positions[0, len(ids)]))
            embeddings = self._embed(before)
        else:
            known = self._decoder.empty
            embeddings = self._embed([*ids, *before])
            embeddings[: len(ids)][np.equal(ids, self._config.tokens.image)] = image.features
        cache = self._decoder.start(known, len(embeddings) + len(rest) + room)
        logits = self._extend(cache, np.concatenate([embeddings, rest]), positions[:, known.length :])
        end = len(ids) + len(before)
        image.prefixes[before] = cache.prefix(end, int(positions[0, end]))
        return logits, cache

    def _extend(self, cache: KVCache, embeddings: Floats, positions: npt.NDArray[np.int64] | None = None) -> Floats:
        logits: Floats
        (logits,) = self._decoder.extend(cache, embeddings[None], positions)
        return logits
