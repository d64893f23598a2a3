"""Numbers as people and programs write them in tables."""

import math
import re
from collections.abc import Callable, Iterable
from typing import Literal

from pydeper.errors import InvalidSampleError
from pydeper.untrusted import shown

Decimal = Literal[".", ","]

MISSING_WORDS = frozenset(
    {"", ".", "-", "--", "–", "—", "na", "n/a", "<na>", "nan", "+nan", "-nan", "nan(ind)", "-nan(ind)", "null", "none"}
    | {"#n/a", "#na", "#nv", "#n/a n/a", "#null!", "#div/0!", "#value!", "#num!", "#ref!", "#name?"}
    | {"1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1.#nan", "nan(snan)", "-nan(snan)", "undefined", "missing"}
)
"""Words that stand where a number or an image is missing, in any case: those of spreadsheets, statistics programs,
trackers and C."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_LIKE_NUMBER = re.compile(r"[+-]?[\d.,]*\d[\d.,]*(?:[eE][+-]?\d+)?")
_BLANK_GROUPS = re.compile(r"[+-]?\d{1,3}(?:[ '’\u00a0\u2009\u202f]\d{3})+(?:[.,]\d*)?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2}[.,]\d{3}")
_GROUPS = {mark: re.compile(rf"[+-]?\d{{1,3}}(?:\{mark}\d{{3}})+") for mark in ".,"}


def is_missing(text: str) -> bool:
    """Whether a field says that its value is missing."""
    return text.strip().casefold() in MISSING_WORDS


class Numbers:
    """Reads the numbers of a table, whose decimal mark is found by looking at all of them, once one is ambiguous.

    A single mark before three digits ("1,200") may stand for thousands or decimals. It is read as the table's other
    numbers say: beside "0.5" it is 1200, beside "0,5" it is 1.2. Where they say nothing, a point is decimal, and a
    comma is so in tables whose fields semicolons separate, as spreadsheets write them where the comma is decimal.
    """

    def __init__(self, fields: Callable[[], Iterable[str]], delimiter: str, decimal: Decimal | None = None) -> None:
        """Makes a reader of numbers.

        Args:
            fields: Gives all fields that hold numbers.
            delimiter: What separates the table's fields.
            decimal: The decimal mark, where somebody has said it.
        """
        self._fields = fields
        self._delimiter = delimiter
        self._said = decimal
        self._found: tuple[set[str], set[str]] | None = None

    def read(self, text: str, place: str) -> float | None:
        """The number in a field, or None where it is missing.

        Raises:
            InvalidSampleError: The field holds something else, or a number that can be read in two ways; the message
                begins with `place`.
        """
        if is_missing(text):
            return None
        plain = _without_blanks(text)
        decimal = _decimal_mark(plain)
        if _AMBIGUOUS.fullmatch(plain):
            decimal = self._decimal_of("." if "." in plain else ",", plain, place)
        if decimal is not None:
            group = "." if decimal == "," else ","
            whole, _, fraction = plain.partition(decimal)
            if group in whole and not _GROUPS[group].fullmatch(whole):
                decimal, plain = None, "?"
            elif decimal in plain:
                plain = f"{whole.replace(group, '')}.{fraction}"
            else:
                plain = whole.replace(group, "")
        value = float(plain) if _NUMBER.fullmatch(plain) else math.nan
        if not math.isfinite(value):
            raise InvalidSampleError(f"{place} is {shown(text.strip())}, which is no number")
        return value

    def _decimal_of(self, mark: str, text: str, place: str) -> Decimal:
        """The decimal mark of a number with one mark before three digits."""
        certain, ambiguous = self._marks()
        if self._said is not None:
            return self._said
        if len(certain) == 1:
            return "." if "." in certain else ","
        if not certain and len(ambiguous) == 1 and (mark == "." or self._delimiter == ";"):
            return "." if mark == "." else ","
        as_group, as_decimal = text.replace(mark, ""), text.replace(mark, ".")
        raise InvalidSampleError(
            f"{place} is {shown(text)}, which may be {as_group} or {as_decimal}, and the other numbers do not tell; "
            "say the decimal mark (decimal)"
        )

    def _marks(self) -> tuple[set[str], set[str]]:
        """The decimal marks that the table's numbers show, and the marks that may be decimal or not."""
        if self._found is None:
            certain: set[str] = set()
            ambiguous: set[str] = set()
            for text in self._fields():
                plain = _without_blanks(text)
                if not _LIKE_NUMBER.fullmatch(plain):
                    continue
                if mark := _decimal_mark(plain):
                    certain.add(mark)
                elif _AMBIGUOUS.fullmatch(plain):
                    ambiguous |= {mark for mark in ".," if mark in plain}
            self._found = certain, ambiguous
        return self._found


def _without_blanks(text: str) -> str:
    text = text.strip().replace("\u2212", "-")
    return re.sub(r"[^\d.,+-]", "", text) if _BLANK_GROUPS.fullmatch(text) else text


def _decimal_mark(text: str) -> Decimal | None:
    """The decimal mark that a number shows by itself; None where it has none, or can be read in two ways."""
    if "." in text and "," in text:
        return "." if text.rindex(".") > text.rindex(",") else ","
    for mark, other in ((".", ","), (",", ".")):
        if text.count(mark) > 1:
            return other if _GROUPS[mark].fullmatch(text) else None  # type: ignore[return-value]
        if mark in text and not _AMBIGUOUS.fullmatch(text):
            return mark  # type: ignore[return-value]
    return None
