"""Descriptions as a Parquet file (extra `parquet`)."""

import importlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydeper.bulk.journal import Description
from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path

_ROWS = 65_536
"""Rows of a row group: some 20 MB of text, which is all that is in memory at once."""


def check_installed() -> None:
    """Makes sure that Parquet files can be written.

    Raises:
        InvalidArgumentError: pyarrow is not installed.
    """
    _pyarrow("pyarrow.parquet")


def read_parquet(path: Path) -> Iterator[Description]:
    """Yields the descriptions of a file that `write_parquet` has written.

    Raises:
        InvalidArgumentError: It is damaged, or something else.
    """
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=["image", "persona", "description"]):
                for row in batch.to_pylist():
                    yield Description(row["image"], row["persona"], row["description"])
    except (arrow.ArrowException, KeyError) as error:
        raise InvalidArgumentError(
            f"{path}: cannot be read as Parquet with image, persona and description ({error}); delete it, or name "
            "another output"
        ) from error


def write_parquet(path: Path, descriptions: Iterable[Description]) -> None:
    """Writes a file with the columns image, persona and description; it appears whole or not at all."""
    arrow, parquet = _pyarrow("pyarrow"), _pyarrow("pyarrow.parquet")
    text = arrow.string()
    schema = arrow.schema([("image", text), ("persona", text), ("description", text)])
    with atomic_path(path) as temporary:
        with parquet.ParquetWriter(temporary, schema, compression="zstd") as writer:
            rows = ({"image": row.image, "persona": row.persona, "description": row.text} for row in descriptions)
            while group := list(islice(rows, _ROWS)):
                writer.write_table(arrow.Table.from_pylist(group, schema))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # what it was made from is deleted next


def _pyarrow(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidArgumentError(
            "a Parquet file needs pyarrow: `pip install 'pydeper[parquet]'`, or name a file that ends in .jsonl"
        ) from error
