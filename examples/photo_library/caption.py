"""Describes the photos below a folder for several readers, into XMP sidecars that photo programs read.

Run it with ``python -m examples.photo_library.caption PHOTOS --persona ana.safetensors --persona ben.safetensors``.
"""

import argparse
import csv
import io
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydeper import DeperModel, InvalidArgumentError, InvalidImageError, Persona
from pydeper.console import run_command
from pydeper.files.atomic import atomic_path, check_output

SUFFIXES = {".avif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

X, RDF, DC = "adobe:ns:meta/", "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://purl.org/dc/elements/1.1/"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
DEFAULT = "x-default"  # what programs show that look for no reader in particular
EMPTY = f'<x:xmpmeta xmlns:x="{X}"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about=""/></rdf:RDF></x:xmpmeta>'

for prefix, address in (("x", X), ("rdf", RDF), ("dc", DC)):
    ET.register_namespace(prefix, address)


class Count(NamedTuple):
    """What became of the photos: described now, complete before, broken (with the reason)."""

    described: int
    complete: int
    broken: dict[Path, str]


def caption_library(
    photos: Path, out: Path, model: DeperModel, readers: Mapping[str, Persona], max_new_tokens: int = 256
) -> Count:
    """Writes for every photo the descriptions that its sidecar lacks.

    Args:
        photos: A folder; photos are looked for in all folders below it.
        out: Folder of the sidecars, laid out like `photos`.
        model: Describes.
        readers: Language tag, as in ``en-x-ana``, -> persona. The first is the default for programs that know none.
        max_new_tokens: The most tokens of one description.
    """
    described, complete, broken = 0, 0, {}
    for photo in photos_below(photos):
        sidecar = sidecar_of(photo, photos, out)
        try:
            document = Sidecar(sidecar)
            missing = [language for language in readers if language not in document.descriptions()]
            if not missing:
                complete += 1
                continue
            texts = model.describe_each(
                photo, [readers[language] for language in missing], max_new_tokens=max_new_tokens
            )
        except (InvalidImageError, DamagedSidecarError) as error:
            broken[photo] = str(error)
            continue
        document.add(dict(zip(missing, texts, strict=True)), default=next(iter(readers)))
        document.save()
        described += 1
    return Count(described, complete, broken)


def photos_below(folder: Path) -> list[Path]:
    """Returns all photos below a folder, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def sidecar_of(photo: Path, photos: Path, out: Path) -> Path:
    """Returns where a photo's sidecar belongs; the photo's suffix stays, so that IMG.jpg and IMG.png have one each."""
    return out / photo.relative_to(photos).with_name(photo.name + ".xmp")


class DamagedSidecarError(Exception):
    """A sidecar is there, but is no XMP that can be read; it is left as it is."""


class Sidecar:
    """An XMP file, or a new one; everything in it but the descriptions stays as it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = EMPTY.encode()
        try:
            for _, (prefix, address) in ET.iterparse(io.BytesIO(content), events=["start-ns"]):
                if prefix and not prefix.startswith("ns"):  # names like ns0 are the writer's own to give
                    ET.register_namespace(prefix, address)
            self._root = ET.fromstring(content)
        except ET.ParseError as error:
            raise DamagedSidecarError(f"{path} is not XML ({error}); mend it or move it away") from error
        about = self._root.find(f".//{{{RDF}}}Description")
        if about is None:
            raise DamagedSidecarError(f"{path} holds no rdf:Description, so it is not XMP; mend it or move it away")
        self._about = about

    def descriptions(self) -> dict[str, str]:
        """Returns language -> description."""
        return {item.get(LANGUAGE, DEFAULT): item.text or "" for item in self._items()}

    def add(self, texts: Mapping[str, str], default: str) -> None:
        """Adds descriptions by language; that of `default` also as the default, unless there is one already."""
        listed = self._about.find(f"{{{DC}}}description/{{{RDF}}}Alt")
        if listed is None:
            listed = ET.SubElement(ET.SubElement(self._about, f"{{{DC}}}description"), f"{{{RDF}}}Alt")
        if DEFAULT not in self.descriptions() and default in texts:
            texts = {DEFAULT: texts[default], **texts}
        for language, text in texts.items():
            ET.SubElement(listed, f"{{{RDF}}}li", {LANGUAGE: language}).text = _writable(text)

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        ET.indent(self._root)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path) as temporary:
            ET.ElementTree(self._root).write(temporary, encoding="utf-8", xml_declaration=True)

    def _items(self) -> list[ET.Element]:
        return self._root.findall(f".//{{{DC}}}description/{{{RDF}}}Alt/{{{RDF}}}li")


def write_csv(path: Path, photos: Path, out: Path, readers: Sequence[str]) -> int:
    """Writes photo, reader and description as the sidecars have them, and returns the number of rows."""
    rows = list(_rows(photos, out, readers))
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("photo", "reader", "description"))
        writer.writerows(rows)
    return len(rows)


def language_tags(personas: Sequence[Persona]) -> dict[str, Persona]:
    """Returns personas by language tag: English for one reader, ``en-x-NAME`` (BCP 47, private use).

    Raises:
        InvalidArgumentError: A persona has no name to make a tag of, or two have the same tag.
    """
    readers: dict[str, Persona] = {}
    for persona in personas:
        name = "".join(letter for letter in (persona.name or "").lower() if letter.isascii() and letter.isalnum())[:8]
        if not name or (tag := f"en-x-{name}") in readers:
            raise InvalidArgumentError(
                f"{persona!r} needs a name whose first 8 letters or digits (a-z, 0-9) nobody else's begins with"
            )
        readers[tag] = persona
    return readers


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 1 is the status where a photo was broken, 2 that of a mistake."""
    parser = argparse.ArgumentParser(prog="caption", description="Describe the photos below a folder, as XMP sidecars.")
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--persona", type=Path, action="append", required=True, help="a persona file; one a reader")
    parser.add_argument("--out", type=Path, help="folder of the sidecars; beside the photos where it is not given")
    parser.add_argument("--csv", type=Path, help="write what the sidecars say into this file as well")
    parser.add_argument("--model", default="tiny", help="a model's folder or Hub id")
    options = parser.parse_args(arguments)
    if not options.photos.is_dir():
        parser.error(f"{options.photos} is not a folder")
    return run_command("caption", lambda: _run(options), interrupted="interrupted; the same command goes on")


def _run(options: argparse.Namespace) -> int:
    if options.csv:
        check_output(options.csv, [*options.persona, *photos_below(options.photos)])
    out = options.out or options.photos
    readers = language_tags([Persona.load(path) for path in options.persona])
    count = caption_library(options.photos, out, DeperModel.from_pretrained(options.model), readers)
    print(f"{count.described} described, {count.complete} complete before, {len(count.broken)} broken")
    for photo, reason in count.broken.items():
        print(f"broken: {photo}: {reason}", file=sys.stderr)
    if options.csv:
        print(f"{write_csv(options.csv, options.photos, out, list(readers))} rows in {options.csv}")
    return 1 if count.broken else 0


def _rows(photos: Path, out: Path, readers: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for photo in photos_below(photos):
        sidecar = sidecar_of(photo, photos, out)
        try:
            found = Sidecar(sidecar).descriptions()
        except DamagedSidecarError:
            continue  # counted among the broken ones
        for language in readers:
            if language in found:
                yield photo.relative_to(photos).as_posix(), language, found[language]


def _writable(text: str) -> str:
    """The text without the control characters that XML has no way to write."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


if __name__ == "__main__":
    sys.exit(main())
