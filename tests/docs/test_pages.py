"""README and docs say what is true: what they show runs, links lead somewhere, references are those of the code."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import attrs
import pytest
import yaml

import pydeper
import pydeper.readers
from tests.support.docs_pages import (
    DOCS,
    ROOT,
    Reader,
    anchors,
    blocks,
    commands,
    links,
    matches,
    page_before,
    pages,
    runnable,
)
from tests.support.hub.server import HubServer
from training.config import TrainingConfig, load_config
from training.evaluation.page import refreshed
from training.tiny.config import TinyConfig

README = ROOT / "README.md"
TEXTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
TEXTS += [*sorted((ROOT / "examples").rglob("*.md")), *pages()]
# Those of the examples are followed in test_examples.py: one starts a server. Those of docs/results want recordings of
# people, which are not here; each is beside the figures that it made.
FOLLOWED = [
    page
    for page in TEXTS
    if not page.is_relative_to(ROOT / "examples")
    if any(runnable(block) and block.not_run is None for block in blocks(page.read_text("utf-8")))
]
PROGRAMS = {
    "pydeper": "pydeper.cli.main",
    "python -m training": "training.__main__",
    "python -m export": "export.__main__",
}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# --- what pages show, done


def _way(page: Path) -> object:
    """A page, and behind it those that go on in its folder."""
    way = [page, *(other for other in FOLLOWED if page_before(other) == page)]
    slow = [pytest.mark.slow, pytest.mark.timeout(1200)] if any("<!-- slow -->" in read(step) for step in way) else []
    return pytest.param(way, marks=slow, id=" then ".join(map(name, way)))


@pytest.mark.parametrize("way", [_way(page) for page in FOLLOWED if page_before(page) is None])
def test_a_page_can_be_followed_from_an_empty_folder(way: list[Path], tmp_path: Path) -> None:
    with a_hub(tmp_path / ".hub") if way[0].stem == "publish" else contextlib.nullcontext({}) as hub:
        reader = Reader(tmp_path, **hub)
        for page in way:
            done = reader.follow(page)
            assert done == sum(block.not_run is None and runnable(block) for block in blocks(read(page)))


def test_a_page_goes_on_from_a_page_that_is_followed() -> None:
    before = {page: page_before(page) for page in FOLLOWED}
    assert [page for page in before.values() if page]
    for first in filter(None, before.values()):
        assert before[first] is None  # a way has two pages at most


@contextlib.contextmanager
def a_hub(home: Path) -> Iterator[dict[str, str]]:
    """A stand-in for the Hub, and the environment that leads to it."""
    server = HubServer()
    environment = {key: value for key, value in server.environment(home).items() if key.startswith("HF_")}
    try:
        yield {**environment, "HF_HUB_OFFLINE": "0"}
    finally:
        server.shutdown()


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_what_is_not_run_says_why(page: Path) -> None:
    for block in blocks(read(page)):
        assert block.not_run is None or len(block.not_run) > 10, f"{name(page)}:{block.line}"


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "--- shown\n2"),
        ("```python\nprint(nothing)\n```\n", "NameError"),
        ("```python\nimport warnings\nwarnings.warn('old')\n```\n", "UserWarning"),
        ("```console\n$ echo one\ntwo\n```\n", "--- shown\ntwo"),
        ("```console\n$ false\n```\n", "exit status 1"),
        ("```console\nfalse | true\n```\n", "exit status 1"),
        ('```python title="a.py"\nraise SystemExit(3)\n```\n\n```console\npython a.py\n```\n', "exit status 3"),
    ],
)
def test_a_page_that_is_wrong_is_found_out(page: str, complaint: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.support.docs_pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(page)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        Reader(tmp_path / "folder").follow(tmp_path / "page.md")


def test_a_reader_keeps_what_the_steps_before_have_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.support.docs_pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "```console\nmkdir inner\ncd inner\nexport WHO=ana\n```\n\n```console\n$ basename $PWD; echo $WHO  # told\n"
        "inner\nana\n```\n\n```python\nx = 1\n```\n\n```python\nprint(x + 1)\n```\n\n```text\n2\n```\n\n"
        "<!-- not run: it would fail -->\n```console\nfalse\n```\n"
    )
    (tmp_path / "folder").mkdir()
    assert Reader(tmp_path / "folder").follow(tmp_path / "page.md") == 4


def test_three_dots_stand_for_anything() -> None:
    assert matches("a … d\n…\nz", "a b c d\ne\nf\nz\n")
    assert matches("one\n  two", "one\n  two")
    assert not matches("a … d", "a b c")
    assert not matches("one", "one\ntwo")


# --- README and home


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_prints_what_readme_and_home_show(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(read(README)) if block.text.startswith("$ make demo"))
    printed = run([sys.executable, "-m", "pydeper", "demo"], tmp_path)
    for line in block.text.splitlines()[1:]:
        assert line.strip() in printed
    quoted = re.findall(r"^> (.+)$", read(DOCS / "index.md"), flags=re.M)
    assert len(quoted) == 2
    for text in quoted:
        assert text in " ".join(printed.split())
    scene = ROOT / "pydeper/builtin/tiny/demo/scene.png"
    assert (DOCS / "assets/scene.png").read_bytes() == scene.read_bytes()


@pytest.mark.parametrize("page", ["results.md", "results/scene_description.md", "privacy.md"])
def test_the_tables_of_a_results_page_are_those_of_the_results(page: str) -> None:
    text = read(DOCS / page)
    fresh = refreshed(text, DOCS / "results")
    assert text == fresh, f"run `python -m training page docs/{page} --results docs/results`"
    for table in re.findall(r"<!-- results: .*?<!-- end of results -->", text, flags=re.S):
        assert re.search(r"^Made by `.+`\.", table, flags=re.M), f"{page}: a table without its command\n{table[:200]}"


# --- links, paths, commands, whether or not they are run


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    for path, anchor in links(read(page)):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if anchor and target.suffix == ".md":
            generated = cli_anchors() if target.name == "cli.md" else set()
            assert anchor in anchors(read(target)) | generated, f"{path}#{anchor}"


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_a_picture_is_told_to_those_who_do_not_see_it(page: Path) -> None:
    text = read(page)
    told = re.findall(r"!\[(.*?)\]\(", text, flags=re.S) + re.findall(r"<img [^>]*?alt=\"(.*?)\"", text, flags=re.S)
    assert len(told) == len(re.findall(r"!\[|<img ", text))
    assert all(len(alternative) > 20 for alternative in told)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_the_programs_know_every_command_that_is_shown(page: Path) -> None:
    text = read(page)
    shown = [
        command for block in blocks(text) if block.language in ("console", "bash") for command, _ in commands(block)
    ]
    for command in shown:
        check_command(command, whole=True)
    for command in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)):
        check_command(command, whole=False)


def check_command(command: str, *, whole: bool) -> None:
    """Asks the program's own parser; of what is not whole (in prose), only whether there is such a sub-command."""
    if found := re.search(r"\bmake ([a-z][\w-]*)$", command):
        makefile = read(ROOT / "Makefile")
        assert re.search(rf"^{found[1]}:", makefile, flags=re.M), command
    for module in re.findall(r"python -m (benchmarks[\w.]*)", command):
        assert importlib.util.find_spec(module), command
    for extras in re.findall(r"""pip install .*\[([\w,]+)\]["']""", command):
        project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), command
    command = re.sub(r"^(accelerate launch|ACCELERATE_|torchrun).* -m training", "python -m training", command)
    for program, module in PROGRAMS.items():
        if not re.match(rf"{program} [a-z]", command):
            continue
        words = shlex.split(re.split(r"\s(?:\||>|2>|&&)\s?", command)[0].removeprefix(program), comments=True)
        if whole and "…" not in command:
            parse(module, words, command)
        else:
            below = parser_of(module)
            for word in words:
                choices = next((a.choices for a in below._actions if isinstance(a, _SubParsersAction)), None)
                if choices is None:
                    break
                assert word in choices, command
                below = choices[word]


