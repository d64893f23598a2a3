"""A run over many images: goes on with what is there, describes in batches, keeps account of what failed."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Unpack

import attrs

from pydeper.bulk.images import ImageRequest, check_request, describe_images, images_at_once
from pydeper.bulk.journal import Description
from pydeper.bulk.output import Output
from pydeper.bulk.settings import RunSettings
from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions
from pydeper.persona.persona import Persona


@attrs.frozen(kw_only=True)
class RunSummary:
    """What a run has done.

    Attributes:
        described: How many descriptions it has added.
        there_before: How many of those wanted were there.
        failed: Image -> why it could not be described; the next run tries it again.
        seconds: How long it took.

    Examples:
        >>> from pydeper import DeperModel
        >>> from pydeper.bulk.run import describe_to_file
        >>> summary = describe_to_file(DeperModel.from_pretrained("tiny"), ["missing.jpg"], {}, "descriptions.jsonl")
        >>> summary.described, list(summary.failed)
        (0, ['missing.jpg'])
    """

    described: int
    there_before: int
    failed: Mapping[str, str]
    seconds: float


def describe_to_file(
    model: DeperModel,
    images: Iterable[str | os.PathLike[str]],
    personas: Mapping[str, Persona],
    output: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Unpack[DescribeOptions],
) -> RunSummary:
    """Describes images as each of several people would, into a file that holds each description once.

    It may be stopped at any time, by ``kill -9`` as well, and goes on when it is called again: what is in the file is
    not described again. An image that cannot be described is passed over and named in the summary. An image goes by its
    path as it was given, so a file that has changed under the same path is not described again.

    Args:
        model: Describes.
        images: Paths; one that is given several times is described once.
        personas: The people, by what to call them; without any, the vision-language model alone describes.
        output: Ends in ``.jsonl`` or ``.parquet`` (extra `parquet`). JSON Lines grow from batch to batch; a Parquet
            file appears at the end. Beside it lies a ``.run.json`` with the settings of the run.
        batch_size: How many images are encoded, and then decoded together; None is as many as fill the batches of the
            decoder. More of them take more memory, and a process that is killed loses those that it was at.
        progress: Called with how many descriptions are done, or cannot be done, and of how many that were missing.
        **options: Those of `DeperModel.describe`.

    Raises:
        InvalidArgumentError: An option is out of its range; or the file has descriptions of other settings, of another
            model or of other people, or is being written by another process.
        IncompatiblePersonaError: A persona was made by another persona encoder.
        OSError: The file cannot be written.

    Examples:
        >>> from pydeper import DeperModel, Persona, demo_image, demo_samples
        >>> from pydeper.bulk.run import describe_to_file
        >>> model = DeperModel.from_pretrained("tiny")
        >>> people = {name: Persona.from_samples(demo_samples(name), model=model) for name in ("ana", "ben")}
        >>> describe_to_file(model, [demo_image()], people, "descriptions.jsonl").described
        2
        >>> describe_to_file(model, [demo_image()], people, "descriptions.jsonl").there_before
        2
    """
    if not isinstance(personas, Mapping):
        raise InvalidArgumentError(
            f"personas: must be a mapping from what to call people to their personas, got {type(personas).__name__}"
        )
    if batch_size is None:
        batch_size = images_at_once(len(personas), model.rows_at_once)
    elif isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidArgumentError(f"batch_size: must be a whole number from 1 on, got {batch_size!r}")
    started = time.monotonic()
    check_request(model, personas.values(), options)
    names: list[str | None] = [*personas] or [None]
    paths = _by_name(images)
    failed: dict[str, str] = {}
    described = seen = 0
    with Output(Path(output), RunSettings.of(model, personas, options)) as file:
        missing = {image: wanted for image in paths if (wanted := [n for n in names if (image, n) not in file.done])}
        total = sum(map(len, missing.values()))
        for batch in _batches([*missing], batch_size):
            requests = [
                ImageRequest(paths[image], [personas[name] for name in missing[image] if name is not None])
                for image in batch
            ]
            new: list[Description] = []
            for image, outcome in zip(batch, describe_images(model, requests, options), strict=True):
                if isinstance(outcome, PydeperError):
                    failed[image] = str(outcome)
                else:
                    new += [Description(image, *row) for row in zip(missing[image], outcome, strict=True)]
                seen += len(missing[image])
            file.append(new)
            described += len(new)
            if progress is not None:
                progress(seen, total)
        file.finish()
    return RunSummary(
        described=described,
        there_before=len(paths) * len(names) - total,
        failed=failed,
        seconds=time.monotonic() - started,
    )


def _by_name(images: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """Returns what each image is called in the file -> its path."""
    if isinstance(images, str | bytes | os.PathLike):
        raise InvalidArgumentError(f"images: must be a list of paths, got {type(images).__name__}")
    paths: dict[str, str] = {}
    for number, image in enumerate(images, 1):
        if not isinstance(image, str | os.PathLike):
            raise InvalidArgumentError(f"images: number {number} must be a path, got {type(image).__name__}")
        path = os.fspath(image)
        # Bytes of a file name that are no text are lone surrogates in Python, which no encoding can write.
        paths[path.encode("utf-8", "backslashreplace").decode()] = path
    return paths


def _batches(images: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(images), size):
        yield images[start : start + size]
