"""What the descriptions of a run depend on; kept beside them, so that a file holds those of one model alone."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from pydeper.bundle.layout import CARD
from pydeper.bundle.manifest import read_manifest
from pydeper.errors import InvalidArgumentError
from pydeper.files.atomic import atomic_path
from pydeper.model.model import DeperModel
from pydeper.model.options import DescribeOptions, split_options
from pydeper.persona.persona import Persona
from pydeper.untrusted import check_format_version, parse_json, shown
from pydeper.version import __version__

FORMAT_VERSION = 1


@attrs.frozen
class RunSettings:
    """What decides, beside an image, how it is described.

    Attributes:
        model: Its id, revision and precision, and a digest of its files.
        options: The style and how to decode.
        personas: Name -> digest of the subject embedding; empty where nobody in particular describes.
    """

    model: Mapping[str, str | None]
    options: Mapping[str, Any]
    personas: Mapping[str, str]

    @classmethod
    def of(cls, model: DeperModel, personas: Mapping[str, Persona], options: DescribeOptions) -> "RunSettings":
        """Takes them from a model, the people by their names, and the options of `DeperModel.describe`.

        Raises:
            InvalidArgumentError: An option is out of its range.
        """
        style, decoding = split_options(options, model.styles, model.model_id)
        entries = read_manifest(model.persona_encoder.bundle.folder)
        files = [f"{name} {entry.sha256}\n" for name, entry in sorted(entries.items()) if name != CARD]
        return cls(
            {
                "id": model.model_id,
                "revision": model.revision,
                "precision": model.report().vlm.get("precision"),
                "files": _digest("".join(files).encode()),
            },
            {"style": style, **attrs.asdict(decoding)},
            {name: _digest(persona.subject_embedding.tobytes()) for name, persona in personas.items()},
        )

    def write(self, path: Path) -> None:
        """Writes them to a file, whole or not at all."""
        content = {"format_version": FORMAT_VERSION, "pydeper_version": __version__, **attrs.asdict(self)}
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "RunSettings":
        """Reads what `write` has written.

        Raises:
            InvalidArgumentError: It is damaged, or of a format that this version does not read.
        """
        remedy = "delete it with the descriptions beside it, or name another output"
        try:
            found = parse_json(path.read_bytes(), InvalidArgumentError)
            if not isinstance(found, dict):
                raise InvalidArgumentError(f"must be an object, got {shown(found)}")
            check_format_version(
                found.get("format_version"), FORMAT_VERSION, "settings of a run", remedy, InvalidArgumentError
            )
            values: list[Any] = [found.get(field.name) for field in attrs.fields(cls)]
            if not all(isinstance(value, dict) for value in values):
                raise InvalidArgumentError("must hold the objects model, options and personas")
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{path}: {error}; {remedy}") from error
        return cls(*values)

    def differences(self, other: "RunSettings") -> list[str]:
        """Says in what another run's settings are not these: a few words each."""
        return [
            *(f"{name} {shown(theirs)} there, {shown(ours)} here" for name, theirs, ours in self._values(other)),
            *(f"persona {shown(name)} is in those alone" for name in other.personas if name not in self.personas),
            *(f"persona {shown(name)} is not in those" for name in self.personas if name not in other.personas),
            *(
                f"persona {shown(name)} was another one"
                for name, digest in self.personas.items()
                if other.personas.get(name, digest) != digest
            ),
        ]

    def _values(self, other: "RunSettings") -> Iterator[tuple[str, Any, Any]]:
        """Yields name, other value and own value of what is unlike in model and options."""
        for own, others, prefix in ((self.model, other.model, "model "), (self.options, other.options, "")):
            for name in {**others, **own}:
                if own.get(name) != others.get(name):
                    yield prefix + name, others.get(name), own.get(name)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
