"""Sheets of Excel and OpenDocument workbooks, as rows of text (extra `excel`)."""

import importlib
from pathlib import Path
from typing import Any

from pydeper.errors import InvalidSampleError


def read_sheet(path: Path, name: str | None = None) -> list[list[str]]:
    """Reads a sheet of a workbook (.xlsx, .xlsm, .xlsb, .xls, .ods): its cells as text, numbers with a decimal point.

    Args:
        path: The workbook.
        name: The sheet; None: the one that holds anything.

    Raises:
        InvalidSampleError: The workbook cannot be read, has no such sheet, or several and none is named.
    """
    try:
        calamine: Any = importlib.import_module("python_calamine")
    except ImportError as error:
        raise InvalidSampleError(
            f"{path}: is an Excel or OpenDocument workbook (such as .xlsx); `pip install 'pydeper[excel]'` to read it, "
            "or save the sheet as CSV"
        ) from error
    try:
        with calamine.load_workbook(str(path)) as book:
            sheets = {sheet: book.get_sheet_by_name(sheet).to_python() for sheet in book.sheet_names}
    except Exception as error:  # a library of another language: any error of it means the same here
        raise InvalidSampleError(
            f"{path}: is an Excel or OpenDocument workbook that cannot be read ({error}); save the sheet as CSV"
        ) from error
    if name is not None:
        if name not in sheets:
            raise InvalidSampleError(f"{path}: has no sheet {name!r}; it has {', '.join(map(repr, sheets))}")
        return _texts(sheets[name])
    filled = [sheet for sheet, rows in sheets.items() if rows]
    if len(filled) > 1:
        raise InvalidSampleError(f"{path}: has the sheets {', '.join(map(repr, filled))}; name one (sheet)")
    return _texts(sheets[filled[0]]) if filled else []


def _texts(rows: list[list[Any]]) -> list[list[str]]:
    return [[_text(cell) for cell in row] for row in rows]


def _text(cell: Any) -> str:
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    return "" if cell is None else str(cell)
