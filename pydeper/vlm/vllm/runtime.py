"""Qwen2-VL on vLLM servers: what `pydeper.vlm.local.runtime` computes on this machine, by chat completions."""

import asyncio
import base64
import contextlib
import io
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import aclosing

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tokenizers import Tokenizer

from pydeper.bundle.config import SUBJECT_TOKEN, Prompts, VLMConfig
from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.vlm.decoding import DecodingOptions, IncrementalText, every_row
from pydeper.vlm.image_patches import resized_shape
from pydeper.vlm.inputs import image_token_count, one_row, room_for, rows_of
from pydeper.vlm.prompt import PromptTemplate
from pydeper.vlm.protocol import EncodedImage, Generation, Row, no_more
from pydeper.vlm.vllm.background import BackgroundLoop
from pydeper.vlm.vllm.client import Request, VLLMClient
from pydeper.vlm.vllm.events import Tokens
from pydeper.vlm.vllm.settings import VLLMServers
from pydeper.vlm.vllm.torch_file import torch_file

# How often new rows and rows that are not wanted any more are looked for, while no piece arrives.
_LOOK_SECONDS = 0.02

_NEVER = -100.0  # the lowest bias that vLLM adds to a logit


@attrs.frozen(eq=False, repr=False)
class ImageForServer(EncodedImage):
    """An image in the size that the model reads, as the address that holds it: a server encodes it.

    Attributes:
        address: A ``data:`` address of a PNG.
        image_tokens: How many tokens it takes in a prompt.
    """

    address: str
    image_tokens: int = attrs.field()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return len(self.address)


