"""The checks that need a GPU, rehearsed on the CPU."""

import re
import sys

import pytest
import torch

from tests.gpu.page import Page
from tests.gpu.run import CHECKS
from tests.gpu.trial import Trial
from tests.helpers.processes import run_script
from tests.helpers.toy import REPOSITORY
from tests.helpers.training import environment

pytest_plugins = "pytester"

IN_ONE_PROCESS = ["compare", "benchmark", "precisions", "waiting", "profile", "memory"]


def run_checks(*arguments):
    return run_script(
        REPOSITORY / "scripts/gpu_checks.sh",
        *arguments,
        **environment() | {"PYTHON": sys.executable, "ERR_SEG_VENV": sys.prefix},
    )


def test_checks_in_one_process(tmp_path):
    chosen = ["--only", *IN_ONE_PROCESS, "--page", tmp_path / "page.md"]
    done = run_checks("--device", "cpu", "--output", tmp_path / "out", *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "page.md").read_text()
    assert re.findall(r"^## (.*)", page, re.MULTILINE) == [
        *("compare: passed", "benchmark: left out", "precisions: passed", "waiting: left out", "profile: passed"),
        "memory: passed",
    ]
    assert page.startswith("# GPU checks: none: a rehearsal on the CPU\n")
    assert "| off | 100.00% | 0 | 100.0000% |" in page
    assert re.search(r"^\| bf16 \| 0\.\d{4} \| 0\.\d{4} \| none \| 0 \|", page, re.MULTILINE)
    assert re.search(r"^\| K = 8, bf16 +\|", page, re.MULTILINE)
    assert "3 images of 200×300" in page
    assert "fp16 is left out" in page


def test_a_check_that_raises_has_failed_and_the_others_follow(pytester):
    pytester.makeconftest("from tests.gpu.conftest import lines")
    pytester.makepyfile(
        '''
        def test_first(lines):
            """Break."""
            lines.append("so far")
            raise RuntimeError("a fault of the card")

        def test_second(lines):
            """Work."""
            lines.append("as it should be")

        def test_third(lines):
            """Not chosen."""
        '''
    )
    page = Page(Trial(torch.device("cpu"), pytester.path), ["first", "second"])
    pytester.inline_run(plugins=[page]).assertoutcome(passed=1, failed=1)
    text = page.text()
    assert "| first | **failed** | Break. | 0 s |\n| second | passed | Work. | 0 s |\n" in text
    assert re.search(
        r"## first: failed\n\nBreak\.\n\nso far\n\n```\n.*RuntimeError: a fault of the card", text, re.DOTALL
    )
    assert "## second: passed\n\nWork.\n\nas it should be\n" in text
    assert "third" not in text


def test_without_a_gpu_the_command_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run_checks("--output", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: MODEL.DEVICE: cannot use 'cuda'")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_command_rehearsed(tmp_path):
    done = run_checks("--device", "cpu", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "out/rehearsal.md").read_text()
    for name in CHECKS:
        assert re.search(rf"^## {name}: (passed|left out)$", page, re.MULTILINE)
    assert re.search(r"^\| True \| \d+ s \| 143 \| \d \| 0 \| 0 \|$", page, re.MULTILINE)
    assert "2 processes over gloo" in page
