"""Qwen2-VL on ONNX Runtime: vision encoder, embedding table, and a decoder that many personas share."""

import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from pydeper.bundle.config import Precision, Prompts, VLMConfig
from pydeper.bundle.vlm_files import find_files
from pydeper.runtime.session import CPU
from pydeper.vlm.decoder import Decoder, Floats
from pydeper.vlm.decoding import DecodingOptions, TokenChooser, every_row, guide, pieces_of_rows
from pydeper.vlm.embeddings import open_embeddings
from pydeper.vlm.image_patches import image_patches
from pydeper.vlm.inputs import image_token_count, one_row, room_for, rows_of
from pydeper.vlm.kv_cache import KVCache, Prefix
from pydeper.vlm.prompt import PromptTemplate, rotary_positions
from pydeper.vlm.protocol import EncodedImage, Generation, VisionLanguageModel
from pydeper.vlm.vision_encoder import VisionEncoder
from pydeper.vlm.worker_threads import in_worker_threads

ROWS_AT_ONCE = 8
"""Every row of a batch has a KV cache of its own; from some 8 on a step costs as much as two smaller ones."""


@attrs.frozen(eq=False, repr=False)
class ImageFeatures(EncodedImage):
    """An image as the vision encoder's features.

    Keys and values of the prompt up to the persona's slot are added for each style when it is first used.

    Attributes:
        features: (image tokens, hidden) float32, what the vision encoder made of the image.
    """

    features: Floats
    # By the tokens between image and persona; () is the image alone.
    _prefixes: dict[tuple[int, ...], Prefix] = attrs.field(factory=dict, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @property
    def image_tokens(self) -> int:
        """How many tokens it takes in a prompt."""
        return len(self.features)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds at present."""
        return self.features.nbytes + sum(prefix.nbytes for prefix in list(self._prefixes.values()))


class Qwen2VLRuntime:
    """A frozen Qwen2-VL, steered by one soft token. Immutable and thread-safe after loading.

    The soft token is given to the decoder as an embedding and never written into the table: the table is also the
    output layer, where it would let the model generate `<subj>`.
    """

    def __init__(
        self,
        folder: Path,
        config: VLMConfig,
        prompts: Prompts,
        tokenizer: Tokenizer,
        *,
        providers: Sequence[str] = CPU,
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Opens the files of one precision; see `pydeper.vlm.open_vlm`."""
        self.config = config
        self._files = find_files(folder, precision or config.precision)
        self._tokenizer = tokenizer
        self._template = PromptTemplate(prompts, config, tokenizer)
        self._embed = open_embeddings(self._files.embeddings, config, providers=providers, threads=threads)
        # Most of the time goes into arranging weights, by one thread a file: two files take as long as the larger.
        with ThreadPoolExecutor(1) as pool:
            vision = pool.submit(
                VisionEncoder, self._files.vision_encoder, config, providers=providers, threads=threads
            )
            self._decoder = Decoder(self._files, config, providers=providers, threads=threads)
            self._vision = vision.result()

    def report(self) -> dict[str, str]:
        """Facts about what was opened, for people: name -> value."""
        files = self._files
        return {
            "precision": files.precision,
            "vision encoder": files.vision_encoder.name,
            "embeddings": files.embeddings.name,
            "decoder": files.decoder.name,
            "long prompts": files.prefill.name if files.prefill and self._decoder.streams else "by the decoder",
            "key/value cache": "written in place" if self._decoder.in_place else "grows step by step",
            "provider": self._vision.provider,
        }

    @property
    def rows_at_once(self) -> int:
        """The most descriptions that `generate` should be given together."""
        return ROWS_AT_ONCE

    def check_options(self, options: DecodingOptions) -> None:
        """Refuses nothing: the logits are here, so every option can be had."""

    def encode_image(self, image: Image.Image) -> ImageFeatures:
        """Runs the vision encoder.

        Args:
            image: An upright RGB image.

        Raises:
            InvalidImageError: It has no pixels, or its aspect ratio is out of range (see `resized_shape`).
            InvalidArgumentError: It gives more tokens than the model's context holds.
        """
        image_tokens = image_token_count(image.height, image.width, self.config.vision)
        room_for(len(self._template.image_ids(image_tokens)), self.config.max_positions)
        pixel_values, grid = image_patches(image, self.config.vision)
        features = self._vision(pixel_values, grid)
        frames, rows, columns = grid[0].tolist()
        return ImageFeatures((frames, rows, columns), self, features)

    def generate(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> list[Generation]:
        """Describes images for a batch of personas, or without one.

        Args:
            encoded: What this model's `encode_image` returned: one for all rows, or one a row.
            style: Name of one of the model's styles.
            soft_tokens: (B, hidden), a persona a row; None asks without a persona: one description an image.
            options: How to decode; the default is greedy.

        Returns:
            B descriptions, in order.

        Raises:
            InvalidArgumentError: An unknown style, soft tokens of another shape or not finite, as many images as
                there are no soft tokens, an image that another model encoded, or a prompt longer than the model's
                context.
        """
        count, steps = self._decode(encoded, style, soft_tokens, options)
        tokens: list[list[int]] = [[] for _ in range(count)]
        stopped = [False] * count
        for row, token in steps:
            if token is None:
                stopped[row] = True
            else:
                tokens[row].append(token)
        return [
            Generation(self._tokenizer.decode(ids), tuple(ids), "stop" if done else "length")
            for ids, done in zip(tokens, stopped, strict=True)
        ]

    def stream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> Generator[str, None, None]:
        """Describes an image piece by piece; the pieces joined are the text that `generate` gives.

        Arguments are checked at the call, before the first piece is asked for.

        Args:
            encoded: What this model's `encode_image` returned.
            style: Name of one of the model's styles.
            soft_token: (hidden,), the persona; None asks without one.
            options: How to decode; the default is greedy.

        Raises:
            InvalidArgumentError: As for `generate`.
        """
        rows = self.stream_rows([encoded], style, one_row(soft_token), options)
        return (piece for _, piece in rows if piece is not None)

    def astream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> AsyncGenerator[str, None]:
        """Describes as `stream` does, for ``async for``: each piece is computed in a worker thread, none ahead."""
        return in_worker_threads(self.stream(encoded, style, soft_token, options))

    def stream_rows(
        self,
        encoded: Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
        *,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, str | None]]:
        """See `VisionLanguageModel`; the arguments are those of `generate`, an image a row, checked at the call."""
        count, steps = self._decode(encoded, style, soft_tokens, options, wanted)
        return pieces_of_rows(steps, count, self._tokenizer)

    def _decode(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None,
        wanted: Callable[[int], bool] = every_row,
    ) -> tuple[int, Iterator[tuple[int, int | None]]]:
        """Checks, and returns how many rows there are, and (row, token) as they choose tokens; None for one's end."""
        images, soft = rows_of(encoded, soft_tokens, kind=ImageFeatures, model=self, config=self.config)
        batches = [
            (rows, self._decode_batch([images[i] for i in rows], style, None if soft is None else soft[rows], options))
            for rows in self._batches(images)
        ]
        return len(images), (
            (rows[row], token)
            for rows, steps in batches
            for row, token in steps(lambda row, rows=rows: wanted(rows[row]))  # type: ignore[misc]
        )

    def _batches(self, images: Sequence[ImageFeatures]) -> Iterable[list[int]]:
        """Rows that can be decoded at once: all, where the cache takes rows of any length, else those of one length."""
        if self._decoder.in_place:
            return [list(range(len(images)))] if images else []
        by_length = sorted(range(len(images)), key=lambda i: len(images[i].features))
        return [list(rows) for _, rows in groupby(by_length, key=lambda i: len(images[i].features))]

    def _decode_batch(
        self, images: Sequence[ImageFeatures], style: str, soft: Floats | None, options: DecodingOptions | None
    ) -> Callable[[Callable[[int], bool]], Iterator[tuple[int, int | None]]]:
        """Checks, and returns what decodes rows as long as they are wanted."""
        options = options or DecodingOptions()
        plain = self._template.without_persona(style)
        steered = soft is not None and options.strength != 0
        guided = steered and options.strength != 1
        lengths = [len(plain)] if guided or not steered else []
        if steered:
            prompt = self._template.with_persona(style)
            lengths.append(len(prompt.before) + 1 + len(prompt.after))
        longest = max((len(self._template.image_ids(len(image.features))) for image in images), default=0)
        limit = min(options.max_new_tokens, room_for(longest + max(lengths), self.config.max_positions))
        return partial(self._steps, images, style, soft if steered else None, guided, limit, options)

    def _steps(
        self,
        images: Sequence[ImageFeatures],
        style: str,
        soft: Floats | None,
        guided: bool,
        limit: int,
        options: DecodingOptions,
        wanted: Callable[[int], bool],
    ) -> Iterator[tuple[int, int | None]]:
        if not images:
            return
        streams = []
        if soft is not None:
            prompt = self._template.with_persona(style)
            after = np.broadcast_to(self._embed(prompt.after), (len(soft), len(prompt.after), self.config.hidden_size))
            streams.append(self._prefill(images, prompt.before, np.concatenate([soft[:, None], after], axis=1), limit))
        if soft is None or guided:
            plain = self._embed(self._template.without_persona(style))
            streams.append(self._prefill(images, (), np.broadcast_to(plain, (len(images), *plain.shape)), limit))
        chooser = TokenChooser(len(images), options, self.config.tokens.suppressed)
        logits = [found for found, _ in streams]
        caches = [cache for _, cache in streams]
        alive = np.arange(len(images))
        ends = set(self.config.tokens.end)
        for step in range(limit):
            scores = guide(logits[0], logits[1], options.strength) if guided else logits[0]
            tokens = chooser.choose(scores, alive)
            ended = np.array([token in ends or not wanted(int(row)) for row, token in zip(alive, tokens, strict=True)])
            yield from (
                (int(row), None if end else int(token)) for row, token, end in zip(alive, tokens, ended, strict=True)
            )
            alive, tokens = alive[~ended], tokens[~ended]
            if not len(alive) or step + 1 == limit:
                return
            if ended.any():
                for cache in caches:
                    cache.keep(~ended)
            embeddings = self._embed(tokens)[:, None]
            logits = [self._extend(cache, embeddings) for cache in caches]

    def _prefill(
        self, images: Sequence[ImageFeatures], before: tuple[int, ...], rest: Floats, limit: int
    ) -> tuple[Floats, KVCache]:
        """Computes the prompts: image, `before`, and each row's own (B, S, hidden) `rest`; returns logits and cache."""
        first = images[0]
        if len(images) == 1:
            with first._lock:
                if before not in first._prefixes:
                    # All in one pass: two would read the decoder's weights twice.
                    logits, cache = self._pass(first, before, rest, limit)
                    assert logits is not None
                    return logits, cache
        cache = self._decoder.start([self._prefix(image, before) for image in images], rest.shape[1] + limit)
        return self._extend(cache, rest), cache

    def _prefix(self, image: ImageFeatures, before: tuple[int, ...]) -> Prefix:
        with image._lock:
            if before not in image._prefixes:
                self._pass(image, before, np.empty((1, 0, self.config.hidden_size), np.float32), 0)
            return image._prefixes[before]

    def _pass(
        self, image: ImageFeatures, before: tuple[int, ...], rest: Floats, limit: int
    ) -> tuple[Floats | None, KVCache]:
        """Computes image, `before` and (1, S, hidden) `rest`, or what of it is not known yet; keeps the prefix.

        Returns:
            (1, V) logits, or None where `rest` is empty; and a cache with room for `limit` tokens more.
        """
        ids = self._template.image_ids(len(image.features))
        # Any id of a text stands for those that have none.
        text = [*before, *[self.config.tokens.subject] * rest.shape[1]]
        places, following = rotary_positions(
            [*ids, *text], self.config.tokens.image, np.array([image.grid]), self.config.vision.merge_size
        )
        positions = np.concatenate([places, np.full((3, 1), following)], axis=1)
        end_of_image, end = (len(ids), int(positions[0, len(ids)])), len(ids) + len(before)
        if image._prefixes:
            known = next(iter(image._prefixes.values())).cut(*end_of_image)
            embeddings = self._embed(before)
        else:
            known = self._decoder.empty
            embeddings = self._embed([*ids, *before])
            embeddings[: len(ids)][np.equal(ids, self.config.tokens.image)] = image.features
        embeddings = np.concatenate([embeddings, rest[0]])[None]
        cache = self._decoder.start([known], embeddings.shape[1] + limit)
        logits = None
        if embeddings.shape[1]:
            logits = self._decoder.extend(cache, embeddings, positions[:, known.length :], logits=rest.shape[1] > 0)
        image._prefixes[before] = cache.prefix(end, int(positions[0, end]))
        return logits, cache

    def _extend(self, cache: KVCache, embeddings: Floats) -> Floats:
        logits = self._decoder.extend(cache, embeddings)
        assert logits is not None
        return logits


def open_vlm(
    folder: str | Path,
    config: VLMConfig,
    prompts: Prompts,
    tokenizer: Tokenizer,
    *,
    providers: Sequence[str] = CPU,
    threads: int | None = None,
    precision: Precision | None = None,
) -> VisionLanguageModel:
    """Opens the VLM of a bundle.

    Args:
        folder: The folder with the VLM's files, laid out as `pydeper.bundle.vlm_files` says.
        config: Its part of `config.json`.
        prompts: System turn and styles.
        tokenizer: The bundle's tokenizer; it is not changed.
        providers: ONNX Runtime execution providers, in order of preference.
        threads: Threads within one operation; None leaves the number to the runtime.
        precision: Which variant of the files; None is the config's.

    Raises:
        BundleError: A file is missing, damaged, or not of the sizes in `config`.
        RuntimeMissingError: ONNX Runtime is missing or doubled.
        InvalidArgumentError: A provider is not in this build of the runtime, or `threads` is below 1.
    """
    return Qwen2VLRuntime(
        Path(folder), config, prompts, tokenizer, providers=providers, threads=threads, precision=precision
    )
