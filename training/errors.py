"""The error of everything that trains."""

from pydeper.errors import PydeperError


class TrainingError(PydeperError):
    """Training cannot start, continue or go on."""
