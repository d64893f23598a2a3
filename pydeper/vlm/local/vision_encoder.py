"""The VLM's vision encoder: patches of an image to its features."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pydeper.bundle.config import VLMConfig
from pydeper.runtime.graph import check_names, check_shape, element_type
from pydeper.runtime.target import Target


class VisionEncoder(Protocol):
    """A vision encoder; immutable and thread-safe.

    Attributes:
        provider: The execution provider or device in use.
    """

    provider: str

    def __call__(
        self, pixel_values: npt.NDArray[np.float32], image_grid_thw: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """Encodes one image: (N, patch numbers), (1, 3) -> (image tokens, hidden) float32, read-only."""


class OnnxVisionEncoder:
    """A `VisionEncoder` in one ONNX file, our own or a published one."""

    def __init__(self, path: Path, config: VLMConfig, target: Target) -> None:
        """Opens the file.

        Raises:
            BundleError: It is missing, damaged, or not a vision encoder of the sizes in `config`.
        """
        self._hidden_size = config.hidden_size
        self._session = target.open(path)
        self.provider: str = self._session.get_providers()[0]
        # onnx-community/Qwen2-VL-2B-Instruct and its generation say grid_thw; newer repositories use the longer name.
        inputs = [value.name for value in self._session.get_inputs()]
        self._grid_name = "grid_thw" if "grid_thw" in inputs else "image_grid_thw"
        check_names(path, self._session, ["pixel_values", self._grid_name], ["image_features"])
        self._pixels_type = element_type(self._session, "pixel_values")
        check_shape(path, self._session, "image_features", (None, config.hidden_size), "vlm.hidden_size")

    def __call__(
        self, pixel_values: npt.NDArray[np.float32], image_grid_thw: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        """See `VisionEncoder`."""
        feeds = {"pixel_values": pixel_values.astype(self._pixels_type, copy=False), self._grid_name: image_grid_thw}
        (found,) = self._session.run(["image_features"], feeds)
        return image_features(found, self._hidden_size)


def image_features(found: npt.NDArray[np.floating[Any]], hidden_size: int) -> npt.NDArray[np.float32]:
    """Returns what a graph gave as (image tokens, hidden) float32, read-only."""
    features = np.asarray(found, np.float32).reshape(-1, hidden_size)
    features.flags.writeable = False
    return features
