"""Pages of the docs as a reader uses them: their fenced blocks, followed in order from an empty folder.

What a block is, is seen from its fence, as a reader sees it:

- ``python``: typed into one Python session that lasts for the whole page, in which warnings are errors.
- ``console`` or ``bash``: run by a shell. Where lines begin with ``$ `` these are the commands, and what stands below
  one is its output (progress bars and warnings, on stderr, are not shown); otherwise every line is a command.
- any language with ``title="FILE"``: saved as that file.
- ``text`` directly below a ``python`` block: the output of that block.

In an output, … stands for anything. Four comments change that: ``<!-- not run: REASON -->`` above a block;
``<!-- in a clone -->`` and ``<!-- slow -->`` for the whole page; ``<!-- after: PAGE -->`` for a page that goes on in
the folder that another one has made.
"""

import contextlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import attrs

from tests.support.hub.server import HubServer
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PROGRAMS = {
    "pydeper": "pydeper.cli.main",
    "python -m training": "training.__main__",
    "python -m export": "export.__main__",
}
OF_A_CLONE = ("pydeper", "training", "export", "benchmarks", "tests", "docs", "Makefile")

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w+-]+)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.S | re.M
)
_NOT_RUN = re.compile(r"<!-- not run: (.*?) -->\s*\Z")
_TITLE = re.compile(r'title="([^"]+)"')

# Reads requests (JSON lines: a block's code and name), answers with its output; a traceback ends it.
_SESSION = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    request = json.loads(line)
    output = io.StringIO()
    failed = False
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            exec(compile(request["code"], request["name"], "exec"), names)
        except BaseException:
            failed = True
            traceback.print_exc()
    print(json.dumps({"output": output.getvalue(), "failed": failed}), flush=True)
"""


@attrs.frozen
class Block:
    """One fenced block.

    Attributes:
        line: Where its fence opens, from 1 on.
        language: What the fence says.
        text: What is inside, without the fence's own indentation.
        title: The file that it is, or None.
        not_run: Why it is not run, or None.
        output: The `text` block directly below, or None.
    """

    line: int
    language: str
    text: str
    title: str | None
    not_run: str | None
    output: str | None = None


def pages() -> list[Path]:
    """All pages of the site."""
    return sorted(DOCS.rglob("*.md"))


TEXTS = [README, *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY"))]
TEXTS += [*sorted((ROOT / "examples").rglob("*.md")), *pages()]


def name(page: Path) -> str:
    """How a test calls a page."""
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    """A page's text."""
    return page.read_text(encoding="utf-8")


def ways() -> list[list[Path]]:
    """The pages that can be followed, each with those that go on in its folder.

    Not those of the examples, which their own tests follow: one starts a server.
    """
    followed = [
        page
        for page in TEXTS
        if not page.is_relative_to(ROOT / "examples")
        if any(runnable(block) and block.not_run is None for block in blocks(read(page)))
    ]
    return [
        [first, *(page for page in followed if page_before(page) == first)]
        for first in followed
        if page_before(first) is None
    ]


# --- blocks


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page's text, in order; an output is with the block that prints it."""
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(page):
        between, end_before = page[end : match.start()], end
        end = match.end()
        text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.M)
        is_output = match["language"] == "text" and end_before and not between.strip()
        if is_output and found[-1].language == "python" and found[-1].title is None:
            found[-1] = attrs.evolve(found[-1], output=text)
            continue
        title, not_run = _TITLE.search(match["options"]), _NOT_RUN.search(between)
        line = page[: match.start()].count("\n") + 1
        found.append(Block(line, match["language"], text, title and title[1], not_run and not_run[1]))
    return found


def runnable(block: Block) -> bool:
    """Whether a reader has something to do here."""
    return block.title is not None or block.language in ("python", "console", "bash")


def page_before(page: Path) -> Path | None:
    """The page in whose folder a page goes on, or None."""
    found = re.search(r"<!-- after: (\S+) -->", page.read_text(encoding="utf-8"))
    return found and (page.parent / found[1]).resolve()


def commands(block: Block) -> list[tuple[str, str | None]]:
    """The commands of a console block, each with its output where one is shown."""
    text = block.text.replace("\\\n", "")
    if not re.search(r"^\$ ", text, flags=re.M):
        lines = (re.sub(r"\s+# .*", "", line) for line in text.splitlines())
        return [(line, None) for line in lines if line.strip() and not line.startswith("#")]
    found = []
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        found.append((command, output if output.strip() else None))
    return found


def matches(shown: str, printed: str) -> bool:
    """Whether an output is what a page shows; … stands for anything, and tables may have columns of other widths."""
    shown, printed = map(_without_padding, (shown, printed))
    pattern = r"\s*\n".join(".*?".join(map(re.escape, line.rstrip().split("…"))) for line in shown.strip().splitlines())
    return re.fullmatch(pattern, printed.strip(), flags=re.S) is not None


