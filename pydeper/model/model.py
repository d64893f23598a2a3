"""A model in use: a bundle's persona encoder, adapter and vision-language model behind one face."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from os import PathLike
from typing import Unpack

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import Precision
from pydeper.errors import PydeperError
from pydeper.images import ImageLike, open_image
from pydeper.model.batch import describe_in_groups, describe_rows, image_key, read_pairs, read_personas
from pydeper.model.loading import find_bundle
from pydeper.model.options import DescribeOptions
from pydeper.model.parts import ModelParts
from pydeper.model.requests import DescriptionRequest, nothing_more, parts_of, stream_requests
from pydeper.persona.persona import Persona
from pydeper.publish import push
from pydeper.runtime.memory import memory_explained
from pydeper.runtime.target import Runtime
from pydeper.samples.sample import Sample, checked_samples
from pydeper.vlm import EncodedImage
from pydeper.vlm.decoding import every_row
from pydeper.vlm.protocol import Row
from pydeper.vlm.vllm.settings import VLLMServers


class DeperModel(ModelParts):
    """A frozen vision-language model that describes images as one particular person would.

    Immutable and thread-safe after loading, but for its cache of encoded images, which is thread-safe as well. Pickled,
    it says where its bundle is, and is loaded again from there. It must not cross a fork: each process loads its own.

    Attributes:
        config: The bundle's `config.json`.
        model_id: A Hub id, or the bundle's own name.
        revision: The bundle's commit on the Hub, or None where it does not come from there.
        persona_encoder: The bundle's persona encoder, which makes personas by itself.

    Examples:
        >>> from pydeper import DeperModel, demo_image
        >>> model = DeperModel.from_pretrained("tiny")
        >>> model.describe(demo_image())
        'I can see a black circle and a brown ring and a green cross and a blue rectangle and a red diamond.'
    """

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | PathLike[str] | None = None,
        device: str = "auto",
        revision: str | None = None,
        threads: int | None = None,
        local_files_only: bool = False,
        precision: Precision | None = None,
        image_cache: int = 4,
        vlm: VLLMServers | str | Sequence[str] | None = None,
        runtime: Runtime | None = None,
    ) -> "DeperModel":
        """Finds a model, checks its files against its manifest, and loads it.

        Args:
            name_or_folder: ``"tiny"`` (built in), a bundle's folder, or a Hub id as in ``"org/name"``. None is the
                default model: ``$PYDEPER_MODEL``, else "tiny" with a `DemonstrationModelWarning`.
            device: ``"cpu"``, ``"cuda"``, or ``"auto"``: CUDA where the installed ONNX Runtime has it, else the CPU.
                On OpenVINO ``"cpu"``, ``"gpu"`` (Intel's), or ``"auto"``, which is the CPU.
            revision: Branch, tag or commit of a Hub id; None is the main branch.
            threads: CPU threads of one operator; None leaves the choice to the runtime.
            local_files_only: Never connect to the Hub; use what its local cache holds.
            precision: Of the vision-language model's weights: ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int4"``, as
                far as the model comes in them. Fewer bits take less memory and, on a CPU, less time, and give
                somewhat other descriptions. None is the model's own choice.
            image_cache: How many encoded images to keep, those asked for last; encoding one takes seconds with a real
                model. An image is recognised by its pixels; together they hold at most 1 GiB. 0 keeps none.
            vlm: None runs the vision-language model here. The address of a vLLM server (``"http://host:8000/v1"``),
                several, or `VLLMServers` with settings: it runs there, and its files are neither needed nor read.
            runtime: ``"onnxruntime"`` or ``"openvino"``: what computes the model on this machine. None is
                ``$PYDEPER_RUNTIME``, else the one that is installed and reads the model's files, and of both ONNX
                Runtime.

        Raises:
            BundleError: There is no such model, or it is damaged, or of a format that this version does not read, or
                does not come in that precision, or has no files for that runtime.
            InvalidArgumentError: The device cannot be used, there is no such precision or runtime, or `threads` or
                `image_cache` is out of its range.
            RuntimeMissingError: The runtime is not installed, or ONNX Runtime is installed twice.
            VLLMError: No server can be reached, or one cannot serve this model; its kinds say which and what to do.

        Examples:
            >>> from pydeper import DeperModel
            >>> model = DeperModel.from_pretrained("tiny", device="cpu", threads=1)
            >>> model.model_id
            'tiny'
        """
        servers = None if vlm is None else VLLMServers.of(vlm)
        opened = find_bundle(name_or_folder, revision, local_files_only, precision, servers, runtime)
        return cls(opened, device=device, threads=threads, image_cache=image_cache, vlm=servers, runtime=runtime)

    def push_to_hub(
        self, repo_id: str, *, private: bool = False, revision: str | None = None, message: str | None = None
    ) -> str:
        """Publishes the model's bundle in a Hugging Face Hub repository, in all its precisions and in one commit.

        The files are verified first; a call that was interrupted is simply repeated. The arguments are those of
        `pydeper.publish.push`, which says more.

        Returns:
            The address of the commit.

        Raises:
            BundleError: A file is missing or altered, or a licence text is missing; or the repository holds something
                else, or the Hub refused, with the reason and the remedy.

        Examples:
            >>> from pydeper import DeperModel
            >>> model = DeperModel.from_pretrained("tiny")
            >>> model.push_to_hub("org/tiny")
            'https://huggingface.co/org/tiny/commit/...'
        """
        return push(self._folder, repo_id, private=private, revision=revision, message=message)

    def encode_image(self, image: ImageLike | EncodedImage) -> EncodedImage:
        """Reads an image once, for any number of descriptions.

        Args:
            image: A path, the bytes of an image file, a PIL image or an HxWx3 uint8 array; EXIF orientation is applied.
                What was encoded already is returned as it is.

        Returns:
            What `describe`, `stream`, `describe_each` and `describe_batch` take in place of the image; immutable, and
            of use with this model alone. The images asked for last are kept in any case (see `from_pretrained`);
            this one for as long as the caller holds it.

        Raises:
            InvalidImageError: It is not an image that can be read.
            OutOfMemoryError: It is too large for the memory there is.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> model = DeperModel.from_pretrained("tiny")
            >>> seen = model.encode_image(demo_image())
            >>> model.describe(seen, max_new_tokens=6)
            'I can see a black circle'
        """
        if isinstance(image, EncodedImage):
            return image
        with memory_explained("reading an image"):
            picture = open_image(image)
        with memory_explained(f"encoding an image of {picture.width}×{picture.height} pixels"):
            return self._images.encoded(picture, self._vlm.encode_image)

    def clear_image_cache(self) -> None:
        """Lets go of the encoded images that are kept (see `from_pretrained`), and so of their memory.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> model = DeperModel.from_pretrained("tiny")
            >>> seen = model.encode_image(demo_image())
            >>> model.clear_image_cache()
            >>> model.report().cached_images
            0
        """
        self._images.clear()

    def embed(self, samples: Iterable[Sample]) -> npt.NDArray[np.float32]:
        """Returns the subject embedding z_s of every sample: (n, 384) float32, in the order of `samples`.

        Raises:
            InvalidArgumentError: Something among them is not a `Sample`.
            InvalidSampleError: The model does not accept samples of that kind; names the sample.
            InvalidImageError: A sample's image cannot be read; names the sample.

        Examples:
            >>> from pydeper import DeperModel, demo_samples
            >>> model = DeperModel.from_pretrained("tiny")
            >>> model.embed(demo_samples("ana")).shape
            (5, 384)
        """
        return self.persona_encoder.embed(checked_samples(samples))

    def describe(
        self,
        image: ImageLike | EncodedImage,
        persona: Persona | None = None,
        *,
        style: str = "description",
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        strength: float = 1.0,
    ) -> str:
        """Describes an image as one person would.

        It returns when the description is complete. One that may have to be stopped before, by a button or a time
        limit, is taken from `stream`: what is left unasked for is never computed.

        Args:
            image: A path, the bytes of an image file, a PIL image, an HxWx3 uint8 array, or what `encode_image` gave.
            persona: Whose way of describing; None asks the vision-language model alone.
            style: One of `styles`: which of the model's prompts.
            max_new_tokens: The most tokens to write.
            temperature: 0 takes the likeliest token at each step; above 0 samples, the more freely the higher.
            top_p: Samples among the likeliest tokens that together have this probability, in (0, 1].
            repetition_penalty: 1 is none; above 1 makes tokens that the description already holds less likely (1.05
                to 1.3 are usual). Words of the prompt are not counted, unlike in transformers.
            seed: Makes sampling repeatable; None draws anew each time.
            strength: 0 is the model without the persona, 1 the persona as trained, above 1 an exaggeration of what the
                persona changes (guidance on the logits; values other than 1 cost a second decoder pass).

        Raises:
            IncompatiblePersonaError: The persona was made by another persona encoder.
            InvalidArgumentError: An option is out of its range, or the style is not one of the model's.
            InvalidImageError: The image cannot be read.
            OutOfMemoryError: Memory ran out; says while what, and what helps.

        Examples:
            >>> from pydeper import DeperModel, Persona, demo_image, demo_samples
            >>> model = DeperModel.from_pretrained("tiny")
            >>> ana = Persona.from_samples(demo_samples("ana"), model=model)
            >>> model.describe(demo_image(), ana)
            'I can see a green cross, together with a black circle, together with a blue rectangle.'
            >>> model.describe(demo_image(), ana, max_new_tokens=6)
            'I can see a green cross'
        """
        options: DescribeOptions = {"style": style, "max_new_tokens": max_new_tokens, "temperature": temperature}
        options |= {"top_p": top_p, "repetition_penalty": repetition_penalty, "seed": seed, "strength": strength}
        style, decoding = self._asked(options)
        soft_tokens = None if persona is None else self._soft_tokens([persona])
        return describe_rows(self._vlm, self.encode_image(image), style, soft_tokens, decoding)[0]

    def stream(
        self, image: ImageLike | EncodedImage, persona: Persona | None = None, **options: Unpack[DescribeOptions]
    ) -> Generator[str, None, None]:
        """Describes as `describe` does, and yields the text piece by piece while it is written.

        The arguments and the errors are those of `describe`; persona and options are checked at once, the image is read
        when the first piece is asked for. Each piece is computed when it is asked for, in the caller's thread, and
        nothing ahead of it: leaving the loop, closing or dropping the generator ends the work and frees its memory.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> model = DeperModel.from_pretrained("tiny")
            >>> for piece in model.stream(demo_image(), max_new_tokens=6):
            ...     print(piece, end="")
            I can see a black circle
        """
        style, decoding = self._asked(options)
        soft_token = self._soft_token(persona)

        def pieces() -> Generator[str, None, None]:
            encoded = self.encode_image(image)
            with memory_explained("describing an image"):
                yield from self._vlm.stream(encoded, style, soft_token, decoding)

        return pieces()

    def astream(
        self, image: ImageLike | EncodedImage, persona: Persona | None = None, **options: Unpack[DescribeOptions]
    ) -> AsyncGenerator[str, None]:
        """Streams as `stream` does, for ``async for``, without blocking the event loop.

        Cancelling the task, or closing the generator, ends the work after the step in progress.

        Examples:
            >>> import asyncio
            >>> from pydeper import DeperModel, demo_image
            >>> model = DeperModel.from_pretrained("tiny")
            >>> async def pieces():
            ...     return [piece async for piece in model.astream(demo_image(), max_new_tokens=6)]
            >>> asyncio.run(pieces())
            ['I', ' can', ' see', ' a', ' black', ' circle']
        """
        style, decoding = self._asked(options)
        soft_token = self._soft_token(persona)

        async def pieces() -> AsyncGenerator[str, None]:
            encoded = await asyncio.to_thread(self.encode_image, image)
            with memory_explained("describing an image"):
                async with aclosing(self._vlm.astream(encoded, style, soft_token, decoding)) as stream:
                    async for piece in stream:
                        yield piece

        return pieces()

    def describe_each(
        self, image: ImageLike | EncodedImage, personas: Sequence[Persona], **options: Unpack[DescribeOptions]
    ) -> list[str]:
        """Describes one image as each of several people would; the image is read once.

        The further arguments and the errors are those of `describe`.

        Returns:
            One description a persona, in their order.

        Examples:
            >>> from pydeper import DeperModel, Persona, demo_image, demo_samples
            >>> model = DeperModel.from_pretrained("tiny")
            >>> people = [Persona.from_samples(demo_samples(name), model=model) for name in ("ana", "ben")]
            >>> model.describe_each(demo_image(), people, max_new_tokens=6)
            ['I can see a green cross', 'Here we have a red rhombus']
        """
        style, decoding = self._asked(options)
        if not (personas := read_personas(personas)):
            return []
        soft_tokens = self._soft_tokens(personas)
        encoded = self.encode_image(image)
        rows = self.rows_at_once
        batches = (soft_tokens[start : start + rows] for start in range(0, len(soft_tokens), rows))
        return [text for batch in batches for text in describe_rows(self._vlm, encoded, style, batch, decoding)]

    def describe_batch(
        self,
        pairs: Iterable[tuple[ImageLike | EncodedImage, Persona | None]],
        *,
        progress: Callable[[int, int], None] | None = None,
        **options: Unpack[DescribeOptions],
    ) -> list[str]:
        """Describes many images, each as one person would; an image that comes several times is encoded once.

        Everything is checked before the first long computation: options and personas, and every image is opened and
        decoded (and once more when its turn comes, since a batch may hold more pictures than memory).

        Args:
            pairs: Images and personas, each of any kind that `describe` takes.
            progress: Called with how many descriptions are done, and of how many.
            **options: Those of `describe`; with a `seed`, each description is the one that `describe` gives with it.

        Returns:
            One description a pair, in their order.

        Raises:
            PydeperError: As `describe` does, with the number of the pair, from 1 on.

        Examples:
            >>> from pydeper import DeperModel, Persona, demo_image, demo_samples
            >>> model = DeperModel.from_pretrained("tiny")
            >>> ana = Persona.from_samples(demo_samples("ana"), model=model)
            >>> other = demo_samples("ben")[0].image
            >>> model.describe_batch([(demo_image(), ana), (other, ana)], max_new_tokens=6)
            ['I can see a green cross', 'I can see a red square']
        """
        style, decoding = self._asked(options)
        batch = read_pairs(pairs, self.check_persona)

        def check(seen: EncodedImage, persona: Persona | None) -> None:
            self._vlm.stream(seen, style, self._soft_token(persona), decoding)  # checks at the call; is never begun

        keys = [image_key(pair, self.config.vlm.vision, check) for pair in batch]
        return describe_in_groups(
            batch,
            keys,
            rows_at_once=self.rows_at_once,
            encode=lambda pair: self.encode_image(pair.image),
            describe=lambda personas, encoded: describe_rows(
                self._vlm, encoded, style, self._soft_tokens(personas) if personas else None, decoding
            ),
            progress=progress,
        )

    def stream_batch(
        self,
        requests: Iterable[DescriptionRequest],
        *,
        more: Callable[[int], Iterable[DescriptionRequest]] = nothing_more,
        wanted: Callable[[int], bool] = every_row,
    ) -> Iterator[tuple[int, str | PydeperError | None]]:
        """Describes images together, while requests come and go: what a server needs (continuous batching).

        Args:
            requests: What is asked for first: (image, persona or None, options of `describe`).
            more: Called between steps with how many descriptions are running; returns further requests, which join
                them, and does not wait. How many are computed together is the caller's choice (see `rows_at_once`).
            wanted: Asked between steps whether a description is still wanted; one that is not ends there.

        Yields:
            (number, piece) as pieces are written; and once for every request, at its end, (number, None), or
            (number, error) where it failed alone. Requests are numbered from 0 on, in the order in which they came.

        Examples:
            >>> from pydeper import DeperModel, demo_image
            >>> model = DeperModel.from_pretrained("tiny")
            >>> requests = [(demo_image(), None, {"max_new_tokens": 2}), (demo_image(), None, {"max_new_tokens": 1})]
            >>> list(model.stream_batch(requests))
            [(0, 'I'), (1, 'I'), (1, None), (0, ' can'), (0, None)]
        """
        return stream_requests(self._vlm, requests, row_of=self._row, more=more, wanted=wanted)

    def _row(self, request: DescriptionRequest) -> Row:
        image, persona, options = parts_of(request)
        style, decoding = self._asked(options)
        soft_token = self._soft_token(persona)  # refuses a persona before the image takes its time
        return Row(self.encode_image(image), soft_token, style, decoding)
