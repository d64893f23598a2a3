"""Checks of the arguments that metrics take: texts, and columns of one length."""

from __future__ import annotations

from collections.abc import Sequence, Sized

from pydeper.errors import InvalidArgumentError


def check_texts(name: str, texts: Sequence[str]) -> list[str]:
    """Returns `texts` as a list.

    Raises:
        InvalidArgumentError: If it is empty, a single string, or holds anything but strings that UTF-8 can encode.
    """
    if isinstance(texts, str):
        raise InvalidArgumentError(f"{name} is one string; give a list of strings, one per description")
    texts = list(texts)
    if not texts:
        raise InvalidArgumentError(f"{name} is empty; a metric needs at least one description")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidArgumentError(f"{name}[{index}] is a {type(text).__name__}, not a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidArgumentError(
                f"{name}[{index}] holds half a surrogate pair at character {error.start}, which is no text; decode it "
                "again from its original bytes"
            ) from error
    return texts


def check_lengths(**columns: Sized) -> int:
    """Returns the number of rows that all columns share.

    Raises:
        InvalidArgumentError: If the columns differ in length or are empty.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        sizes = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InvalidArgumentError(f"the lists must be of one length, row for row, but {sizes}")
    length = next(iter(lengths.values()))
    if length == 0:
        raise InvalidArgumentError(f"{' and '.join(lengths)} are empty; a metric needs at least one row")
    return length


def check_pairs(candidates: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns candidates and references as two lists of strings of one length, at least 1.

    Raises:
        InvalidArgumentError: See `check_texts` and `check_lengths`.
    """
    candidates, references = check_texts("candidates", candidates), check_texts("references", references)
    check_lengths(candidates=candidates, references=references)
    return candidates, references
