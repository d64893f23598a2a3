"""Qwen2-VL on this machine: vision encoder, embedding table, and a decoder that many personas share."""

from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from pydeper.bundle.config import Precision, Prompts, VLMConfig
from pydeper.bundle.vlm_files import VLMFiles, find_files
from pydeper.errors import PydeperError
from pydeper.runtime.devices import providers_for
from pydeper.runtime.memory import memory_explained
from pydeper.runtime.target import Runtime, Target
from pydeper.vlm.decoding import DecodingOptions, Token, every_row, only_row, pieces_of_rows
from pydeper.vlm.image_patches import image_patches
from pydeper.vlm.inputs import image_token_count, one_row, room_for, rows_of
from pydeper.vlm.local.continuous_batch import Begun, ContinuousBatch
from pydeper.vlm.local.decoder import Decoder, Floats
from pydeper.vlm.local.embeddings import open_embeddings
from pydeper.vlm.local.prompt import ImageFeatures, PromptRunner
from pydeper.vlm.local.vision_encoder import OnnxVisionEncoder, VisionEncoder
from pydeper.vlm.onnx.decoder import Decoder as OnnxRuntimeDecoder
from pydeper.vlm.openvino.decoder import OpenVINODecoder
from pydeper.vlm.openvino.vision_encoder import OptimumVisionEncoder
from pydeper.vlm.prompt import PromptTemplate
from pydeper.vlm.protocol import EncodedImage, Generation, Row, VisionLanguageModel, no_more
from pydeper.vlm.worker_threads import in_worker_threads

ROWS_AT_ONCE = 8
"""Every row of a batch has a KV cache of its own; from some 8 on a step costs as much as two smaller ones."""


@attrs.frozen(eq=False)
class _Prepared:
    """A row that has been checked.

    Attributes:
        image: Its image.
        prompts: The tokens between image and persona, and the (S, hidden) embeddings of what follows; two prompts
            where it is guided by both.
        limit: The most tokens that it may have.
        options: How to decode it.
    """

    image: ImageFeatures
    prompts: list[tuple[tuple[int, ...], Floats]]
    limit: int
    options: DecodingOptions


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
        runtime: Runtime = "onnxruntime",
        device: str = "cpu",
        threads: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        """Opens the files of one precision; see `pydeper.vlm.open_vlm`."""
        target = Target(runtime, device, threads)
        self.config = config
        self._files = find_files(folder, precision or config.precision, runtime)
        self._tokenizer = tokenizer
        self._template = PromptTemplate(prompts, config, tokenizer)
        self._embed = open_embeddings(self._files.embeddings, config, target)
        # Most of the time goes into arranging weights, by one thread a file: two files take as long as the larger.
        with ThreadPoolExecutor(1) as pool:
            vision = pool.submit(_open_vision_encoder, self._files, config, target)
            self._decoder = open_decoder(self._files, config, target)
            self._vision = vision.result()
        self._prompts = PromptRunner(self._decoder, self._embed, self._template, config)

    def report(self) -> dict[str, str]:
        """Facts about what was opened, for people: name -> value."""
        files = self._files
        return {
            "precision": files.precision,
            "vision encoder": files.vision_encoder.name,
            "embeddings": files.embeddings.name,
            "decoder": files.decoder.name,
            **self._decoder.report(),
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
        images, soft = rows_of(encoded, soft_tokens, kind=ImageFeatures, model=self, config=self.config)
        options = options or DecodingOptions()
        rows = [Row(image, None if soft is None else soft[place], style, options) for place, image in enumerate(images)]
        tokens: list[list[int]] = [[] for _ in rows]
        reasons: dict[int, Literal["stop", "length"]] = {}
        for row, token in self._decode(rows):
            if isinstance(token, int):
                tokens[row].append(token)
            elif isinstance(token, PydeperError):
                raise token
            else:
                reasons[row] = token
        return [Generation(self._tokenizer.decode(ids), tuple(ids), reasons[row]) for row, ids in enumerate(tokens)]

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
        rows = self.stream_rows([Row(encoded, soft_token, style, options or DecodingOptions())])
        return only_row(rows)

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
        rows: Sequence[Row],
        *,
        more: Callable[[int], Sequence[Row]] = no_more,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, str | PydeperError | None]]:
        """See `VisionLanguageModel`; the images are what this model's `encode_image` returned.

        A row is computed as it would be alone, whichever rows are computed with it.
        """
        return pieces_of_rows(self._decode(rows, more, wanted), self._tokenizer)

    def _decode(
        self,
        rows: Sequence[Row],
        more: Callable[[int], Sequence[Row]] = no_more,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, Token]]:
        """Checks rows, and returns (row, token) as they choose tokens."""
        return self._steps([self._prepared(row) for row in rows], more, wanted)

    def _steps(
        self, first: Sequence[_Prepared], more: Callable[[int], Sequence[Row]], wanted: Callable[[int], bool]
    ) -> Iterator[tuple[int, Token]]:
        tokens = self.config.tokens
        batch = ContinuousBatch(self._decoder, self._embed, suppressed=tokens.suppressed, ends=tokens.end)
        count = 0
        joining: Sequence[_Prepared | Row] = first
        while joining or len(batch):
            for number, row in enumerate(joining, count):
                if not wanted(number):
                    yield number, "stop"
                    continue
                try:
                    with memory_explained("computing a prompt"):
                        self._add(batch, number, row if isinstance(row, _Prepared) else self._prepared(row))
                except PydeperError as error:
                    yield number, error
            count += len(joining)
            if len(batch):
                yield from batch.step(wanted)
            joining = more(len(batch))

    def _add(self, batch: ContinuousBatch, number: int, row: _Prepared) -> None:
        begun = [Begun(*self._prompts.run(row.image, before, rest, row.limit)) for before, rest in row.prompts]
        batch.add(number, begun, row.limit, row.options)

    def _prepared(self, row: Row) -> _Prepared:
        """Checks a row."""
        (image,), soft = rows_of(
            [row.image], one_row(row.soft_token), kind=ImageFeatures, model=self, config=self.config
        )
        plain = self._template.without_persona(row.style)
        prompt = self._template.with_persona(row.style)
        strength = row.options.strength
        prompts: list[tuple[tuple[int, ...], Floats]] = []
        if soft is not None and strength != 0:
            prompts.append((prompt.before, np.concatenate([soft, self._embed(prompt.after)])))
        if not prompts or strength != 1:
            prompts.append(((), self._embed(plain)))
        longest = max(len(before) + len(rest) for before, rest in prompts)
        room = room_for(len(self._template.image_ids(len(image.features))) + longest, self.config.max_positions)
        return _Prepared(image, prompts, min(row.options.max_new_tokens, room), row.options)


