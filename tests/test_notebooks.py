"""The notebooks run from their first cell to their last, offline, on what comes with the program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import ROOT

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def test_they_are_linked_and_kept_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    listed = (ROOT / "docs/notebooks/index.md").read_text()
    for file in NOTEBOOKS:
        assert f"]({file.name})" in listed
        notebook = nbformat.read(file, as_version=4)
        nbformat.validate(notebook)
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    assert len(NOTEBOOKS) == 2


@pytest.mark.nightly
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_they_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(file, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # raises with the cell's error
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    told = "".join(output.text for output in outputs if output.get("name") == "stdout")
    if "own_pictures" in file.stem:
        assert any("image/png" in output.get("data", {}) for output in outputs)
        assert told.count("IoU") == 3
    else:
        changes = [
            float(line.rpartition(" ")[2]) for line in told.splitlines() if line.startswith("largest change")
        ]
        assert len(changes) == 2
        assert max(changes) < 1e-4
