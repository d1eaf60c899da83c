"""Every notebook runs from top to bottom, offline, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> int:
    return sum(cell.cell_type == "code" and bool(cell.outputs) for cell in notebook.cells)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebook_runs(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    kept, there = printed(notebook), sorted(FOLDER.iterdir())
    resources = {"metadata": {"path": str(FOLDER)}}  # where Jupyter starts it
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert printed(notebook) >= kept >= 4
    assert sorted(FOLDER.iterdir()) == there


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_kept_outputs_are_small_and_of_no_machine(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert "/tmp" not in text and "/home" not in text and "Traceback" not in text
