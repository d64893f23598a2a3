"""Configurations read from TOML, changed by `--set key=value`; an unknown key is an error."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from training.config.validators import ConfigError

T = TypeVar("T")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)

    def exact(kind: type, accepted: tuple[type, ...]) -> None:
        def structure(value: Any, _: type) -> Any:
            if (isinstance(value, bool) and kind is not bool) or not isinstance(value, accepted):
                raise ConfigError(f"expected {kind.__name__}, got {value!r}")
            return kind(value)

        converter.register_structure_hook(kind, structure)

    exact(int, (int,))
    exact(float, (int, float))
    exact(str, (str,))
    exact(bool, (bool,))
    return converter


def load_config(kind: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """Reads a TOML file into the attrs class `kind`.

    Args:
        kind: The configuration's class.
        path: The TOML file.
        overrides: Changes as "key.path=value", applied in order; the value is read as TOML, or else taken as a string.

    Raises:
        ConfigError: The file cannot be read, or a key is unknown, missing or of a wrong type or range; all are named.
    """
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    for change in overrides:
        _apply(table, change)
    return structure_config(kind, table, str(path))


def structure_config(kind: type[T], table: dict[str, Any], source: str) -> T:
    """Builds the attrs class `kind` from a plain table; errors name `source` and the key."""
    try:
        return _converter().structure(table, kind)
    except (cattrs.BaseValidationError, ConfigError) as error:
        reasons = cattrs.transform_error(error, path=kind.__name__, format_exception=_reason)
        raise ConfigError(f"{source}: " + "; ".join(reasons)) from error


def _reason(error: BaseException, kind: type | None) -> str:
    if isinstance(error, KeyError):
        return f"missing key {error}"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        known = ", ".join(field.name for field in attrs.fields(error.cl)) if attrs.has(error.cl) else ""
        return f"unknown key {', '.join(sorted(error.extra_fields))} (known: {known})"
    return str(error)


def _apply(table: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {change}: expected key=value, for example --set stage1.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {change}: {part} is a value, not a table")
    table[last] = value


def shaping_settings(config: Any) -> dict[str, Any]:
    """The settings that shape the loss curve, as plain values."""
    return attrs.asdict(config, filter=lambda field, _: not field.metadata.get("may_change"))


def shaping_settings_at(config: Any, path: str) -> Any:
    """The shaping settings of a table, or a single setting, as plain values.

    Args:
        config: A configuration.
        path: Where in it, such as "stage1" or "prompt_tuning.lora"; None is returned where it is missing.
    """
    for name in path.split("."):
        config = None if config is None else getattr(config, name)
    return shaping_settings(config) if attrs.has(type(config)) else config


def config_text(config: Any) -> str:
    """A configuration as JSON, for logs and checkpoints."""
    return json.dumps(_converter().unstructure(config), indent=1)