def parse(module: str, words: list[str], command: str) -> None:
    try:
        parser_of(module).parse_args(words)
    except SystemExit:
        pytest.fail(f"{module} does not know {command!r}")


def test_the_citation_is_of_this_version_and_names_the_papers_authors() -> None:
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert citation["version"] == pydeper.__version__
    paper = citation["preferred-citation"]
    assert len(paper["authors"]) == 8
    assert f"arXiv {paper['url'].rpartition('/')[2]}" in read(README)


# --- the reference


@cache
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks/generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def parser_of(module: str) -> ArgumentParser:
    parser: ArgumentParser = hooks().parser_of(module)
    return parser


@cache
def cli_anchors() -> set[str]:
    return anchors(hooks().on_page_markdown(read(DOCS / "reference/cli.md")))


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_commands_page_is_what_help_prints(program: str) -> None:
    text = hooks().commands_text(PROGRAMS[program])
    shown = dict(re.findall(r"### (.+?) \{.*?\n\n```.*?\n(.*?)```", text, flags=re.S))
    assert f"<!-- commands: {PROGRAMS[program]} -->" in read(DOCS / "reference/cli.md")
    assert len(shown) > 5
    # In processes of their own only the first and the last: each takes a second.
    for command in (program, list(shown)[-1]):
        environment = {**os.environ, "COLUMNS": hooks()._WIDTH, "PYTHONPATH": str(ROOT)}
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


