"""What was said when, and where the pointer was meanwhile: of formats that record a description as it is spoken."""

import attrs

from pydeper.samples.boxes import Box


@attrs.frozen
class Utterance:
    """A word, or a few words, of a spoken description.

    Attributes:
        text: The words.
        start: When it began, in seconds from the beginning of the recording.
        end: When it ended.
        box: Around the pointer's positions meanwhile, as fractions of the upright image, (x1, y1, x2, y2) within
            [0, 1]; a single point where it stood still. None where the pointer was not over the image.
    """

    text: str
    start: float
    end: float
    box: Box | None = None
