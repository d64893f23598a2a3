"""Many descriptions at once, piece by piece."""

from pathlib import Path
from typing import Any

import pytest

from pydeper import DeperModel, InvalidArgumentError, InvalidImageError, Persona


@pytest.mark.parametrize(
    "options",
    [{}, {"max_new_tokens": 5}, {"temperature": 1.0, "top_p": 0.9, "seed": 3}, {"strength": 1.5}, {"strength": 0}],
)
def test_the_pieces_of_each_pair_join_to_its_description(
    tiny: DeperModel, ana: Persona, ben: Persona, pictures: list[Path], options: dict[str, Any]
) -> None:
    pairs = [(image, who) for image in pictures for who in (ana, None, ben)]
    texts, ended = [""] * len(pairs), []
    for place, piece in tiny.stream_batch(iter(pairs), **options):
        assert place not in ended
        if piece is None:
            ended.append(place)
        else:
            assert piece
            texts[place] += piece
    assert sorted(ended) == list(range(len(pairs)))
    assert texts == [tiny.describe(image, who, **options) for image, who in pairs]


def test_pieces_of_all_rows_come_while_they_are_written(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    first = [place for place, _ in zip(range(4), tiny.stream_batch([(image, ana) for image in pictures]), strict=False)]
    assert len(first) == 4
    places = [place for place, _ in tiny.stream_batch([(image, ana) for image in pictures])][:4]
    assert places == [0, 1, 2, 3]


def test_a_pair_that_is_no_longer_wanted_ends_and_the_others_go_on(
    tiny: DeperModel, ana: Persona, ben: Persona, pictures: list[Path]
) -> None:
    pairs = [(pictures[0], ana), (pictures[1], ben), (pictures[2], None)]
    texts, unwanted = ["", "", ""], set()
    ends = []
    for place, piece in tiny.stream_batch(pairs, wanted=lambda place: place not in unwanted):
        if piece is None:
            ends.append(place)
        else:
            texts[place] += piece
        if place == 1 and len(texts[1]) > 5:
            unwanted.add(1)
    whole = [tiny.describe(image, who) for image, who in pairs]
    assert ends[0] == 1
    assert sorted(ends) == [0, 1, 2]
    assert [texts[0], texts[2]] == [whole[0], whole[2]]
    assert whole[1].startswith(texts[1])
    assert len(texts[1]) < len(whole[1])


def test_nothing_is_computed_of_pairs_that_nobody_wants(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    found = list(tiny.stream_batch([(pictures[0], ana), (pictures[1], ana)], wanted=lambda place: False))
    assert found == [(0, None), (1, None)]


def test_what_is_wrong_is_said_with_the_pair(tiny: DeperModel, ana: Persona, pictures: list[Path]) -> None:
    assert list(tiny.stream_batch([])) == []
    with pytest.raises(InvalidArgumentError, match="style"):
        tiny.stream_batch([(pictures[0], ana)], style="sonnet")
    with pytest.raises(InvalidArgumentError, match="pair 2 of 2: persona"):
        tiny.stream_batch([(pictures[0], ana), (pictures[0], "ben")])  # type: ignore[list-item]
    with pytest.raises(InvalidImageError, match="pair 2 of 2: image given as 7 bytes"):
        list(tiny.stream_batch([(pictures[0], ana), (b"nothing", ana)]))
