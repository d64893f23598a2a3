"""Qwen2-VL on ONNX Runtime: vision encoder, embedding table, decoder with a key/value cache."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from pydeper.config import Prompts, VLMConfig
from pydeper.errors import BundleError, InvalidArgumentError
from pydeper.vlm.decoding import DecodingOptions, IncrementalText, TokenChooser, guide
from pydeper.vlm.image_patches import image_patches
from pydeper.vlm.prompt import PromptTemplate, rotary_positions
from pydeper.vlm.session import CPU, open_session

VISION_ENCODER, EMBEDDINGS, DECODER = "vision_encoder.onnx", "embed_tokens.npy", "decoder_model_merged.onnx"

Floats = npt.NDArray[np.float32]


@attrs.frozen
class Generation:
    """One description.

    Attributes:
        text: Its text.
        token_ids: Its tokens, without the end token.
        finish_reason: "stop" where the model ended it, "length" where a limit did.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


@attrs.frozen(eq=False)
class Prefix:
    """The state of the decoder after some tokens, ready to be continued by any number of rows.

    Attributes:
        cache: Keys and values of all layers, in the decoder's order, each (B, kv_heads, length, head_dim).
        next_position: Number of the next token on all three rotary axes.
    """

    cache: tuple[Floats, ...]
    next_position: int

    @property
    def length(self) -> int:
        """Tokens so far."""
        return int(self.cache[0].shape[2])


