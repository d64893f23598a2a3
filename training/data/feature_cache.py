"""What frozen encoders make of images, computed once: kept in memory, or in files that all epochs and runs share."""

import hashlib
import json
import os
import time
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import attrs
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from pydeper.atomic import atomic_path
from pydeper.errors import InvalidImageError, PydeperError
from pydeper.images import open_image
from pydeper.samples.sample import Sample

_TENSOR, _CHECKSUM = "features", "crc32"
_DAY = 24 * 3600


class FeatureCacheError(PydeperError):
    """The folder of features cannot be written."""


# --- images, opened by need


class Images(Protocol):
    """A data set's distinct images; none is held open."""

    def __len__(self) -> int:
        """How many they are."""
        ...

    def key(self, number: int) -> str:
        """What the image is known by, wherever it lies: the sha256 of its content.

        Raises:
            InvalidImageError: It is not there.
        """
        ...

    def open(self, number: int) -> Image.Image:
        """The upright RGB image.

        Raises:
            InvalidImageError: It cannot be read.
        """
        ...


class SampleImages:
    """Images where the samples have them: in files or in memory.

    Args:
        samples: One sample of each image; errors name its place.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, number: int) -> str:
        """See `Images`. The content is the file's bytes, or else the pixels."""
        if number not in self._keys:
            self._keys[number] = self._digest(number)
        return self._keys[number]

    def open(self, number: int) -> Image.Image:
        """See `Images`."""
        return self._samples[number].open_image()

    def _digest(self, number: int) -> str:
        image = self._samples[number].image
        if isinstance(image, bytes):
            return content_key(image)
        if isinstance(image, str | os.PathLike):
            try:
                with Path(image).open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                self.open(number)  # says what is wrong with it, in the words of the SDK
                raise
        picture = open_image(image)
        return content_key(b"%d %d " % picture.size + picture.tobytes())


def content_key(content: bytes) -> str:
    """What an image of this content is known by."""
    return hashlib.sha256(content).hexdigest()


# --- where features are kept


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
    """Features, or anything that has a size, in memory; those that were asked for least recently go first.

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
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / "about.json") as temporary:
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
            return self._remove(path, str(error))
        if key not in self._sound:
            if checksum != _checksum(features):
                return self._remove(path, "its checksum is another")
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
            path.parent.mkdir(exist_ok=True)
            with atomic_path(path) as temporary:
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
    config = getattr(encoder, "config", None)
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
    return memoryview(flat.view(torch.uint8).numpy())


# --- features


@attrs.frozen(eq=False)
class ImageFeatures:
    """Features of a data set's images, by the images' numbers; what is missing is computed and kept.

    Attributes:
        images: The images.
        encode: Upright RGB images -> one tensor each.
        store: Where features are kept.
        batch_size: Images that are encoded at a time.
    """

    images: Images
    encode: Callable[[Sequence[Image.Image]], Sequence[Tensor]]
    store: FeatureStore
    batch_size: int = 32

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Tensor:
        return self.of([number])[0]

    def of(self, numbers: Sequence[int]) -> list[Tensor]:
        """Features of images, one tensor each; an image that occurs twice is looked up once.

        Raises:
            InvalidImageError: An image that is not in the store cannot be read.
        """
        keys = {int(number): self.images.key(int(number)) for number in numbers}
        found = {number: self.store.get(key) for number, key in keys.items()}
        missing = [number for number, features in found.items() if features is None]
        for start in range(0, len(missing), self.batch_size):
            some = missing[start : start + self.batch_size]
            found |= self._compute({number: self.images.open(number) for number in some})
        return [features for number in numbers if (features := found[int(number)]) is not None]

    def fill(self, skip_broken: int = 0, name: str = "image features") -> list[int]:
        """Computes what is not in the store yet.

        Args:
            skip_broken: So many images may be unreadable; each is named in a warning.
            name: Of the bar that shows how far it is.

        Returns:
            The numbers of the unreadable images.

        Raises:
            InvalidImageError: More images are unreadable; the message counts them and names the last.
        """
        broken: list[int] = []
        pending: dict[int, Image.Image] = {}
        for number in tqdm(range(len(self)), desc=name, mininterval=1.0):
            try:
                if self.images.key(number) not in self.store:
                    pending[number] = self.images.open(number)
            except InvalidImageError as error:
                broken.append(number)
                if len(broken) > skip_broken:
                    raise InvalidImageError(_too_many_broken(error, len(broken), skip_broken)) from error
                warnings.warn(f"skipped: {error}", stacklevel=2)
            if len(pending) == self.batch_size:
                self._compute(pending)
                pending = {}
        self._compute(pending)
        return broken

    def _compute(self, pictures: Mapping[int, Image.Image]) -> dict[int, Tensor]:
        if not pictures:
            return {}
        # A view of the batch would hold all of it for as long as one image is kept.
        computed = {
            number: features.clone()
            for number, features in zip(pictures, self.encode(list(pictures.values())), strict=True)
        }
        for number, features in computed.items():
            self.store.put(self.images.key(number), features)
        return computed


def _too_many_broken(error: InvalidImageError, count: int, limit: int) -> str:
    if limit == 0:
        return f"{error} (or let skip_broken_images be the number of images that may be left out)"
    return (
        f"{error} It is broken image number {count}, and skip_broken_images is {limit}: mend them, or raise the limit"
    )