def _without_padding(text: str) -> str:
    """A text whose tables have columns no wider than their cells: a figure with a sign widens all cells above it."""

    def narrow(row: re.Match[str]) -> str:
        return re.sub(r" {2,}", " ", re.sub(r"-{2,}", "--", row[0]))

    return re.sub(r"^\|.*\|$", narrow, text, flags=re.M)


@contextlib.contextmanager
def environment_of(way: Sequence[Path], folder: Path) -> Iterator[dict[str, str]]:
    """What pages want of their surroundings: those about publishing, a stand-in for the Hub."""
    if way[0].stem != "publish":
        yield {}
        return
    server = HubServer()
    environment = {key: value for key, value in server.environment(folder / ".hub").items() if key.startswith("HF_")}
    try:
        yield {**environment, "HF_HUB_OFFLINE": "0"}
    finally:
        server.shutdown()


class Reader:
    """Somebody who does what a page says, step by step, in one folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        home = folder / ".home"
        home.mkdir()
        self._folder = folder
        self._environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            **environment,
        }
        self._session: subprocess.Popen[str] | None = None

    def follow(self, page: Path) -> int:
        """Follows a page to its end; returns how many blocks were run.

        Raises:
            AssertionError: A block failed, or printed something else than the page shows; names the page and the line.
        """
        text = page.read_text(encoding="utf-8")
        if "<!-- in a clone -->" in text:
            for name in OF_A_CLONE:
                if not (self._folder / name).exists():
                    (self._folder / name).symlink_to(ROOT / name)
        done = 0
        try:
            for block in blocks(text):
                if block.not_run is None and runnable(block):
                    self.do(block, f"{page.relative_to(ROOT)}:{block.line}")
                    done += 1
        finally:
            if self._session is not None:
                self._session.kill()  # it waits for more to do, or never ends
                self._session.communicate()
                self._session = None
        return done

    def do(self, block: Block, place: str) -> None:
        """Does what one block says; its place is told where that fails."""
        if block.title is not None:
            path = self._folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self.compare(block.output, self._python(block.text, place), place)
        else:
            for command, output in commands(block):
                self.compare(output, self.shell(command, f"{place}: {command}"), f"{place}: {command}")

    def compare(self, shown: str | None, printed: str, place: str) -> None:
        """Holds what a page shows against what was printed."""
        assert shown is None or matches(shown, printed), f"{place}\n--- shown\n{shown}\n--- printed\n{printed}"

    def _python(self, code: str, place: str) -> str:
        if self._session is None:
            self._session = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", _SESSION], cwd=self._folder, env=self._environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
            )  # fmt: skip
        assert self._session.stdin is not None
        assert self._session.stdout is not None
        self._session.stdin.write(json.dumps({"code": code, "name": place}) + "\n")
        self._session.stdin.flush()
        answer = json.loads(self._session.stdout.readline())
        assert not answer["failed"], f"{place}\n{answer['output']}"
        return str(answer["output"])

    def shell(self, command: str, place: str) -> str:
        """What a command prints, run where the commands before it left off."""
        # What a command exports, and where it goes, is there for the next one.
        state = self._folder / ".home" / "state"
        remember = f"{{ export -p; echo cd \"'$PWD'\"; }} > '{state}'"
        script = f"[ ! -e '{state}' ] || . '{state}'\n{command}\nstatus=$?\n{remember}\nexit $status"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script], cwd=self._folder, env=self._environment, text=True,
            capture_output=True, check=False, encoding="utf-8",
        )  # fmt: skip
        assert done.returncode == 0, f"{place}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


# --- links


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as the site makes them."""
    prose = _FENCE.sub("", page)
    taken: dict[str, int] = {}
    found = set(re.findall(r'<a id="([\w-]+)"', prose))
    for heading in re.findall(r"^#{1,6} (.+?)\s*$", prose, flags=re.M):
        if own := re.search(r"\{ *#([\w-]+) *\}$", heading):
            found.add(own[1])
            continue
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain, flags=re.ASCII).strip().lower())
        found.add(slug if slug not in taken else f"{slug}_{taken[slug]}")
        taken[slug] = taken.get(slug, 0) + 1
    return found


def links(page: str) -> Iterator[tuple[str, str]]:
    """The links and pictures of a page that stay in this repository: (path, anchor), either of which may be empty."""
    prose = _FENCE.sub("", page)
    found = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:href|src)="([^"]+)"', prose)
    for target in found:
        if not target.startswith(("http://", "https://", "mailto:")):
            path, _, anchor = target.partition("#")
            yield path, anchor


# --- what the site makes from the code


def build_site(folder: Path) -> None:
    """Builds the site into a folder, as `make docs` does.

    Raises:
        AssertionError: MkDocs complains.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@cache
def hooks() -> ModuleType:
    """The module that fills in the reference when the site is built."""
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def parser_of(module: str) -> ArgumentParser:
    """The parser of a program's command line."""
    parser: ArgumentParser = hooks().parser_of(module)
    return parser


@cache
def cli_anchors() -> set[str]:
    """The anchors of the page of commands, most of which the site makes."""
    return anchors(hooks().on_page_markdown(read(DOCS / "reference/cli.md")))
