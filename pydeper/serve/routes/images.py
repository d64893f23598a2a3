"""Images that clients send, judged before they are decoded."""

from pydeper.errors import InvalidImageError
from pydeper.images import upright_size
from pydeper.serve.settings import Settings


def check_image(image: bytes, settings: Settings) -> None:
    """Judges an image by its header.

    Raises:
        InvalidImageError: It is no image, or has more pixels than the gateway takes.
    """
    width, height = upright_size(image)
    if width * height > settings.max_pixels:
        raise InvalidImageError(
            f"the image has {width}×{height} pixels; this gateway takes at most {settings.max_pixels}: make it smaller"
        )