@attrs.frozen(eq=False)
class EncodedImage:
    """An image as one model sees it: computed once, then shared by all personas and styles.

    Attributes:
        features: (image tokens, hidden) float32, what the vision encoder made of the image.
        grid: (frames, patch rows, patch columns).
        prefix: The decoder after the system turn and the image.
    """

    features: Floats
    grid: tuple[int, int, int]
    prefix: Prefix
    _model: object = attrs.field(repr=False)
    _styles: dict[str, Prefix] = attrs.field(factory=dict, init=False, repr=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False, repr=False)


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
    ) -> None:
        """Opens the three files of a bundle's VLM folder.

        Args:
            folder: Holds `vision_encoder.onnx`, `embed_tokens.npy` and `decoder_model_merged.onnx`.
            config: Sizes, preprocessing and special tokens.
            prompts: System turn and styles.
            tokenizer: The VLM's tokenizer, `<subj>` included; it is not changed.
            providers: ONNX Runtime execution providers, in order of preference.
            threads: Threads within one operation; None leaves the number to the runtime.

        Raises:
            BundleError: A file is missing, damaged or not of the sizes in `config`; or see `PromptTemplate`.
            RuntimeMissingError, InvalidArgumentError: See `open_session`.
        """
        self.config = config
        self._tokenizer = tokenizer
        self._template = PromptTemplate(prompts, config, tokenizer)
        self._table = _open_table(folder / EMBEDDINGS, config)
        self._vision = open_session(folder / VISION_ENCODER, providers=providers, threads=threads)
        self._decoder = open_session(folder / DECODER, providers=providers, threads=threads)
        names = [f"{i}.{kind}" for i in range(config.num_layers) for kind in ("key", "value")]
        self._past_names = [f"past_key_values.{name}" for name in names]
        self._output_names = ["logits", *(f"present.{name}" for name in names)]
        _check_names(folder / VISION_ENCODER, self._vision, ["pixel_values", "image_grid_thw"], ["image_features"])
        inputs = ["inputs_embeds", "attention_mask", "position_ids", *self._past_names]
        _check_names(folder / DECODER, self._decoder, inputs, self._output_names)

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Runs the vision encoder, and the decoder over everything that comes before the style's text.

        Args:
            image: An upright RGB image.

        Raises:
            InvalidImageError: Its aspect ratio is out of range (see `resized_shape`).
            InvalidArgumentError: It gives more tokens than the model's context holds.
        """
        pixel_values, grid = image_patches(image, self.config.vision)
        ids = self._template.image_ids(len(pixel_values) // self.config.vision.merge_size**2)
        self._room(len(ids))
        (features,) = self._vision.run(["image_features"], {"pixel_values": pixel_values, "image_grid_thw": grid})
        features.flags.writeable = False
        embeddings = self._embed(ids)
        embeddings[np.equal(ids, self.config.tokens.image)] = features
        merge_size = self.config.vision.merge_size
        positions, next_position = rotary_positions(ids, self.config.tokens.image, grid, merge_size)
        _, cache = self._run(embeddings[None], positions[:, None], self._empty_cache())
        frames, rows, columns = grid[0].tolist()
        return EncodedImage(features, (frames, rows, columns), Prefix(cache, next_position), self)

    def generate(
        self,
        encoded: EncodedImage,
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> list[Generation]:
        """Describes an image for a batch of personas, or without one.

        Args:
            encoded: What this model's `encode_image` returned.
            style: Name of one of the model's styles.
            soft_tokens: (B, hidden), a persona a row; None asks without a persona and gives one description.
            options: How to decode; the default is greedy.

        Returns:
            B descriptions, in order.

        Raises:
            InvalidArgumentError: An unknown style, soft tokens of another shape or not finite, an image that another
                model encoded, or a prompt longer than the model's context.
        """
        options = options or DecodingOptions()
        soft = None if soft_tokens is None else self._checked(soft_tokens)
        rows = 1 if soft is None else len(soft)
        tokens: list[list[int]] = [[] for _ in range(rows)]
        stopped = [False] * rows
        for row, token in self._decode(encoded, style, soft, options):
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
    ) -> Iterator[str]:
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
        soft = None if soft_token is None else self._checked(np.asarray(soft_token)[None])
        steps = self._decode(encoded, style, soft, options or DecodingOptions())
        return self._pieces(steps)

    def _pieces(self, steps: Iterator[tuple[int, int | None]]) -> Iterator[str]:
        text = IncrementalText(self._tokenizer)
        for _, token in steps:
            if token is not None and (piece := text.push(token)):
                yield piece
        if rest := text.finish():
            yield rest

    def _decode(
        self, encoded: EncodedImage, style: str, soft: Floats | None, options: DecodingOptions
    ) -> Iterator[tuple[int, int | None]]:
        """Checks, then yields (row, token) as rows choose tokens; None for a row that has ended."""
        if encoded._model is not self:
            raise InvalidArgumentError("this image was encoded by another model; encode it with this one")
        rows = 1 if soft is None else len(soft)
        plain_ids = self._template.without_persona(style)
        steered = soft is not None and options.strength != 0
        guided = steered and options.strength != 1
        lengths = [encoded.prefix.length + len(plain_ids)] if guided or not steered else []
        if steered:
            prompt = self._template.with_persona(style)
            lengths.append(encoded.prefix.length + len(prompt.before) + 1 + len(prompt.after))
        limit = min(options.max_new_tokens, self._room(max(lengths)))
        return self._steps(encoded, style, soft if steered else None, guided, rows, limit, options)

    def _steps(
        self,
        encoded: EncodedImage,
        style: str,
        soft: Floats | None,
        guided: bool,
        rows: int,
        limit: int,
        options: DecodingOptions,
    ) -> Iterator[tuple[int, int | None]]:
        if rows == 0:
            return
        streams = [] if soft is None else [self._prefill_persona(encoded, style, soft)]
        if soft is None or guided:
            streams.append(self._prefill_plain(encoded, style, rows))
        chooser = TokenChooser(rows, options, self.config.tokens.suppressed)
        alive = np.arange(rows)
        for step in range(limit):
            logits = guide(streams[0][0], streams[1][0], options.strength) if guided else streams[0][0]
            tokens = chooser.choose(logits, alive)
            ended = np.isin(tokens, self.config.tokens.end)
            yield from (
                (int(row), None if end else int(token)) for row, token, end in zip(alive, tokens, ended, strict=True)
            )
            alive, tokens = alive[~ended], tokens[~ended]
            if not len(alive) or step + 1 == limit:
                return
            streams = [self._advance(tokens, _rows(prefix, ~ended)) for _, prefix in streams]

    def _prefill_persona(self, encoded: EncodedImage, style: str, soft: Floats) -> tuple[Floats, Prefix]:
        prompt = self._template.with_persona(style)
        after = np.broadcast_to(self._embed(prompt.after), (len(soft), len(prompt.after), self.config.hidden_size))
        embeddings = np.concatenate([soft[:, None], after], axis=1)
        return self._extend(embeddings, _broadcast(self._style_prefix(encoded, style, prompt.before), len(soft)))

    def _prefill_plain(self, encoded: EncodedImage, style: str, rows: int) -> tuple[Floats, Prefix]:
        logits, prefix = self._extend(self._embed(self._template.without_persona(style))[None], encoded.prefix)
        return np.repeat(logits, rows, axis=0), _broadcast(prefix, rows)

    def _style_prefix(self, encoded: EncodedImage, style: str, before: tuple[int, ...]) -> Prefix:
        with encoded._lock:
            if style not in encoded._styles:
                prefix = encoded.prefix
                encoded._styles[style] = self._extend(self._embed(before)[None], prefix)[1] if before else prefix
            return encoded._styles[style]

    def _advance(self, tokens: npt.NDArray[np.int64], prefix: Prefix) -> tuple[Floats, Prefix]:
        return self._extend(self._embed(tokens)[:, None], prefix)

    def _extend(self, embeddings: Floats, prefix: Prefix) -> tuple[Floats, Prefix]:
        """Runs (B, S, hidden) text embeddings after a prefix of B rows; returns (B, V) logits of the last one."""
        rows, length, _ = embeddings.shape
        positions = prefix.next_position + np.arange(length, dtype=np.int64)
        logits, cache = self._run(embeddings, np.broadcast_to(positions, (3, rows, length)), prefix.cache)
        return logits, Prefix(cache, prefix.next_position + length)

    def _run(
        self, embeddings: Floats, positions: npt.NDArray[np.int64], cache: tuple[Floats, ...]
    ) -> tuple[Floats, tuple[Floats, ...]]:
        rows, length, _ = embeddings.shape
        feeds = {
            "inputs_embeds": embeddings,
            "attention_mask": np.ones((rows, cache[0].shape[2] + length), dtype=np.int64),
            "position_ids": np.ascontiguousarray(positions),
            **dict(zip(self._past_names, cache, strict=True)),
        }
        logits, *present = self._decoder.run(self._output_names, feeds)
        return logits[:, -1], tuple(present)

    def _embed(self, ids: Sequence[int] | npt.NDArray[np.int64]) -> Floats:
        # Unlike a read-only view, a gathered copy may be written to: image features take their places in it.
        return self._table[np.asarray(ids, dtype=np.int64)].astype(np.float32)

    def _empty_cache(self) -> tuple[Floats, ...]:
        shape = (1, self.config.num_key_value_heads, 0, self.config.head_dim)
        return tuple(np.zeros(shape, dtype=np.float32) for _ in self._past_names)

    def _room(self, prompt_tokens: int) -> int:
        room = self.config.max_positions - prompt_tokens
        if room <= 0:
            raise InvalidArgumentError(
                f"the prompt takes {prompt_tokens} tokens and the model's context holds {self.config.max_positions}; "
                "use a smaller image"
            )
        return room

    def _checked(self, soft_tokens: npt.ArrayLike) -> Floats:
        soft = np.asarray(soft_tokens, dtype=np.float32)
        if soft.ndim != 2 or soft.shape[1] != self.config.hidden_size:
            raise InvalidArgumentError(
                f"a soft token has {self.config.hidden_size} numbers for this model, got an array of shape {soft.shape}"
            )
        if not np.isfinite(soft).all():
            raise InvalidArgumentError("a soft token holds NaN or infinity")
        return soft


def _broadcast(prefix: Prefix, rows: int) -> Prefix:
    return prefix if rows == 1 else attrs.evolve(prefix, cache=tuple(np.repeat(x, rows, axis=0) for x in prefix.cache))


def _rows(prefix: Prefix, kept: npt.NDArray[np.bool_]) -> Prefix:
    return prefix if kept.all() else attrs.evolve(prefix, cache=tuple(x[kept] for x in prefix.cache))


def _open_table(path: Path, config: VLMConfig) -> npt.NDArray[np.floating[Any]]:
    try:
        table: npt.NDArray[np.floating[Any]] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file; the bundle is incomplete, fetch it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path}: not a numpy array file: {error}") from error
    if table.shape != (config.vocab_size, config.hidden_size) or table.dtype not in (np.float16, np.float32):
        raise BundleError(
            f"{path}: must be float16 or float32 of shape {(config.vocab_size, config.hidden_size)}, "
            f"got {table.dtype} of shape {table.shape}"
        )
    return table


def _check_names(path: Path, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    for kind, needed, found in (
        ("input", inputs, [value.name for value in session.get_inputs()]),
        ("output", outputs, [value.name for value in session.get_outputs()]),
    ):
        if set(needed) != set(found):
            wrong = sorted(set(needed) ^ set(found))
            raise BundleError(f"{path}: its {kind}s are not those that config.json leads to; differing: {wrong}")
