"""The adapter: a persona's subject embedding to the soft token that stands for it in the prompt."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pydeper.bundle.bundle import EncoderBundle
from pydeper.bundle.layout import ADAPTER
from pydeper.runtime.graph import check_names, check_shape
from pydeper.runtime.target import Target


class Adapter:
    """The adapter of one bundle; immutable and thread-safe."""

    def __init__(self, bundle: EncoderBundle, target: Target) -> None:
        """Opens the adapter.

        Raises:
            BundleError: The file cannot be opened, or is not an adapter of the sizes in `config.json`.
            InvalidArgumentError: The device cannot be used.
        """
        path, config = bundle.folder / ADAPTER, bundle.config
        self._session = target.open(path)
        check_names(path, self._session, ["subject_embedding"], ["soft_token"])
        embedding = config.persona_encoder.subject_embedding_size
        check_shape(
            path, self._session, "subject_embedding", (None, embedding), "persona_encoder.subject_embedding_size"
        )
        check_shape(path, self._session, "soft_token", (None, config.vlm.hidden_size), "vlm.hidden_size")

    def __call__(self, subject_embeddings: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Maps B subject embeddings (384,) to their soft tokens (B, hidden), float32."""
        (soft_tokens,) = self._session.run(["soft_token"], {"subject_embedding": np.stack(subject_embeddings)})
        return np.asarray(soft_tokens, np.float32)
