"""Descriptions on a Ray cluster: what `ray.data.Dataset.map_batches` takes (extra `ray`).

    >>> import ray
    >>> from pydeper.ray import Describer
    >>> images = ray.data.from_items([{"image": "s3://photos/1.jpg"}, {"image": "s3://photos/2.jpg"}])
    >>> described = images.map_batches(
    ...     Describer,
    ...     fn_constructor_kwargs={"personas": {"ana": "s3://people/ana.safetensors"}, "model": "org/model"},
    ...     compute=ray.data.ActorPoolStrategy(size=8),
    ...     num_cpus=4,
    ...     batch_size=8,
    ... )
    >>> described.write_parquet("s3://descriptions")

Ray itself is not imported here: a `Describer` can be called without it.
"""

import os
import sys
from collections.abc import Mapping
from os import PathLike
from typing import Any, TypeAlias

import fsspec
import numpy as np
import numpy.typing as npt

from pydeper.bulk.images import ImageRequest, check_request, describe_images
from pydeper.errors import InvalidArgumentError, InvalidImageError, PersonaError, PydeperError
from pydeper.images import ImageLike
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions
from pydeper.persona.file import parse_persona
from pydeper.persona.persona import Persona
from pydeper.untrusted import shown, shown_path

Batch: TypeAlias = dict[str, npt.NDArray[Any]]
"""Columns of equal length, by name."""


class Describer:
    """Describes batches of images as each of several people would; an actor of Ray Data holds one, and so one model.

    Called with a batch, it returns one row for each image and persona: all columns of the batch but the image itself
    where that is not a path, and with them

    - ``persona``: what the person is called, or None where nobody in particular describes,
    - ``description``: the text, or None where the image could not be described,
    - ``error``: why it could not, or None.

    So every image is there, also one that is damaged. Each image is encoded once for all people, and the images of a
    batch are decoded together.

    Examples:
        >>> import numpy as np
        >>> from pydeper import Persona, demo_image, demo_samples
        >>> from pydeper.ray import Describer
        >>> describer = Describer({"ana": Persona.from_samples(demo_samples("ana"), model="tiny")}, model="tiny")
        >>> described = describer({"image": np.array([str(demo_image())], object)})
        >>> described["description"][0]
        'I can see a green cross, together with a black circle, together with a blue rectangle.'
    """

    def __init__(
        self,
        personas: Mapping[str, Persona | str | PathLike[str]] | None = None,
        model: str | PathLike[str] | None = None,
        *,
        image: str = "image",
        options: DescribeOptions | None = None,
        **settings: Any,
    ) -> None:
        """Loads the model and the personas.

        Args:
            personas: The people, by what to call them: personas, or their files as fsspec finds them from every node,
                such as ``"s3://people/ana.safetensors"``. None: the vision-language model alone describes.
            model: What `DeperModel.from_pretrained` takes; a folder has to be there on every node.
            image: The column that holds the images: paths as fsspec finds them from every node (``"/mnt/1.jpg"``,
                ``"s3://photos/1.jpg"``, ``"memory://1.jpg"``), the bytes of image files, or H×W×3 uint8 arrays.
            options: Those of `DeperModel.describe`.
            **settings: Further arguments of `DeperModel.from_pretrained`. Without `threads`, a model in an actor takes
                as many threads as the actor has CPUs (`num_cpus` of `map_batches`).

        Raises:
            PydeperError: The model or a persona cannot be read, they do not fit, or an option is out of its range.
            InvalidArgumentError: `personas` is not a mapping.
        """
        if personas is not None and not isinstance(personas, Mapping):
            raise InvalidArgumentError(
                f"personas: must be a mapping from what to call people to their personas, got {type(personas).__name__}"
            )
        settings.setdefault("threads", _cpus_of_actor())
        self._model = DeperModel.from_pretrained(model, **settings)
        self._image = image
        self._options: DescribeOptions = options or {}
        self._personas = {name: _persona(persona) for name, persona in (personas or {}).items()}
        check_request(self._model, self._personas.values(), self._options)

    def __call__(self, batch: Batch) -> Batch:
        """Describes the images of a batch.

        Raises:
            InvalidArgumentError: It has no such column of images, or has a column that the result would replace.
        """
        columns = ("persona", "description", "error")
        if self._image not in batch:
            raise InvalidArgumentError(f"image: there is no column {self._image!r}, only {', '.join(map(repr, batch))}")
        if taken := [name for name in columns if name in batch]:
            raise InvalidArgumentError(f"the batch has a column {taken[0]!r} already; rename it first")
        outcomes = self._describe([*batch[self._image]])
        names: list[str | None] = [*self._personas] or [None]
        texts = [outcome if isinstance(outcome, list) else [None] * len(names) for outcome in outcomes]
        errors = [str(outcome) if isinstance(outcome, PydeperError) else None for outcome in outcomes]
        kept = {name: column for name, column in batch.items() if name != self._image or not _holds_images(column)}
        return {
            **{name: np.repeat(column, len(names), axis=0) for name, column in kept.items()},
            "persona": np.array(names * len(outcomes), object),
            "description": np.array([text for row in texts for text in row], object),
            "error": np.array([error for error in errors for _ in names], object),
        }

    def _describe(self, images: list[object]) -> list[list[str] | PydeperError]:
        """Returns for each image what `describe_images` does, or why it could not be fetched."""
        fetched: list[ImageLike | InvalidImageError] = []
        for image in images:
            try:
                fetched.append(_fetched(image))
            except InvalidImageError as error:
                fetched.append(error)
        requests = [
            ImageRequest(image, [*self._personas.values()])
            for image in fetched
            if not isinstance(image, InvalidImageError)
        ]
        described = iter(describe_images(self._model, requests, self._options))
        return [image if isinstance(image, InvalidImageError) else next(described) for image in fetched]


def _holds_images(column: npt.NDArray[Any]) -> bool:
    """Whether a column holds images themselves, not the paths of images."""
    return any(isinstance(value, bytes | np.ndarray) for value in column)


def _fetched(image: object) -> ImageLike:
    """Returns what a column holds, and for a path the bytes that are there."""
    if not isinstance(image, str):
        return image  # type: ignore[return-value]  # what is no image is refused when it is opened
    try:
        return _read(image)
    except (OSError, ValueError) as error:
        raise InvalidImageError(f"image {shown_path(image)} cannot be read ({error}); check the path") from error


def _persona(persona: Persona | str | PathLike[str]) -> Persona:
    if isinstance(persona, Persona):
        return persona
    if not isinstance(persona, str | PathLike):
        raise InvalidArgumentError(f"personas: must be personas or the paths of their files, got {shown(persona)}")
    try:
        return Persona(**parse_persona(_read(os.fspath(persona))))
    except (OSError, ValueError) as error:  # which a PersonaError is as well
        raise PersonaError(
            f"persona {shown_path(persona)} cannot be read ({error}); give the path of a file that Persona.save wrote, "
            "as it is found from every node"
        ) from error


def _read(path: str) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except ImportError as error:
        raise InvalidArgumentError(f"{shown_path(path)}: {error}; install it on every node") from error


def _cpus_of_actor() -> int | None:
    """Returns how many CPUs Ray has given to the actor that this is; None outside of one.

    ONNX Runtime takes all cores of the machine otherwise, in every actor.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    cpus = ray.get_runtime_context().get_assigned_resources().get("CPU")
    return None if cpus is None else max(1, int(cpus))
