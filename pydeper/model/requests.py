"""Requests for descriptions that come and go while others are computed: each has its own image, persona and options."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from pydeper.errors import InvalidArgumentError, PydeperError
from pydeper.images import ImageLike
from pydeper.model.options import DescribeOptions
from pydeper.persona.persona import Persona
from pydeper.runtime.memory import memory_explained
from pydeper.vlm import EncodedImage, VisionLanguageModel
from pydeper.vlm.protocol import Row

DescriptionRequest = tuple[ImageLike | EncodedImage, Persona | None, DescribeOptions]
"""What `DeperModel.stream_batch` computes: an image, whose description or None, and the options of `describe`."""


def nothing_more(running: int) -> Sequence[DescriptionRequest]:
    """Adds no request."""
    return ()


def parts_of(request: DescriptionRequest) -> DescriptionRequest:
    """Returns a request as it is.

    Raises:
        InvalidArgumentError: It does not have the three parts.
    """
    if not isinstance(request, tuple) or len(request) != 3 or not isinstance(request[2], dict):
        raise InvalidArgumentError(f"requests: each must be (image, persona, options), got {type(request).__name__}")
    return request


def stream_requests(
    vlm: VisionLanguageModel,
    first: Iterable[DescriptionRequest],
    *,
    row_of: Callable[[DescriptionRequest], Row],
    more: Callable[[int], Iterable[DescriptionRequest]],
    wanted: Callable[[int], bool],
) -> Iterator[tuple[int, str | PydeperError | None]]:
    """Computes requests as `DeperModel.stream_batch` says.

    Args:
        vlm: The model that describes.
        first: The requests that it begins with.
        row_of: Checks a request, and encodes its image.
        more: See `DeperModel.stream_batch`.
        wanted: See `DeperModel.stream_batch`.
    """
    # The model counts rows alone, and a request that cannot be read never becomes one.
    number_of: dict[int, int] = {}
    failed: deque[tuple[int, PydeperError]] = deque()
    count = rows_so_far = 0

    def rows_of(requests: Iterable[DescriptionRequest]) -> list[Row]:
        nonlocal count, rows_so_far
        rows = []
        for request in requests:
            try:
                row = row_of(request)
            except PydeperError as error:
                failed.append((count, error))
            else:
                rows.append(row)
                number_of[rows_so_far] = count
                rows_so_far += 1
            count += 1
        return rows

    with memory_explained("computing descriptions together"):
        for row, piece in vlm.stream_rows(
            rows_of(first),
            more=lambda running: rows_of(more(running)),
            wanted=lambda row: wanted(number_of[row]),
        ):
            while failed:
                yield failed.popleft()
            yield (number_of[row] if isinstance(piece, str) else number_of.pop(row)), piece
    yield from failed
