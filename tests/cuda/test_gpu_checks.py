"""The checks that need a GPU, rehearsed on the CPU."""

import re
import sys

import pytest
import torch

from err_seg.gpu_checks import CHECKS, Trial, checks, run_checks
from err_seg.gpu_checks.trial import Finding
from tests.helpers.processes import run_script
from tests.helpers.toy import REPOSITORY
from tests.helpers.training import environment

IN_THIS_PROCESS = ["compare", "benchmark", "precisions", "waiting", "profile", "memory"]


@pytest.fixture
def trial(tmp_path):
    torch.set_num_threads(1)
    return Trial(torch.device("cpu"), tmp_path)


def test_checks_in_one_process(trial):
    told = []
    page, passed = run_checks(trial, IN_THIS_PROCESS, told.append)
    assert passed, page
    assert [line.split(" (")[0] for line in told] == [
        *("compare: passed", "benchmark: left out", "precisions: passed", "waiting: left out", "profile: passed"),
        "memory: passed",
    ]
    assert page.startswith("# GPU checks: none: a rehearsal on the CPU\n")
    assert "| off | 100.00% | 0 | 100.0000% |" in page
    assert re.search(r"^\| bf16 \| 0\.\d{4} \| 0\.\d{4} \| none \| 0 \|", page, re.MULTILINE)
    assert re.search(r"^\| K = 8, bf16 +\|", page, re.MULTILINE)
    assert "3 images of 200×300" in page
    assert "fp16 is left out" in page


def test_a_check_that_raises_has_failed_and_the_others_follow(trial, monkeypatch):
    def breaks(trial):
        """Break."""
        raise RuntimeError("a fault of the card")

    def works(trial):
        """Work."""
        return Finding(True, ["as it should be"])

    monkeypatch.setattr(checks, "CHECKS", {"first": breaks, "second": works})
    page, passed = run_checks(trial, ["first", "second"], print)
    assert not passed
    assert "| first | **failed** | Break. |" in page
    assert "RuntimeError: a fault of the card" in page
    assert "| second | passed | Work. |" in page


def test_without_a_gpu_the_command_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run_script(REPOSITORY / "scripts/gpu_checks.sh", "--output", tmp_path / "out", **variables())
    assert done.returncode == 1
    assert done.stderr.startswith("error: MODEL.DEVICE: cannot use 'cuda'")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_whole_command_rehearsed(tmp_path):
    done = run_script(
        REPOSITORY / "scripts/gpu_checks.sh", "--device", "cpu", "--output", tmp_path / "out", **variables()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "out/rehearsal.md").read_text()
    for name in CHECKS:
        assert re.search(rf"^## {name}: (passed|left out)$", page, re.MULTILINE)
    assert re.search(r"^\| True \| \d+ s \| 143 \| \d \| 0 \| 0 \|$", page, re.MULTILINE)
    assert "2 processes over gloo" in page


def variables():
    return {**environment(), "PYTHON": sys.executable, "ERR_SEG_VENV": sys.prefix}
