"""The settings of a gateway, checked, from the command line or from the environment."""

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from pydeper.errors import InvalidArgumentError
from pydeper.untrusted import is_loopback

if TYPE_CHECKING:  # the help of the command needs neither
    from pydeper.bundle.config import Precision
    from pydeper.runtime.target import Runtime

PREFIX = "PYDEPER_SERVE_"


def _between(least: float, most: float) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    def check(_: Any, field: "attrs.Attribute[Any]", value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise InvalidArgumentError(f"{field.name}: must be a number from {least:g} to {most:g}, got {value!r}")

    return check


def _count(least: int = 1, most: int = 10**9) -> Any:
    return attrs.validators.and_(attrs.validators.instance_of(int), _between(least, most))


@attrs.frozen(kw_only=True)
class Settings:
    """How a gateway works.

    Attributes:
        model: A Hub id, a folder, or "tiny"; None is the default model.
        runtime: As in `DeperModel.from_pretrained`.
        device: As in `DeperModel.from_pretrained`.
        threads: As in `DeperModel.from_pretrained`.
        precision: As in `DeperModel.from_pretrained`.
        vlm: The addresses of vLLM servers that the vision-language model runs on, with commas between; None: it runs
            here.
        image_cache: How many encoded images the model keeps, whichever tenant sent them.
        database: SQLAlchemy's URL of the database with keys and personas.
        keys: Whether clients need an API key; without keys, everybody is the tenant "local".
        max_bytes: The largest request body.
        max_pixels: The largest image, judged by its header, before it is decoded.
        max_samples: The most samples that a persona is made of.
        max_personas: The most personas of a tenant.
        max_new_tokens: The longest description that a client may ask for.
        upload_seconds: How long a request body may take to arrive.
        deadline_seconds: How long a request may take once its body is there; clients may ask for less.
        queue_length: Descriptions that may wait; further ones are refused with status 429.
        batch_rows: The most descriptions that are computed together; None: 16, or as many as vLLM servers take.
    """

    model: str | None = None
    runtime: "Runtime | None" = None
    device: str = "auto"
    threads: int | None = None
    precision: "Precision | None" = None
    vlm: str | None = None
    image_cache: int = attrs.field(default=16, validator=_count(0))
    database: str = "sqlite:///pydeper-gateway.db"
    keys: bool = True
    max_bytes: int = attrs.field(default=16 * 2**20, validator=_count(1024))
    max_pixels: int = attrs.field(default=25_000_000, validator=_count())
    max_samples: int = attrs.field(default=32, validator=_count())
    max_personas: int = attrs.field(default=10_000, validator=_count())
    max_new_tokens: int = attrs.field(default=512, validator=_count())
    upload_seconds: float = attrs.field(default=30.0, converter=float, validator=_between(0.1, 3600))
    deadline_seconds: float = attrs.field(default=60.0, converter=float, validator=_between(0.1, 3600))
    queue_length: int = attrs.field(default=64, validator=_count())
    batch_rows: int | None = attrs.field(default=None, validator=attrs.validators.optional(_count(1, 1024)))

    @property
    def servers(self) -> list[str] | None:
        """The addresses of vLLM servers, or None."""
        return None if self.vlm is None else [address.strip() for address in self.vlm.split(",")]


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads settings from variables such as ``PYDEPER_SERVE_DATABASE``.

    Raises:
        InvalidArgumentError: There is no such setting, or a value is out of its range; names the variable.
    """
    fields = {field.name: field for field in attrs.fields(Settings)}
    given: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in fields:
            raise InvalidArgumentError(f"{variable}: is no setting; the settings are {', '.join(sorted(fields))}")
        given[name] = _parsed(variable, text, fields[name].type)
    return Settings(**given)


def _parsed(variable: str, text: str, kind: Any) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InvalidArgumentError(f"{variable}: must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, int | None, float):
        try:
            number = float(text) if kind is float else int(text)
        except ValueError:
            raise InvalidArgumentError(f"{variable}: must be a number, got {text!r}") from None
        if not math.isfinite(number):
            raise InvalidArgumentError(f"{variable}: must be a finite number, got {text!r}")
        return number
    return text


def check_host(host: str, settings: Settings) -> None:
    """Refuses to serve without keys to other machines.

    Raises:
        InvalidArgumentError: Keys are switched off, and the host is not this machine alone.
    """
    if not settings.keys and not is_loopback(host):
        raise InvalidArgumentError(
            f"--no-keys: everybody who reaches {host} could read and delete every persona; serve on 127.0.0.1, or "
            "leave out --no-keys and give each client a key (`pydeper serve keys create TENANT`)"
        )
