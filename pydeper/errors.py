"""Every error `pydeper` raises on purpose, in one small tree: ``except PydeperError`` catches them all.

Messages say what was wrong, where (file, line, sample, field), the value or its shape or range, and what to do.
"""

from pydeper.untrusted import legible


class PydeperError(Exception):
    """The root of the tree.

    Messages repeat what files and servers say; what in it would command a terminal is written out.

    Examples:
        >>> import pydeper
        >>> try:
        ...     pydeper.Persona.load("nobody.safetensors")
        ... except pydeper.PydeperError as error:
        ...     print(error)
        nobody.safetensors: cannot be read: ...; give the path of a file that Persona.save wrote
    """

    def __init__(self, *values: object) -> None:
        super().__init__(*(legible(value) if isinstance(value, str) else value for value in values))


class InvalidArgumentError(PydeperError, ValueError):
    """An argument has a value that its function cannot take."""


class InvalidImageError(PydeperError, ValueError):
    """An image cannot be read: missing, not an image, cut short, too large, or an array of the wrong shape or dtype."""


class InvalidSampleError(PydeperError, ValueError):
    """A sample, a trajectory or a line of a samples file does not hold what its format promises."""


class PersonaError(PydeperError, ValueError):
    """A persona cannot be made, read or written."""


class IncompatiblePersonaError(PersonaError):
    """A persona was made by another persona encoder than the model's, so its numbers mean something else there."""


class BundleError(PydeperError):
    """A model's folder is missing, damaged, or of a format that this version does not read."""


class RuntimeMissingError(PydeperError, ImportError):
    """No runtime is installed, or not the one asked for, or two builds of ONNX Runtime on top of each other."""


class ForkedProcessError(PydeperError):
    """A model is used in a process that was forked after the model was loaded; load it in each process instead."""


class VLLMError(PydeperError):
    """A vLLM server refused a request, or answered what cannot be used; the errors below say more where they can."""


class VLLMUnreachableError(VLLMError):
    """No vLLM server could be reached, or none went through with its answer, after all retries."""


class VLLMIncompatibleError(VLLMError):
    """A vLLM server is too old, lacks a flag that is needed, or serves another model than the bundle's."""


class VLLMAuthenticationError(VLLMError):
    """A vLLM server wants an API key, or another one."""
