"""Token ids to embeddings: a table that is read from its file row by row, or the graph of a published repository."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.errors import BundleError
from pydeper.runtime.graph import check_names, check_shape
from pydeper.runtime.mapped_arrays import map_array
from pydeper.runtime.target import Target

Embed = Callable[[Sequence[int] | npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def open_embeddings(path: Path, config: VLMConfig, target: Target) -> Embed:
    """Opens the embedding table.

    Args:
        path: `embed_tokens.npy`, or a graph (input_ids, which Optimum calls input -> inputs_embeds).
        config: Sizes.
        target: Where the graph runs.

    Returns:
        A function from (S,) token ids to (S, hidden) float32, an array of the caller's own.

    Raises:
        BundleError: The file is missing, damaged, or not of the sizes in `config`.
    """
    if path.suffix == ".npy":
        table = _open_table(path, config)
        return lambda ids: table[np.asarray(ids, np.int64)].astype(np.float32)
    session = target.open(path)
    ids_name = "input" if any(value.name == "input" for value in session.get_inputs()) else "input_ids"
    check_names(path, session, [ids_name], ["inputs_embeds"])
    check_shape(path, session, "inputs_embeds", (None, None, config.hidden_size), "vlm.hidden_size")

    def embed(ids: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        (found,) = session.run(["inputs_embeds"], {ids_name: np.asarray(ids, np.int64)[None]})
        return np.array(found[0], np.float32)

    return embed


def _open_table(path: Path, config: VLMConfig) -> npt.NDArray[np.floating[Any]]:
    table = map_array(path)
    if table.shape != (config.vocab_size, config.hidden_size) or table.dtype not in (np.float16, np.float32):
        raise BundleError(
            f"{path}: must be float16 or float32 of shape {(config.vocab_size, config.hidden_size)}, "
            f"got {table.dtype} of shape {table.shape}"
        )
    return table
