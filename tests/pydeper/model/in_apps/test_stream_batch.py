"""Many descriptions at once, piece by piece, that come and go."""

import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pydeper import DeperModel, InvalidArgumentError, InvalidImageError, Persona
from pydeper.model.requests import DescriptionRequest
from pydeper.vlm import EncodedImage

OPTIONS: list[dict[str, Any]] = [
    {},
    {"max_new_tokens": 5},
    {"temperature": 1.0, "top_p": 0.9, "seed": 3},
    {"strength": 1.5},
    {"strength": 0, "repetition_penalty": 1.2},
]


def texts_of(pieces: Iterable[tuple[int, object]]) -> dict[int, str]:
    """What each request comes to; every one has to end, once, and nothing follows."""
    texts: dict[int, str] = {}
    ended: set[int] = set()
    for number, piece in pieces:
        assert number not in ended
        if piece is None:
            ended.add(number)
            texts.setdefault(number, "")
        else:
            assert isinstance(piece, str)
            assert piece
            texts[number] = texts.get(number, "") + piece
    assert ended == texts.keys()
    return texts


def one_by_one(requests: Iterable[DescriptionRequest]) -> Callable[[int], list[DescriptionRequest]]:
    """Lets one request join before each step."""
    left = iter(requests)
    return lambda running: [request] if (request := next(left, None)) is not None else []


@pytest.mark.parametrize("first", [0, 1, 15])
def test_each_request_gets_its_own_description_whenever_it_joins(
    tiny: DeperModel, ana: Persona, ben: Persona, pictures: list[Path], first: int
) -> None:
    people = (ana, None, ben)
    requests: list[DescriptionRequest] = [
        (image, people[number % 3], OPTIONS[number % 5]) for number, image in enumerate(pictures * 5)
    ][:15]
    found = texts_of(tiny.stream_batch(requests[: first or 1], more=one_by_one(requests[first or 1 :])))
    assert found == {
        number: tiny.describe(image, who, **options) for number, (image, who, options) in enumerate(requests)
    }


def test_pieces_of_all_come_while_they_are_written(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    pieces = tiny.stream_batch([(image, ana, {}) for image in pictures])
    assert [next(pieces)[0] for _ in range(4)] == [0, 1, 2, 3]


def test_one_that_joins_does_not_wait_for_the_others(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    late: Iterator[list[DescriptionRequest]] = iter([[], [], [(pictures[1], ana, {"max_new_tokens": 3})]])
    pieces = tiny.stream_batch([(pictures[0], ana, {})], more=lambda running: next(late, []))
    assert [number for number, piece in pieces if piece is None] == [1, 0]


def test_one_that_is_no_longer_wanted_ends_and_the_others_go_on(
    tiny: DeperModel, ana: Persona, ben: Persona, pictures: list[Path]
) -> None:
    pairs = [(pictures[0], ana), (pictures[1], ben), (pictures[2], None)]
    texts, unwanted = ["", "", ""], set()
    ends = []
    requests: list[DescriptionRequest] = [(image, who, {}) for image, who in pairs]
    for number, piece in tiny.stream_batch(requests, wanted=lambda number: number not in unwanted):
        if piece is None:
            ends.append(number)
        else:
            assert isinstance(piece, str)
            texts[number] += piece
        if number == 1 and len(texts[1]) > 5:
            unwanted.add(1)
    whole = [tiny.describe(image, who) for image, who in pairs]
    assert ends[0] == 1
    assert sorted(ends) == [0, 1, 2]
    assert [texts[0], texts[2]] == [whole[0], whole[2]]
    assert whole[1].startswith(texts[1])
    assert len(texts[1]) < len(whole[1])


def test_a_batch_that_never_ends_keeps_nothing_of_those_that_have(ana: Persona, pictures: list[Path]) -> None:
    """A server under load has one for days."""
    model = DeperModel.from_pretrained("tiny", image_cache=0)
    images: list[weakref.ref[EncodedImage]] = []

    def encoded() -> EncodedImage:
        image = model.encode_image(pictures[len(images) % len(pictures)])
        images.append(weakref.ref(image))
        return image

    def more(running: int) -> list[DescriptionRequest]:
        return [(encoded(), ana, {"max_new_tokens": 2})] if len(images) < 30 else []

    ends = 0
    for _, piece in model.stream_batch([(encoded(), ana, {"max_new_tokens": 2})], more=more):
        ends += piece is None
        assert sum(image() is not None for image in images) <= 5
    assert ends == 30


def test_nothing_is_computed_of_what_nobody_wants(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    requests: list[DescriptionRequest] = [(pictures[0], ana, {}), (pictures[1], ana, {})]
    assert list(tiny.stream_batch(requests, wanted=lambda number: False)) == [(0, None), (1, None)]


def test_a_request_that_cannot_be_computed_fails_alone(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    assert list(tiny.stream_batch([])) == []
    for wrong, said in (
        ((pictures[0], ana, {"style": "sonnet"}), "style"),
        ((pictures[0], "ben", {}), "persona: must be"),
        ((pictures[0], ana), r"each must be \(image, persona, options\), got tuple"),
        (None, r"each must be \(image, persona, options\), got NoneType"),
    ):
        ((number, error),) = tiny.stream_batch([wrong])  # type: ignore[list-item]
        assert number == 0
        assert isinstance(error, InvalidArgumentError)
        assert re.search(said, str(error))
    more = one_by_one([(pictures[0], ana, {"style": "sonnet"}), (b"nothing", ana, {}), (pictures[1], ana, {})])
    found = list(tiny.stream_batch([(b"nothing", None, {}), (pictures[0], None, {})], more=more))
    errors = {number: piece for number, piece in found if isinstance(piece, Exception)}
    assert {number: type(error) for number, error in errors.items()} == {
        0: InvalidImageError,
        2: InvalidArgumentError,
        3: InvalidImageError,
    }
    texts = texts_of(event for event in found if event[0] not in errors)
    assert texts == {1: tiny.describe(pictures[0]), 4: tiny.describe(pictures[1], ana)}
