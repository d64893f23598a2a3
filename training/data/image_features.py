"""What a frozen encoder makes of a data set's images, computed once and kept in a feature store."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import attrs
from PIL import Image
from torch import Tensor

from pydeper.errors import InvalidImageError
from training.data.feature_cache import FeatureStore
from training.data.images import Images
from training.progress import progress


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
        for number in progress(range(len(self)), name, "images"):
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