def open_vlm(
    folder: str | Path,
    config: VLMConfig,
    prompts: Prompts,
    tokenizer: Tokenizer,
    *,
    runtime: Runtime = "onnxruntime",
    device: str = "cpu",
    threads: int | None = None,
    precision: Precision | None = None,
) -> VisionLanguageModel:
    """Opens the VLM of a bundle.

    Args:
        folder: The folder with the VLM's files, laid out as `pydeper.bundle.vlm_files` says.
        config: Its part of `config.json`.
        prompts: System turn and styles.
        tokenizer: The bundle's tokenizer; it is not changed.
        runtime: Which runtime computes it.
        device: Of the runtime; see `pydeper.runtime.target.Target`.
        threads: Threads within one operation; None leaves the number to the runtime.
        precision: Which variant of the files; None is the config's.

    Raises:
        BundleError: A file is missing, damaged, or not of the sizes in `config`.
        RuntimeMissingError: The runtime is missing, or ONNX Runtime is installed twice.
        InvalidArgumentError: The device cannot be used, or `threads` is below 1.
    """
    return Qwen2VLRuntime(
        Path(folder),
        config,
        prompts,
        tokenizer,
        runtime=runtime,
        device=device,
        threads=threads,
        precision=precision,
    )


def _open_vision_encoder(files: VLMFiles, config: VLMConfig, target: Target) -> VisionEncoder:
    if files.vision_merger:
        return OptimumVisionEncoder(files.vision_encoder, files.vision_merger, config, target)
    return OnnxVisionEncoder(files.vision_encoder, config, target)


def open_decoder(files: VLMFiles, config: VLMConfig, target: Target) -> Decoder:
    """Opens the decoder for the runtime that a target names; raises what that runtime's decoder does."""
    if target.runtime == "openvino":
        return OpenVINODecoder(files, config, device=target.device, threads=target.threads)
    return OnnxRuntimeDecoder(files, config, providers=providers_for(target.device), threads=target.threads)
