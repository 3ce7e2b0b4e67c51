"""The notebook of first steps runs from top to bottom, and was committed as it runs."""

import ast
import json
import shutil

import pytest

from err_seg import Segmentation
from tests.helpers.toy import REPOSITORY

NOTEBOOK = json.loads((REPOSITORY / "examples/first_steps.ipynb").read_text(encoding="utf-8"))
CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def run(source, names):
    """Run a cell as a notebook does, and return the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


def test_it_runs(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "examples").mkdir()
    shutil.copy(REPOSITORY / "docs/scene.png", tmp_path / "docs")
    monkeypatch.chdir(tmp_path / "examples")
    names: dict = {}
    values = [run("".join(cell["source"]), names) for cell in CELLS]
    shown = [value for value in values if isinstance(value, Segmentation)]
    assert len(shown) == 2
    assert all(result._repr_jpeg_() for result in shown)
    printed = capsys.readouterr().out
    for word in ("red square", "blue cross", "60 words"):
        assert word in printed
    assert values[-1] == ["labels.png", "overlay.png", "scene.geojson", "scene.json"]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell["id"])
def test_its_outputs_are_there(cell):
    assert cell["execution_count"] is not None
    assert not any(output["output_type"] == "error" or output.get("name") == "stderr" for output in cell["outputs"])
