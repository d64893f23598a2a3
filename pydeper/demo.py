"""The samples and the picture of `pydeper demo`, for first steps in Python."""

from pathlib import Path

from pydeper.bundle.layout import BUILTIN
from pydeper.errors import InvalidArgumentError
from pydeper.readers.jsonl import read_samples
from pydeper.samples.sample import Sample

_FOLDER = BUILTIN / "tiny" / "demo"


def demo_samples(person: str = "ana") -> list[Sample]:
    """Returns five samples of a simulated person, for the built-in model "tiny".

    Args:
        person: ``"ana"``, who looks downwards and mentions three objects, or ``"ben"``, who looks upwards and mentions
            all of them, with their sizes.

    Raises:
        InvalidArgumentError: There is no such person.

    Examples:
        >>> from pydeper import demo_samples
        >>> for sample in demo_samples("ana")[:2]:
        ...     print(sample.description)
        I can see a blue circle, together with a brown moon, together with a red oval.
        I can see a green moon, together with a grey diamond, together with a white cross.
    """
    people = sorted(path.stem for path in _FOLDER.glob("*.jsonl"))
    if person not in people:
        raise InvalidArgumentError(f"person: must be one of {', '.join(map(repr, people))}, got {person!r}")
    return read_samples(_FOLDER / f"{person}.jsonl")


def demo_image() -> Path:
    """Returns the path of a drawn picture that nobody in `demo_samples` has described.

    Examples:
        >>> from pydeper import demo_image
        >>> demo_image().name
        'scene.png'
    """
    return _FOLDER / "scene.png"
