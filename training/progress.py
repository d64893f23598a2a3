"""A bar while something takes long: on a terminal, never in a pipe or a file."""

from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T], what: str, unit: str, **options: Any) -> "tqdm[T]":
    """Shows a bar while items are gone through, once that takes more than a second.

    Args:
        items: What is gone through.
        what: What is done with them, such as "reading".
        unit: What they are, such as "samples".
        options: More of tqdm's.
    """
    return tqdm(items, desc=what, unit=f" {unit}", mininterval=1.0, delay=1.0, disable=None, **options)
