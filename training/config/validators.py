"""What a setting may be; whatever it may not be is an error that names the setting."""

from collections.abc import Callable
from typing import Any

import attrs

from pydeper.errors import PydeperError


class ConfigError(PydeperError, ValueError):
    """A configuration that cannot be used; the message names the key."""


def positive(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is > 0."""
    if not value > 0:
        raise ConfigError(f"{attribute.name}: must be > 0, got {value!r}")


def at_least(least: int) -> Callable[[Any, "attrs.Attribute[Any]", int], None]:
    """Attrs validator: the value is no less."""

    def validate(_: Any, attribute: "attrs.Attribute[Any]", value: int) -> None:
        if not value >= least:
            raise ConfigError(f"{attribute.name}: must be >= {least}, got {value!r}")

    return validate


def fraction(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is in [0, 1)."""
    if not 0 <= value < 1:
        raise ConfigError(f"{attribute.name}: must be in [0, 1), got {value!r}")


def below_half(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Validates that the value is in [0, 0.5)."""
    if not 0 <= value < 0.5:
        raise ConfigError(f"{attribute.name}: must be in [0, 0.5), got {value!r}")


def known_figures(*known: str) -> Callable[[Any, "attrs.Attribute[Any]", dict[str, float]], None]:
    """Attrs validator: a table of weights, at least one, whose keys are all among `known`."""

    def validate(_: Any, attribute: "attrs.Attribute[Any]", value: dict[str, float]) -> None:
        unknown = sorted(set(value) - set(known))
        if unknown or not value:
            found = f"unknown figure {', '.join(unknown)}" if unknown else "needs at least one figure"
            raise ConfigError(f"{attribute.name}: {found} (known: {', '.join(known)})")

    return validate


def not_negative(_: Any, attribute: "attrs.Attribute[Any]", value: float) -> None:
    """Attrs validator: the value is >= 0."""
    if not value >= 0:
        raise ConfigError(f"{attribute.name}: must be >= 0, got {value!r}")
