"""Where features of images are kept: in memory, or in files that all epochs and runs share."""

import hashlib
import json
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pydeper.errors import PydeperError
from pydeper.files.atomic import atomic_path
from training.outputs import output_folder

_TENSOR, _CHECKSUM = "features", "crc32"
_DAY = 24 * 3600


class FeatureCacheError(PydeperError):
    """The folder of features cannot be written."""


class FeatureStore(Protocol):
    """Features by the keys of their images."""

    def __contains__(self, key: str) -> bool:
        """Whether there is something under the key."""
        ...

    def get(self, key: str) -> Tensor | None:
        """What is kept under the key, or None where nothing is, or nothing usable."""
        ...

    def put(self, key: str, features: Tensor) -> None:
        """Keeps features."""
        ...


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


_Kept = TypeVar("_Kept", bound=_Sized)


class MemoryStore(Generic[_Kept]):
    """Features, or anything that has a size, in memory; those that were used least recently go first.

    Args:
        max_bytes: The most that is held, or None for everything.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self._entries: OrderedDict[str, _Kept] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str) -> _Kept | None:
        """See `FeatureStore`."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: str, features: _Kept) -> None:
        """See `FeatureStore`. What is larger than the whole store is not kept."""
        if self.max_bytes is not None and features.nbytes > self.max_bytes:
            return
        if (old := self._entries.pop(key, None)) is not None:
            self.nbytes -= old.nbytes
        self._entries[key] = features
        self.nbytes += features.nbytes
        while self.max_bytes is not None and self.nbytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.nbytes -= oldest.nbytes


class DiskStore:
    """Features in a folder: FOLDER/ENCODER/ab/ab….safetensors, one memory-mapped file an image.

    A file appears whole, by rename: processes may share the folder, and die at any moment. A checksum, looked at when
    a process first reads an entry, tells a damaged one, which then counts as missing.

    Args:
        folder: Made where it does not exist.
        encoder: Identity of what computes the features, as `encoder_identity` gives it.
        about: What a person who finds the folder should read there.

    Raises:
        FeatureCacheError: The folder cannot be made.
    """

    def __init__(self, folder: Path, encoder: str, about: Mapping[str, Any]) -> None:
        self.folder = folder / encoder
        self._sound: set[str] = set()
        try:
            with output_folder(self.folder), atomic_path(self.folder / "about.json") as temporary:
                temporary.write_text(json.dumps(about, indent=1, default=str) + "\n", encoding="utf-8")
            self._sweep()
        except OSError as error:
            raise FeatureCacheError(
                f"feature_cache: {self.folder} cannot be written ({error}); name another folder"
            ) from error

    def __contains__(self, key: str) -> bool:
        return key in self._sound or self._path(key).exists()

    def get(self, key: str) -> Tensor | None:
        """See `FeatureStore`. A damaged file is removed, with a warning."""
        path = self._path(key)
        try:
            with safe_open(path, "pt") as file:
                features: Tensor = file.get_tensor(_TENSOR)
                checksum = file.metadata()[_CHECKSUM]
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            self._remove(path, str(error))
            return None
        if key not in self._sound:
            if checksum != _checksum(features):
                self._remove(path, "its checksum is another")
                return None
            self._sound.add(key)
        return features

    def put(self, key: str, features: Tensor) -> None:
        """See `FeatureStore`.

        Raises:
            FeatureCacheError: The file cannot be written.
        """
        features = features.detach().cpu().contiguous()
        path = self._path(key)
        try:
            with output_folder(path.parent), atomic_path(path) as temporary:
                save_file({_TENSOR: features}, temporary, {_CHECKSUM: _checksum(features)})
        except (OSError, SafetensorError) as error:
            raise FeatureCacheError(
                f"feature_cache: {path} cannot be written ({error}); free space there, or name another folder"
            ) from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def _remove(self, path: Path, reason: str) -> None:
        warnings.warn(f"{path}: damaged ({reason}); the features are computed anew", stacklevel=3)
        path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Removes what killed processes left behind; what is younger may be another process's work."""
        for temporary in self.folder.glob("*/.*.safetensors"):
            with suppress(FileNotFoundError):  # its writer may rename or remove it at any moment
                if time.time() - temporary.stat().st_mtime > _DAY:
                    temporary.unlink()


def open_store(folder: str | Path | None, encoder: nn.Module, settings: Mapping[str, Any]) -> FeatureStore:
    """A store on disk, or in memory where there is no folder.

    Args:
        folder: Of the cache.
        encoder: The frozen encoder.
        settings: How images are prepared for it.
    """
    if folder is None:
        return MemoryStore()
    about = {"encoder": type(encoder).__name__, "preprocessing": settings}
    return DiskStore(Path(folder), encoder_identity(encoder, settings), about)


def encoder_identity(encoder: nn.Module, settings: Mapping[str, Any]) -> str:
    """A text that differs where features would: for other weights, another architecture or other preprocessing.

    Args:
        encoder: Its class, its `config` where it has one, and its weights count.
        settings: How images are prepared for it.
    """
    digest = hashlib.sha256()
    config: Any = getattr(encoder, "config", None)
    described = config.to_dict() if hasattr(config, "to_dict") else vars(config) if config is not None else {}
    # Where a model was loaded from, and by which version, changes nothing of what it computes.
    kept = {key: value for key, value in described.items() if key[0] != "_" and key != "transformers_version"}
    digest.update(json.dumps([type(encoder).__name__, kept, settings], sort_keys=True, default=str).encode())
    for name, tensor in encoder.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def _checksum(features: Tensor) -> str:
    return str(zlib.crc32(_bytes(features)))


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(torch.uint8).numpy().data