class VLLMRuntime:
    """A frozen Qwen2-VL on vLLM servers, steered by one soft token. Immutable and thread-safe after loading.

    The soft token goes into the prompt as an embedding. A server returns the tokens that it made of the prompt,
    which must be the model's, and those of the description, which become text here, as those of a local model do.
    """

    def __init__(self, servers: VLLMServers, config: VLMConfig, prompts: Prompts, tokenizer: Tokenizer) -> None:
        """Queries the servers for what they serve.

        Raises:
            VLLMError: None can be reached, or one cannot serve this model; see `pydeper.errors`.
            BundleError: The tokenizer is not of this model.
        """
        self.config = config
        self._servers, self._prompts, self._tokenizer = servers, prompts, tokenizer
        self._template = PromptTemplate(prompts, config, tokenizer)
        client = VLLMClient(servers, config)
        self._client, self._loop = client, BackgroundLoop()
        self._loop.end_with(self, client.aclose)
        self._loop.result(client.connect())

    @property
    def rows_at_once(self) -> int:
        """The most descriptions that `generate` should be given together."""
        return self._servers.max_concurrency

    def report(self) -> dict[str, str]:
        """Facts about the servers, for people: name -> value."""
        servers = self._client.fleet.servers
        names = ["server"] if len(servers) == 1 else [f"server {number}" for number in range(1, len(servers) + 1)]
        return {name: server.described() for name, server in zip(names, servers, strict=True)}

    def check_options(self, options: DecodingOptions) -> None:
        """Refuses what would need the logits.

        Raises:
            InvalidArgumentError: `strength` is neither 0 nor 1, or there is a `repetition_penalty`.
        """
        if options.strength not in (0, 1):
            raise InvalidArgumentError(
                "strength must be 0 or 1 on a vLLM server, which decodes without the persona or with it as trained, "
                f"got {options.strength!r}; for others load the model without vlm="
            )
        if options.repetition_penalty != 1:
            raise InvalidArgumentError(
                "repetition_penalty must be 1 on a vLLM server, which would count the words of the prompt as well, "
                f"got {options.repetition_penalty!r}; for others load the model without vlm="
            )

    def encode_image(self, image: Image.Image) -> ImageForServer:
        """Brings an image to the size that the model reads, so that the server has nothing to resize.

        Args:
            image: An upright RGB image.

        Raises:
            InvalidImageError: It has no pixels, or its aspect ratio is out of range (see `resized_shape`).
            InvalidArgumentError: It gives more tokens than the model's context holds.
        """
        vision = self.config.vision
        image_tokens = image_token_count(image.height, image.width, vision)
        room_for(len(self._template.image_ids(image_tokens)), self.config.max_positions)
        height, width = resized_shape(image.height, image.width, vision)
        file = io.BytesIO()
        image.resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
        address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
        grid = (1, height // vision.patch_size, width // vision.patch_size)
        return ImageForServer(grid, self, address, image_tokens)

    def generate(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> list[Generation]:
        """Describes images for a batch of personas, or without one; all requests are open at once.

        The arguments are those of `pydeper.vlm.local.runtime.Qwen2VLRuntime.generate`.

        Raises:
            InvalidArgumentError: As there; or the servers cannot decode so: `strength` other than 0 and 1, or a
                `repetition_penalty`.
            VLLMError: No server went through with it, or one refused.
        """
        requests = self._requests(encoded, style, soft_tokens, options or DecodingOptions())
        return self._loop.result(self._all(requests))

    def stream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> Generator[str, None, None]:
        """Describes an image piece by piece; the pieces joined are the text that `generate` gives.

        Iterating sends the request. Closing or dropping the generator closes the request,
        and the server stops.

        Raises:
            InvalidArgumentError: As for `generate`, at the call.
            VLLMError: As for `generate`, while iterating.
        """
        return self._loop.iterate(self._pieces(self._request(encoded, style, soft_token, options)))

    def astream(
        self,
        encoded: EncodedImage,
        style: str,
        soft_token: npt.ArrayLike | None,
        options: DecodingOptions | None = None,
    ) -> AsyncGenerator[str, None]:
        """Describes as `stream` does, for ``async for``; cancelling the task closes the request."""
        return self._loop.aiterate(self._pieces(self._request(encoded, style, soft_token, options)))

    def stream_rows(
        self,
        rows: Sequence[Row],
        *,
        more: Callable[[int], Sequence[Row]] = no_more,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, str | PydeperError | None]]:
        """See `VisionLanguageModel`; all requests are open at once, and one that is not wanted any more is closed."""
        return self._loop.iterate(self._interleaved([self._request_of_row(row) for row in rows], more, wanted))

    async def _interleaved(
        self, first: Sequence[Request], more: Callable[[int], Sequence[Row]], wanted: Callable[[int], bool]
    ) -> AsyncGenerator[tuple[int, str | PydeperError | None], None]:
        arrived: deque[tuple[int, str | Exception | None]] = deque()
        something = asyncio.Event()
        running: dict[int, asyncio.Task[None]] = {}
        dropped: set[asyncio.Task[None]] = set()
        count = 0

        def arrive(row: int, piece: str | Exception | None) -> None:
            arrived.append((row, piece))
            something.set()

        async def receive(row: int, asked: Request | Row) -> None:
            try:
                request = asked if isinstance(asked, Request) else self._request_of_row(asked)
                async with aclosing(self._pieces(request)) as pieces:
                    async for piece in pieces:
                        arrive(row, piece)
                arrive(row, None)
            except Exception as error:
                arrive(row, error)

        joining: Sequence[Request | Row] = first
        try:
            while joining or running:
                for row, asked in enumerate(joining, count):
                    running[row] = asyncio.ensure_future(receive(row, asked))
                count += len(joining)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(something.wait(), _LOOK_SECONDS)
                something.clear()
                for row in [row for row in running if not wanted(row)]:
                    task = running.pop(row)
                    dropped.add(task)
                    task.add_done_callback(dropped.discard)
                    task.cancel()
                    yield row, None
                while arrived:
                    row, piece = arrived.popleft()
                    if row not in running:
                        continue
                    if isinstance(piece, Exception) and not isinstance(piece, PydeperError):
                        raise piece
                    if not isinstance(piece, str):
                        del running[row]
                    yield row, piece
                # It encodes images, which takes milliseconds each.
                joining = await asyncio.to_thread(more, len(running))
        finally:
            left = {*running.values(), *dropped}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def _request_of_row(self, row: Row) -> Request:
        return self._request(row.image, row.style, row.soft_token, row.options)

    def _request(
        self, encoded: EncodedImage, style: str, soft_token: npt.ArrayLike | None, options: DecodingOptions | None
    ) -> Request:
        (request,) = self._requests(encoded, style, one_row(soft_token), options or DecodingOptions())
        return request

    def _requests(
        self,
        encoded: EncodedImage | Sequence[EncodedImage],
        style: str,
        soft_tokens: npt.ArrayLike | None,
        options: DecodingOptions,
    ) -> list[Request]:
        images, soft = rows_of(encoded, soft_tokens, kind=ImageForServer, model=self, config=self.config)
        self.check_options(options)
        if options.strength == 0:
            soft = None
        sampling = _sampling(options, self.config)
        rows = [None] * len(images) if soft is None else list(soft)
        return [
            self._request_of(image, style, row, sampling, options.max_new_tokens)
            for image, row in zip(images, rows, strict=True)
        ]

    def _request_of(
        self,
        image: ImageForServer,
        style: str,
        soft_token: npt.NDArray[np.float32] | None,
        sampling: dict[str, object],
        max_new_tokens: int,
    ) -> Request:
        prompt_ids: list[int | None] = [*self._template.image_ids(image.image_tokens)]
        parts: list[dict[str, object]] = [{"type": "image_url", "image_url": {"url": image.address}}]
        if soft_token is None:
            prompt_ids += self._template.without_persona(style)
            parts += _text(self._prompts.styles[style].without_persona)
        else:
            prompt = self._template.with_persona(style)
            prompt_ids += [*prompt.before, None, *prompt.after]
            before, after = self._prompts.styles[style].with_persona.split(SUBJECT_TOKEN)
            data = base64.b64encode(torch_file(soft_token[None])).decode()
            parts += [*_text(before), {"type": "prompt_embeds", "data": data}, *_text(after)]
        room_for(len(prompt_ids), self.config.max_positions)
        messages = [{"role": "system", "content": self._prompts.system}, {"role": "user", "content": parts}]
        return Request({"messages": messages, **sampling}, tuple(prompt_ids), max_new_tokens)

    async def _all(self, requests: Sequence[Request]) -> list[Generation]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._whole(request)) for request in requests]
        except* Exception as errors:
            # The first one ended all others.
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return [task.result() for task in tasks]

    async def _whole(self, request: Request) -> Generation:
        (tokens,) = [tokens async for tokens in self._client.tokens(request, whole=True)]
        ids, ended = self._up_to_the_end(tokens)
        return Generation(self._tokenizer.decode(list(ids)), ids, "stop" if ended else "length")

    async def _pieces(self, request: Request) -> AsyncGenerator[str, None]:
        text = IncrementalText(self._tokenizer)
        async with aclosing(self._client.tokens(request, whole=False)) as stream:
            async for tokens in stream:
                ids, _ = self._up_to_the_end(tokens)
                if piece := "".join(map(text.push, ids)):
                    yield piece
        if rest := text.finish():
            yield rest

    def _up_to_the_end(self, tokens: Tokens) -> tuple[tuple[int, ...], bool]:
        """Returns the tokens before the end token, and whether the description has ended."""
        ends = [place for place, token in enumerate(tokens.ids) if token in self.config.tokens.end]
        return tokens.ids[: ends[0]] if ends else tokens.ids, bool(ends) or tokens.finish_reason == "stop"


def _text(text: str) -> list[dict[str, object]]:
    """Returns a text as parts of a message: none where it is empty."""
    return [{"type": "text", "text": text}] if text else []


def _sampling(options: DecodingOptions, config: VLMConfig) -> dict[str, object]:
    """Returns what a request says of decoding; all of it, or a server would put in the model's own defaults."""
    seed = {} if options.seed is None else {"seed": options.seed % 2**63}
    return {
        "stream": True,
        "return_token_ids": True,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": list(config.tokens.end),
        "logit_bias": {str(token): _NEVER for token in config.tokens.suppressed},
        **seed,
    }
