"""Image descriptions in the words, order and detail of one particular person.

    >>> import pydeper
    >>> persona = pydeper.Persona.from_samples(pydeper.demo_samples("ana"))
    >>> pydeper.describe(pydeper.demo_image(), persona)
    'I can see a green cross, together with a black circle, together with a blue rectangle.'

Importing pydeper is cheap: every name is loaded when it is first used.
"""

from typing import TYPE_CHECKING, Any

from pydeper.version import __version__

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Unpack

    from pydeper.bundle.default import DemonstrationModelWarning
    from pydeper.demo import demo_image, demo_samples
    from pydeper.drawing.scene import DrawnObject, draw_scene
    from pydeper.errors import (
        BundleError,
        ForkedProcessError,
        IncompatiblePersonaError,
        InvalidArgumentError,
        InvalidImageError,
        InvalidSampleError,
        PersonaError,
        PydeperError,
        RuntimeMissingError,
        VLLMAuthenticationError,
        VLLMError,
        VLLMIncompatibleError,
        VLLMUnreachableError,
    )
    from pydeper.images import ImageLike
    from pydeper.model.model import DeperModel
    from pydeper.model.options import DescribeOptions
    from pydeper.model.report import ModelReport
    from pydeper.persona.persona import Persona
    from pydeper.persona.repository import PublishedPersona, delete_persona, list_personas
    from pydeper.readers import read_samples, write_samples
    from pydeper.runtime.memory import OutOfMemoryError
    from pydeper.samples.sample import Sample
    from pydeper.samples.trajectory import Fixation, Trajectory
    from pydeper.vlm import EncodedImage
    from pydeper.vlm.vllm.settings import VLLMServers


_HOMES = {
    "DemonstrationModelWarning": "pydeper.bundle.default",
    "demo_image": "pydeper.demo",
    "demo_samples": "pydeper.demo",
    "DrawnObject": "pydeper.drawing.scene",
    "draw_scene": "pydeper.drawing.scene",
    "BundleError": "pydeper.errors",
    "ForkedProcessError": "pydeper.errors",
    "IncompatiblePersonaError": "pydeper.errors",
    "InvalidArgumentError": "pydeper.errors",
    "InvalidImageError": "pydeper.errors",
    "InvalidSampleError": "pydeper.errors",
    "PersonaError": "pydeper.errors",
    "PydeperError": "pydeper.errors",
    "RuntimeMissingError": "pydeper.errors",
    "VLLMAuthenticationError": "pydeper.errors",
    "VLLMError": "pydeper.errors",
    "VLLMIncompatibleError": "pydeper.errors",
    "VLLMUnreachableError": "pydeper.errors",
    "OutOfMemoryError": "pydeper.runtime.memory",
    "DeperModel": "pydeper.model.model",
    "DescribeOptions": "pydeper.model.options",
    "Persona": "pydeper.persona.persona",
    "PublishedPersona": "pydeper.persona.repository",
    "delete_persona": "pydeper.persona.repository",
    "list_personas": "pydeper.persona.repository",
    "read_samples": "pydeper.readers",
    "write_samples": "pydeper.readers",
    "ModelReport": "pydeper.model.report",
    "Fixation": "pydeper.samples.trajectory",
    "Sample": "pydeper.samples.sample",
    "Trajectory": "pydeper.samples.trajectory",
    "EncodedImage": "pydeper.vlm",
    "VLLMServers": "pydeper.vlm.vllm.settings",
}

__all__ = [
    "BundleError",
    "DemonstrationModelWarning",
    "DeperModel",
    "DescribeOptions",
    "DrawnObject",
    "EncodedImage",
    "Fixation",
    "ForkedProcessError",
    "IncompatiblePersonaError",
    "InvalidArgumentError",
    "InvalidImageError",
    "InvalidSampleError",
    "ModelReport",
    "OutOfMemoryError",
    "Persona",
    "PersonaError",
    "PublishedPersona",
    "PydeperError",
    "RuntimeMissingError",
    "Sample",
    "Trajectory",
    "VLLMAuthenticationError",
    "VLLMError",
    "VLLMIncompatibleError",
    "VLLMServers",
    "VLLMUnreachableError",
    "__version__",
    "delete_persona",
    "demo_image",
    "demo_samples",
    "describe",
    "draw_scene",
    "list_personas",
    "read_samples",
    "stream",
    "write_samples",
]


def describe(
    image: "ImageLike | EncodedImage", persona: "Persona | None" = None, **options: "Unpack[DescribeOptions]"
) -> str:
    """Describes an image as one person would, with the default model (``$PYDEPER_MODEL``, else the built-in "tiny").

    The arguments and the errors are those of `DeperModel.describe`. The model is loaded at the first call and kept.

    Examples:
        >>> from pydeper import Persona, demo_image, demo_samples, describe
        >>> ana = Persona.from_samples(demo_samples("ana"))
        >>> describe(demo_image(), ana)
        'I can see a green cross, together with a black circle, together with a blue rectangle.'
    """
    from pydeper.model.default import default_model

    return default_model().describe(image, persona, **options)


def stream(
    image: "ImageLike | EncodedImage", persona: "Persona | None" = None, **options: "Unpack[DescribeOptions]"
) -> "Generator[str, None, None]":
    """Describes as `describe` does, and yields the text piece by piece while it is written.

    Examples:
        >>> from pydeper import demo_image, stream
        >>> for piece in stream(demo_image()):
        ...     print(piece, end="")
        I can see a black circle and a brown ring and a green cross and a blue rectangle and a red diamond.
    """
    from pydeper.model.default import default_model

    return default_model().stream(image, persona, **options)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pydeper' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
