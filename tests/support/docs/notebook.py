"""`python -m tests.support.docs.notebook`: runs the notebook and keeps what its cells print and draw, and no times."""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "examples" / "personas.ipynb"


def read_notebook() -> nbformat.NotebookNode:
    """The notebook as it is kept."""
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Runs a notebook's cells anew, in place, in a kernel of this Python; its files go into a folder."""
    for cell in notebook.cells:
        cell.pop("outputs", None)
        cell.metadata.pop("execution", None)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, record_timing=False, resources=resources).execute()


if __name__ == "__main__":
    renewed = read_notebook()
    with tempfile.TemporaryDirectory() as scratch:
        execute(renewed, Path(scratch))
    nbformat.write(renewed, NOTEBOOK)
