"""The vision encoder as Optimum exports it: two graphs, and between them rotary angles that the caller computes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.errors import BundleError
from pydeper.runtime.graph import check_names, check_shape
from pydeper.runtime.target import Target
from pydeper.vlm.local.vision_encoder import image_features

_THETA = 10000.0  # Qwen2-VL's vision tower has no setting for it


class OptimumVisionEncoder:
    """A `pydeper.vlm.local.vision_encoder.VisionEncoder` in Optimum's two graphs; immutable and thread-safe.

    Attributes:
        provider: The device in use.
    """

    def __init__(self, embeddings: Path, merger: Path, config: VLMConfig, target: Target) -> None:
        """Opens the graphs.

        Args:
            embeddings: Patches to vectors: hidden_states (N, patch numbers) -> last_hidden_state (N, width).
            merger: The layers and the merging: hidden_states (N, width), attention_mask (1, N, N), added to the
                attention's scores, and rotary_pos_emb (N, angles) -> last_hidden_state (image tokens, hidden).
            config: Sizes.
            target: Where they run.

        Raises:
            BundleError: One is missing, damaged, or not a vision encoder of the sizes in `config`.
        """
        self._hidden_size, self._merge_size = config.hidden_size, config.vision.merge_size
        self._embeddings, self._merger = target.open(embeddings), target.open(merger)
        self.provider: str = self._merger.get_providers()[0]
        check_names(embeddings, self._embeddings, ["hidden_states"], ["last_hidden_state"])
        inputs = ["hidden_states", "attention_mask", "rotary_pos_emb"]
        check_names(merger, self._merger, inputs, ["last_hidden_state"])
        check_shape(merger, self._merger, "last_hidden_state", (None, config.hidden_size), "vlm.hidden_size")
        shape = next(value.shape for value in self._merger.get_inputs() if value.name == "rotary_pos_emb")
        if not isinstance(angles := shape[-1], int):
            raise BundleError(f"{merger}: leaves open how many angles rotary_pos_emb has; export the VLM again")
        self._angles = angles

    def __call__(
        self, pixel_values: npt.NDArray[np.float32], image_grid_thw: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """See `VisionEncoder`."""
        (patches,) = self._embeddings.run(["last_hidden_state"], {"hidden_states": pixel_values})
        feeds = {
            "hidden_states": patches,
            "attention_mask": np.zeros((1, len(patches), len(patches)), np.float32),  # one image: nothing is hidden
            "rotary_pos_emb": rotary_angles(image_grid_thw, self._merge_size, self._angles),
        }
        (found,) = self._merger.run(["last_hidden_state"], feeds)
        return image_features(found, self._hidden_size)


def rotary_angles(grid: npt.NDArray[np.int64], merge_size: int, angles: int) -> npt.NDArray[np.float32]:
    """Returns the rotary angles of an image's patches: (N, angles) float32, first those of the rows, then the columns.

    Args:
        grid: (1, 3): frames (1), patch rows, patch columns.
        merge_size: The patches of a square of this side stand together.
        angles: How many angles a patch has, for both axes together.
    """
    _, rows, columns = grid[0].tolist()
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))  # (2, rows, columns)
    squares = places.reshape(2, rows // merge_size, merge_size, columns // merge_size, merge_size)
    in_order = squares.transpose(1, 3, 2, 4, 0).reshape(-1, 2, 1)
    frequencies = np.float32(1) / np.float32(_THETA) ** (np.arange(0, angles, 2, dtype=np.float32) / np.float32(angles))
    turned: npt.NDArray[np.float32] = in_order.astype(np.float32) * frequencies
    return turned.reshape(len(in_order), -1)