def test_the_figures_of_the_real_size_are_those_of_its_benchmark() -> None:
    page, guide = read(DOCS / "real-size.md"), read(DOCS / "guides/precision-and-speed.md")
    small, large = (json.loads(read(DOCS / f"results/qwen2_vl_2b{pages}.json")) for pages in ("", "_large_pages"))
    for figure, file in ((small["ours, first token s"], guide), (small["ours, of which vision s"], guide)):
        assert f"{figure:.1f} s" in file
    assert f"{1000 / small['ours, tokens/s']:.0f} ms" in guide
    speed, first = "tokens/s", "first token s"
    rows = {
        "tokens per second while decoding": [
            f"{small[f'ours, {speed}']:.1f} | {small[f'transformers, {speed}']:.1f}",
            f"{small['decode against transformers']:.1f}×",
            f"{large[f'ours, {speed}']:.1f} against {large[f'transformers, {speed}']:.1f}",
        ],
        "first token, from the image file": [
            f"{small[f'ours, {first}']:.2f} s | {small[f'transformers, {first}']:.2f} s",
            f"{large[f'ours, {first}']:.2f} against {large[f'transformers, {first}']:.2f} s",
        ],
        "8 personas on one image, 64 tokens each": [f"{small['8 personas against one, seconds']:.1f}× one"],
        "decoding against what the memory allows": [f"{small['decode against the roofline']:.2f}"],
        "loading the model, files verified before": [f"{small['load s']:.1f} s", f"{large['load s']:.1f} s"],
        "most memory while describing one image": [
            f"{small['peak GiB of describing one image']:.1f} GiB | {small['transformers, peak GiB']:.1f} GiB"
        ],
    }
    for title, figures in rows.items():
        (row,) = re.findall(rf"^\| {re.escape(title)} \|.*$", page, flags=re.M)
        assert all(figure in row for figure in figures), f"{row}: not {figures}"


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


# --- the site


def shown_pages() -> list[Path]:
    """The pages that readers see: of docs/results those that explain, and not the tables which these hold already."""
    return [page for page in pages() if page.parent.name != "results" or "<!-- results: " in read(page)]


def test_the_site_builds_and_fetches_nothing_when_it_is_read(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the docs extra is not installed")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the docs extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    built = list(site.rglob("*.html"))
    shown = {site / page.relative_to(DOCS).with_suffix(".html") for page in shown_pages()}
    assert {*built} == {*shown, site / "changelog.html", site / "404.html"}
    for file in built:
        html = file.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(?:https?:)?//[^\"]+", html)
        fetched += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"(?:https?:)?//[^\"]+", html)
        assert not fetched, f"{file}: {fetched}"
    assert not list(site.rglob("*.py"))
    found = {entry["location"] for entry in json.loads(read(site / "search/search_index.json"))["docs"]}
    public = {f"reference/api.html#pydeper.{public}" for public in pydeper.__all__ if public != "__version__"}
    assert public <= found
    assert all(f'href="{location}"' in read(site / "reference.html") for location in public)
    # Read from disk, the search takes its index from a script, and a worker of our own.
    assert read(site / "search/search_index.js").startswith("var __index = {")
    assert 'src="javascripts/iframe-worker.js"' in read(site / "index.html")


def test_the_dockerfile_copies_what_is_there() -> None:
    (block,) = (block for block in blocks(read(DOCS / "guides/docker.md")) if block.title == "Dockerfile")
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", block.text, flags=re.M) for word in line.split()]
    assert len(copied) > 3
    for path in copied:
        assert (ROOT / path).exists(), path
    check_command(re.search(r"^RUN (.+)$", block.text, flags=re.M)[1], whole=True)  # type: ignore[index]
