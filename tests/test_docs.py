"""README and docs say what is true: snippets run, shown output is real, tables are those of the results."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training.evaluation.page import refreshed

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.S | re.M)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a clone to the README's relative paths, and takes what its commands write."""
    shutil.copytree(ROOT / "pydeper" / "builtin", tmp_path / "pydeper" / "builtin")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_of_the_readme_runs_and_tells_two_people_apart(clone):
    (program,) = blocks("python")
    ana, ben = run([sys.executable, "-W", "error", "-c", program], clone).splitlines()
    assert ana != ben
    assert (clone / "ana.safetensors").stat().st_size < 4096


def test_the_shell_commands_of_the_readme_run(clone):
    commands = next(block for block in blocks("console") if "persona create" in block).splitlines()
    for command in commands:
        program, *arguments = command.split()
        assert program == "pydeper"
        output = run([sys.executable, "-m", "pydeper", *arguments], clone)
        assert output.strip()


def test_the_demo_prints_what_the_readme_shows(clone):
    shown = next(block for block in blocks("console") if block.startswith("$ make demo"))
    printed = run([sys.executable, "-m", "pydeper", "demo"], clone)
    for line in shown.splitlines()[1:]:
        assert line.strip() in printed


def test_the_readme_names_only_targets_that_make_knows():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", README, flags=re.M):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.parametrize("name", ["results.md", "results/scene_description.md"])
def test_the_tables_of_a_results_page_are_those_of_the_results(name):
    page = (ROOT / "docs" / name).read_text(encoding="utf-8")
    fresh = refreshed(page, ROOT / "docs" / "results")
    assert page == fresh, f"run `python -m training page docs/{name} --results docs/results`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
