"""What the reference says of commands and settings, made from the code itself when the site is built.

A page marks the place: ``<!-- commands: MODULE -->`` becomes the help of every command of ``MODULE.main``,
``<!-- settings: MODULE.CLASS -->`` a table of an attrs class: key, type, default, and what its docstring says, and
``<!-- names: PAGE -->`` a table of all that the page documents, each name a link.
"""

import argparse
import contextlib
import inspect
import json
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest import mock

import attrs

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

WIDTH = "88"  # what a page shows on a desktop without scrolling
_DOCS = Path(__file__).parent.parent
_INTERVAL = re.compile(r"(?<= \[)(-?\d+\.\d+), (?=-?\d+\.\d+\] )")
_MARK = re.compile(r"^<!-- (commands|settings|names): ([\w./]+) -->$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fills in the marked places of a page, and keeps intervals in tables on one line; called by MkDocs."""
    make = {"commands": commands_text, "settings": settings_text, "names": names_text}
    filled = _MARK.sub(lambda mark: make[mark[1]](mark[2]), markdown)
    return re.sub(r"^\|.*$", lambda row: _INTERVAL.sub("\\1,\u00a0", row[0]), filled, flags=re.M)


def on_post_page(output: str, **_: Any) -> str:
    """Adds what the theme leaves out for screen readers.

    Its search is a dialog without a name; a heading without words is no heading; and the pages of a section, a list
    within the navigation, are no navigation of their own.
    """
    output = output.replace(
        'data-md-component="search" role="dialog"', 'data-md-component="search" role="dialog" aria-label="Search"'
    )
    output = re.sub(r"<th(?: style=\"[^\"]*\")?></th>", "<td></td>", output)
    return re.sub(r'(<nav class="md-nav" data-md-level="[1-9]")[^>]*>', r'\1 role="none">', output)


def on_files(files: "Files", config: Any) -> "Files":
    """Adds the changelog, which lies beside the docs, to the pages; called by MkDocs."""
    from mkdocs.structure.files import File

    changelog = (Path(config["config_file_path"]).parent / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog.replace("](docs/", "](")))
    return files


# --- commands


def commands_text(module: str) -> str:
    """The help of a program's commands as Markdown, a section each."""
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH}):
        return "\n\n".join(
            f"### {parser.prog} {{#{_anchor(parser.prog)}}}\n\n```{{.text .help}}\n{parser.format_help()}```"
            for parser in with_subcommands(parser_of(module))
        )


def _anchor(program: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", program)


def parser_of(module: str) -> argparse.ArgumentParser:
    """The parser with which a module's `main` reads its arguments."""
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        caught.append(parser)
        raise SystemExit

    with mock.patch.object(argparse.ArgumentParser, "parse_args", catch), contextlib.suppress(SystemExit):
        import_module(module).main([])
    return caught[0]


def with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and all below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from with_subcommands(inner)


# --- names


def names_text(page: str) -> str:
    """The names that a page documents with ``::: NAME``, by its sections, as a Markdown table of links."""
    rows = ["| | |", "| --- | --- |"]
    for section in re.split(r"^## ", (_DOCS / page).read_text(encoding="utf-8"), flags=re.M)[1:]:
        title = re.sub(r" *\{.*", "", section.partition("\n")[0])
        names = re.findall(r"^::: ([\w.]+)$", section, flags=re.M)
        links = (f"[`{name.removeprefix('pydeper.')}`]({page}#{name})" for name in names)
        rows.append(f"| {title} | {', '.join(links)} |")
    return "\n".join(rows)


# --- settings


def settings_text(name: str) -> str:
    """The keys of an attrs class as a Markdown table; those it inherits are in the table of the class they are from."""
    module, _, attribute = name.rpartition(".")
    kind = getattr(import_module(module), attribute)
    meanings = meanings_of(kind)
    rows = [("key", "type", "default", "meaning"), ("---",) * 4]
    for field in attrs.fields(kind):
        if not field.inherited:
            meaning = meanings.get(field.name, "").replace("|", r"\|")
            rows.append((f"`{field.name}`", _type(field.type), _default(field), meaning))
    columns = 4 if meanings else 3  # sizes that say by their names what they are
    return "\n".join(f"| {' | '.join(row[:columns])} |" for row in rows)


def meanings_of(kind: type) -> dict[str, str]:
    """What a class's docstring says under "Attributes:", by name."""
    _, _, section = inspect.getdoc(kind).partition("\nAttributes:\n")  # type: ignore[union-attr]
    section = re.split(r"\n\S", section)[0]
    parts = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", section, flags=re.S | re.M)
    return {name: " ".join(text.split()) for name, text in parts}


def _type(kind: Any) -> str:
    if any(attrs.has(part) for part in (kind, *get_args(kind))):
        return "table"
    text = inspect.formatannotation(kind).removesuffix(" | None")
    for name, plain in (("str", "text"), ("float", "number"), ("int", "whole number"), ("bool", "true or false")):
        text = re.sub(rf"\b{name}\b", plain, text)
    text = re.sub(r"dict\[text, (\w+)\]", r"table of \1s", text)
    return re.sub(r"tuple\[(.+?)(?:, \1)+\]", lambda match: f"{match[0].count(match[1])} {match[1]}s", text)


def _default(field: "attrs.Attribute[Any]") -> str:
    if field.default is attrs.NOTHING:
        return "required"
    default: Any = field.default
    # To type checkers attrs.Factory is a function.
    value = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
    if value is None:
        return "none"
    if attrs.has(type(value)):
        return "its defaults"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    """A value as one would write it into the file."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)  # texts, numbers, true and false are written alike in both
