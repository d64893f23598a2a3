"""From samples to the persona encoder's inputs on a device, and to their subject embeddings z_s."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.data.encoded import EncodedDataset, NetworkInputs
from training.distributed.device import device_of
from training.network.deper import Deper
from training.network.text_table import TextTable


@torch.no_grad()
def embed(
    deper: Deper, text_table: TextTable, data: EncodedDataset, without: str | None = None, batch_size: int = 128
) -> np.ndarray:
    """Subject embeddings of all samples, (n, subject_embedding_size) float32.

    Args:
        deper: The trained network.
        text_table: The frozen text table.
        data: The samples.
        without: A modality to withhold: "text" or "trajectory".
        batch_size: Samples at a time.
    """
    deper.eval()
    vectors = []
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data)))
        inputs = network_inputs(data, rows, [without] * len(rows), text_table, device_of(deper))
        vectors.append(deper.persona_encoder(*inputs).subject_embedding.cpu())
    return torch.cat(vectors).numpy()


def network_inputs(
    data: EncodedDataset,
    rows: np.ndarray,
    dropped: Sequence[str | None],
    text_table: TextTable,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Samples as a padded batch on a device; see `to_device`."""
    return to_device(data.inputs(rows, dropped), text_table, device)


def to_device(
    inputs: NetworkInputs, text_table: TextTable, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A padded batch on a device, its token ids looked up: the arguments of `PersonaEncoder.encode`."""
    text = text_table(inputs.input_ids.to(device_of(text_table), non_blocking=True)).to(device)
    image, _, text_mask, boxes, durations, fixation_mask = (tensor.to(device, non_blocking=True) for tensor in inputs)
    return image, text, text_mask, boxes, durations, fixation_mask
