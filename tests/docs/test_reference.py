"""The reference is that of the code: commands, public names, settings."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import pydeper
import pydeper.readers
from tests.support.docs.pages import (
    DOCS,
    PROGRAMS,
    ROOT,
    TEXTS,
    blocks,
    hooks,
    name,
    read,
)
from training.config import TrainingConfig, load_config
from training.tiny.config import TinyConfig


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_commands_page_is_what_help_prints(program: str) -> None:
    text = hooks().commands_text(PROGRAMS[program])
    shown = dict(re.findall(r"### (.+?) \{.*?\n\n```.*?\n(.*?)```", text, flags=re.S))
    assert f"<!-- commands: {PROGRAMS[program]} -->" in read(DOCS / "reference/cli.md")
    assert len(shown) > 5
    # In processes of their own only the first and the last: each takes a second.
    for command in (program, list(shown)[-1]):
        environment = {**os.environ, "COLUMNS": hooks().WIDTH, "PYTHONPATH": str(ROOT)}
        words = [
            sys.executable,
            *shlex.split(command.replace("python ", "").replace("pydeper", "-m pydeper")),
            "--help",
        ]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == shown[command]


def test_every_public_name_is_in_the_reference() -> None:
    documented = set(re.findall(r"^::: ([\w.]+)$", read(DOCS / "reference/api.md"), flags=re.M))
    public = {f"pydeper.{public}" for public in pydeper.__all__ if public != "__version__"}
    # Read and write samples are names of pydeper itself; the formats' table is explained by its class.
    readers = {f"pydeper.readers.{public}" for public in pydeper.readers.__all__}
    readers -= {"pydeper.readers.read_samples", "pydeper.readers.write_samples", "pydeper.readers.REPORT_FORMATS"}
    assert public | readers <= documented
    gaze = {"trajectory_from_points", "find_fixations", "IDT", "FixedWindows", "FixationMethod", "box_around"}
    assert {f"pydeper.gaze.{public}" for public in gaze} <= documented


def test_every_public_name_is_a_link_of_the_references_first_page() -> None:
    page = hooks().on_page_markdown(read(DOCS / "reference.md"))
    linked = set(re.findall(r"\]\(reference/api\.md#([\w.]+)\)", page))
    assert linked == set(re.findall(r"^::: ([\w.]+)$", read(DOCS / "reference/api.md"), flags=re.M))


def test_each_part_of_the_network_is_explained_beside_its_file() -> None:
    page = read(DOCS / "explanation/how-it-works.md")
    beside = re.findall(r'<div class="equation"><p>(.+?)</p><code>(.+?)</code></div>', page)
    assert all((ROOT / file).exists() for _, file in beside)
    named = {file for _, file in beside} | set(re.findall(r"`(training/network/\w+\.py)`", page))
    modules = {name(file) for file in (ROOT / "training/network").glob("*.py")}
    assert modules - named == {"training/network/__init__.py", "training/network/config.py"}


def settings_classes(kind: type) -> Iterator[type]:
    """A configuration's class, those it inherits from, and those of its tables."""
    yield from (parent for parent in kind.__mro__ if attrs.has(parent))
    for field in attrs.fields(kind):
        for part in (field.type, *getattr(field.type, "__args__", ())):
            if isinstance(part, type) and attrs.has(part):
                yield from settings_classes(part)


@pytest.mark.parametrize("kind", [TrainingConfig, TinyConfig], ids=lambda kind: kind.__name__)
def test_every_setting_is_in_the_reference_with_its_meaning(kind: type) -> None:
    page = read(DOCS / "reference/training-settings.md")
    for part in dict.fromkeys(settings_classes(kind)):
        full = f"{part.__module__}.{part.__name__}"
        assert f"<!-- settings: {full} -->" in page, full
        table = hooks().settings_text(full)
        meanings = hooks().meanings_of(part)
        own = [field.name for field in attrs.fields(part) if not field.inherited]
        assert re.findall(r"^\| `(\w+)` \|", table, flags=re.M) == own
        for default in re.findall(r"^\| `\w+` \| [^|]+ \| `(.+?)` \|", table, flags=re.M):
            tomllib.loads(f"key = {default}")  # as it can be written into the file
        # Sizes and the like may go without; a docstring that explains some explains all.
        assert set(meanings) in (set(), set(own)), full


@pytest.mark.parametrize("file", sorted((ROOT / "training/configs").glob("*.toml")), ids=name)
def test_the_settings_that_ship_are_those_of_the_reference(file: Path) -> None:
    rendered = hooks().on_page_markdown(read(DOCS / "reference/training-settings.md"))
    documented = set(re.findall(r"^\| `(\w+)` \|", rendered, flags=re.M))
    table = tomllib.loads(read(file))
    keys = set(table) | {key for inner in table.values() if isinstance(inner, dict) for key in inner}
    assert keys <= documented


@pytest.mark.parametrize("page", [page for page in TEXTS if "```toml" in read(page)], ids=name)
def test_settings_that_are_shown_are_settings(page: Path, tmp_path: Path) -> None:
    for block in blocks(read(page)):
        if block.language == "toml":
            shown = block.text
            if "name" not in tomllib.loads(shown):  # a part of a file, which needs the rest of it
                shown = re.sub(r"^\[(stage[12])\]$", r"[\1]\nsteps = 1", shown, flags=re.M)
                shown = 'name = "shown"\nsamples = "some.jsonl"\n' + shown
                shown += "" if "[stage1]" in shown else "\n[stage1]\nsteps = 1\n"
            (tmp_path / "shown.toml").write_text(shown, encoding="utf-8")
            load_config(TrainingConfig, tmp_path / "shown.toml")
