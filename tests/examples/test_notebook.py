"""The notebook is kept with what it prints and draws; run anew, it does the same."""

import copy

import nbformat
import pytest

import pydeper
from pydeper import DeperModel, Persona
from tests.support.docs.notebook import execute, read_notebook


@pytest.fixture(scope="module")
def kept() -> nbformat.NotebookNode:
    return read_notebook()


@pytest.fixture(scope="module")
def executed(kept, tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook, run anew."""
    notebook = copy.deepcopy(kept)
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLCONFIGDIR", str(folder))
        execute(notebook, folder)
    return notebook


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What each cell prints; a kernel may send that in one piece or in several."""
    return [
        "".join(output.text for output in cell.get("outputs", []) if output.get("name") == "stdout")
        for cell in notebook.cells
    ]


def drawn(notebook: nbformat.NotebookNode) -> list[int]:
    """The numbers of the cells with a figure."""
    return [
        number
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def test_it_prints_what_it_is_kept_with(kept, executed):
    assert printed(executed) == printed(kept), "run `make notebook`"


def test_it_is_kept_without_the_times_of_its_run(kept):
    assert not [cell.id for cell in kept.cells if "execution" in cell.metadata]


def test_its_blends_end_in_what_each_of_the_two_would_say(executed):
    model = DeperModel.from_pretrained("tiny", threads=1)
    for share, name in ((0, "ana"), (100, "ben")):
        persona = Persona.from_samples(pydeper.demo_samples(name), model=model)
        said = f"{share}% ben: {model.describe(pydeper.demo_image(), persona)}\n"
        assert any(said in text for text in printed(executed))


def test_it_draws_what_it_is_kept_with(kept, executed):
    assert len(drawn(executed)) == 3
    assert drawn(executed) == drawn(kept)


def test_it_warns_of_nothing(executed):
    assert not [
        output for cell in executed.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
