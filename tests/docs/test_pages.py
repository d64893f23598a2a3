"""README and docs say what is true: what they show runs, and links, paths and commands lead somewhere."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from argparse import _SubParsersAction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import pydeper
import pydeper.readers
from tests.support.docs.outputs import Writer
from tests.support.docs.pages import (
    DOCS,
    PROGRAMS,
    README,
    ROOT,
    TEXTS,
    Reader,
    anchors,
    blocks,
    cli_anchors,
    commands,
    environment_of,
    links,
    matches,
    name,
    page_before,
    parser_of,
    read,
    runnable,
    ways,
)
from training.evaluation.page import refreshed

# --- what pages show, done


def _way(way: list[Path]) -> object:
    slow = [pytest.mark.slow, pytest.mark.timeout(1200)] if any("<!-- slow -->" in read(step) for step in way) else []
    return pytest.param(way, marks=slow, id=" then ".join(map(name, way)))


@pytest.mark.parametrize("way", [_way(way) for way in ways()])
def test_a_page_can_be_followed_from_an_empty_folder(way: list[Path], tmp_path: Path) -> None:
    with environment_of(way, tmp_path) as environment:
        reader = Reader(tmp_path, **environment)
        for page in way:
            done = reader.follow(page)
            assert done == sum(block.not_run is None and runnable(block) for block in blocks(read(page)))


def test_a_page_goes_on_from_a_page_that_is_followed() -> None:
    going_on = {page: page_before(page) for page in TEXTS if page_before(page)}
    assert going_on
    for page, first in going_on.items():
        assert any(way[0] == first and page in way for way in ways())  # a way has two pages at most


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
    monkeypatch.setattr("tests.support.docs.pages.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(page)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        Reader(tmp_path / "folder").follow(tmp_path / "page.md")


def test_a_reader_keeps_what_the_steps_before_have_made(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.support.docs.pages.ROOT", tmp_path)
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


def test_a_tables_columns_may_be_of_other_widths() -> None:
    shown = "| a   |  …b |\n| --- | --: |\n| DEPER | 0.… |"
    printed = "| a     |       1 b |\n| ----- | --------: |\n| DEPER |      0.25 |"
    assert matches(shown, printed)
    assert not matches(shown, printed.replace("0.25", "1.25"))
    assert not matches("a  b", "a b")


def test_what_a_page_shows_can_be_renewed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.support.docs.pages.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(2)\n```\n\n```text\n1\n```\n\n1. A list\n\n    ```console\n    $ echo one; echo two\n"
        "    o…e\n    three\n    $ seq 4\n    1\n    …\n    5\n    ```\n\n```console\n$ echo kept\nk…\n```\n"
    )
    (tmp_path / "folder").mkdir()
    writer = Writer(tmp_path / "folder")
    assert writer.rewrite(page) == 1  # of what follows three dots, only a person knows which lines are meant
    shown = page.read_text()
    assert "```text\n2\n```" in shown
    assert "    $ echo one; echo two\n    o…e\n    two\n    $ seq 4\n    1\n    …\n    5\n" in shown
    assert "k…" in shown


# --- README and home


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    (block,) = (block for block in blocks(read(README)) if block.text.startswith("$ make demo"))
    printed = run([sys.executable, "-m", "pydeper", "demo"], tmp_path)
    for line in block.text.splitlines()[1:]:
        assert line.strip() in printed


def test_the_badges_are_true() -> None:
    badges = re.findall(r"^!\[(.+?)\]\(https://img\.shields\.io/badge/", read(README), flags=re.M)
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    versions = [name.rpartition(" ")[2] for name in project["classifiers"] if "Python :: 3." in name]
    assert badges == [
        f"Runs on Python {versions[0]} to {versions[-1]}",
        f"Licensed under {project['license']}",
        "Runs on ONNX Runtime or OpenVINO, never torch",  # tests/pydeper/test_import.py
    ]
    assert project["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize(
    "page", ["results.md", "results/scene_description.md", "privacy.md", "guides/scale.md", "guides/ship.md"]
)
def test_the_tables_of_a_results_page_are_those_of_the_results(page: str) -> None:
    text = read(DOCS / page)
    fresh = refreshed(text, DOCS / "results")
    assert text == fresh, f"run `python -m training page docs/{page} --results docs/results`"
    for table in re.findall(r"<!-- results: .*?<!-- end of results -->", text, flags=re.S):
        assert re.search(r"^Made by `.+`\.", table, flags=re.M), f"{page}: a table without its command\n{table[:200]}"


@pytest.mark.parametrize("page", ["results.md", "results/scene_description.md"])
def test_figures_that_the_text_quotes_are_those_of_the_results(page: str) -> None:
    text = "\n".join(line for line in read(DOCS / page).splitlines() if not line.startswith("|"))
    found = re.findall(r"(-?\d?\.\d+)\s\[(-?\d?\.\d+),\s(-?\d?\.\d+)\]", text)
    assert found
    measured = np.array([figure for path in (DOCS / "results").rglob("*.json") for figure in intervals(read(path))])
    losses = -measured[:, [0, 2, 1]]  # "it costs .02 [.01, .03]"
    for figures in found:
        tolerance = 0.51 * 10.0 ** -len(figures[0].partition(".")[2])
        off = np.abs(np.concatenate([measured, losses]) - np.array(figures, float)).max(axis=1)
        assert off.min() <= tolerance, f"no result is {figures[0]} [{figures[1]}, {figures[2]}]"


def intervals(text: str) -> list[tuple[float, float, float]]:
    """All figures with an interval in a file of results."""
    found = []

    def collect(item: dict[str, Any]) -> dict[str, Any]:
        if {"value", "low", "high"} <= set(item) and None not in item.values():
            found.append((item["value"], item["low"], item["high"]))
        return item

    json.loads(text, object_hook=collect)
    return found


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


def test_the_dockerfile_copies_what_is_there() -> None:
    (block,) = (block for block in blocks(read(DOCS / "guides/docker.md")) if block.title == "Dockerfile")
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", block.text, flags=re.M) for word in line.split()]
    assert len(copied) > 3
    for path in copied:
        assert (ROOT / path).exists(), path
    check_command(re.search(r"^RUN (.+)$", block.text, flags=re.M)[1], whole=True)  # type: ignore[index]
