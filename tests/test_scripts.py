"""The shell scripts: what they hand on to Python, and what they say about wrong arguments."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.helpers.processes import run_script
from tests.helpers.toy import REPOSITORY

CONFIG = str(REPOSITORY / "configs/err_seg_convnext_b.yaml")
PRINTS_ITS_ARGUMENTS = '#!/bin/sh\nfor argument in "$@"; do echo "$argument"; done\n'


def make_python(file):
    """Put a stand-in for Python there that prints its arguments, a line each."""
    file.parent.mkdir(parents=True)
    file.write_text(PRINTS_ITS_ARGUMENTS)
    file.chmod(0o755)


@pytest.mark.parametrize("script", sorted((REPOSITORY / "scripts").glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    "arguments", [(), (CONFIG,), (CONFIG, "OUTPUT_DIR", "out"), (CONFIG, "0"), ("nowhere.yaml", "1")]
)
def test_train_explains_itself_on_wrong_arguments(arguments):
    done = run_script(REPOSITORY / "scripts/train.sh", *arguments, PYTHON="/bin/false")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: bash scripts/train.sh CONFIG_FILE NUM_GPUS")
    assert not done.stdout


@pytest.mark.parametrize("where", [".venv/bin/python", "other/bin/python", "python"])
def test_train_hands_everything_on_to_the_python_that_is_there(tmp_path, where):
    (tmp_path / "a repository/scripts").mkdir(parents=True)
    script = shutil.copy(REPOSITORY / "scripts/train.sh", tmp_path / "a repository/scripts")
    root = tmp_path / "a repository"
    make_python(root / "deeper" / where if where == "python" else root / where)
    chosen = {
        ".venv/bin/python": {},
        "other/bin/python": {"ERR_SEG_VENV": str(root / "other")},
        "python": {"PYTHON": str(root / "deeper/python")},
    }
    (tmp_path / "my own.yaml").write_text("")  # paths are relative to where the command is given
    arguments = ("--machine-rank", "1", "OUTPUT_DIR", "out put")
    done = run_script(script, "my own.yaml", 4, *arguments, folder=tmp_path, **chosen[where])
    assert done.returncode == 0, done.stderr
    program, *handed_on = done.stdout.splitlines()
    assert os.path.realpath(program) == str((root / "tools/train_net.py").resolve())
    assert handed_on == ["--config-file", "my own.yaml", "--num-gpus", "4", "--resume", *arguments]


def test_train_ends_with_the_status_of_the_command():
    variables = {"ERR_SEG_VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
    done = run_script(REPOSITORY / "scripts/train.sh", CONFIG, 1, "SOLVER.MAX_ITR", 1, **variables)
    assert done.returncode == 1
    assert "error: unknown key SOLVER.MAX_ITR" in done.stderr
    assert "did you mean SOLVER.MAX_ITER?" in done.stderr
