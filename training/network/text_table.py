"""The frozen text table: the VLM's own input embeddings."""

import json
import os
from pathlib import Path
from typing import Self

from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_TENSOR = "embed_tokens.weight"


class TextTable(nn.Module):
    """A frozen embedding table; its weight is in no checkpoint and no optimiser.

    Args:
        weight: (V, E) in any float dtype; lookups are returned in float32.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        if weight.ndim != 2 or not weight.is_floating_point():
            raise ValueError(f"a text table is (V, E) floats, not {tuple(weight.shape)} of {weight.dtype}")
        self.register_buffer("weight", weight.detach(), persistent=False)

    @property
    def channels(self) -> int:
        """E, the width of an embedding."""
        return self.weight.shape[1]

    @classmethod
    def from_pretrained(cls, name_or_folder: str | os.PathLike[str], revision: str | None = None) -> Self:
        """Reads the input embeddings, and nothing else, from a VLM's safetensors files.

        Args:
            name_or_folder: A folder with `model.safetensors` or its sharded form, or a Hub repository, of which only
                the file with the embeddings is fetched.
            revision: Branch, tag or commit of the Hub repository.

        Raises:
            FileNotFoundError: There are no safetensors files, or one that the index names is missing.
            ValueError: No tensor, or more than one, is called `…embed_tokens.weight`.
        """
        with safe_open(_file_with_embeddings(os.fspath(name_or_folder), revision), framework="pt") as file:
            return cls(file.get_tensor(_only_embeddings(list(file.keys()), os.fspath(name_or_folder))))

    def forward(self, input_ids: Tensor) -> Tensor:
        """(B, L) token ids -> (B, L, E) float32."""
        return F.embedding(input_ids, self.weight).float()


def _file_with_embeddings(name_or_folder: str, revision: str | None) -> Path:
    index = _locate(name_or_folder, _INDEX, revision)
    if index is None:
        single = _locate(name_or_folder, _SINGLE, revision)
        if single is None:
            raise FileNotFoundError(
                f"{name_or_folder} holds neither {_SINGLE} nor {_INDEX}, nor does the cache of the Hub; "
                "save the VLM with save_pretrained, or download it"
            )
        return single
    weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    shard = weight_map[_only_embeddings(list(weight_map), name_or_folder)]
    path = _locate(name_or_folder, shard, revision)
    if path is None:
        raise FileNotFoundError(f"{name_or_folder} lacks {shard}, which {_INDEX} names; fetch the model again")
    return path


def _locate(name_or_folder: str, filename: str, revision: str | None) -> Path | None:
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder / filename if (folder / filename).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name_or_folder, filename, revision=revision))
    except EntryNotFoundError:
        return None


def _only_embeddings(names: list[str], source: str) -> str:
    found = [name for name in names if name == _TENSOR or name.endswith("." + _TENSOR)]
    if len(found) != 1:
        raise ValueError(f"{source} holds {len(found)} tensors called …{_TENSOR} {found}; a VLM has exactly one")
    return found[0]
