"""Needs no detectron2: what is chosen with and without it."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from err_seg.commands.train import choose_engine
from err_seg.config import ConfigError
from tests.helpers.processes import hide_detectron2
from tests.helpers.toy import REPOSITORY


def test_without_detectron2_auto_is_plain_and_detectron2_an_error_with_the_install_line(monkeypatch):
    hide_detectron2(monkeypatch)
    assert choose_engine("plain") == ("plain", "as asked for")
    assert choose_engine("auto") == ("plain", "since detectron2 is not installed")
    with pytest.raises(
        ConfigError, match=r"--engine detectron2: .*pip install .*detectron2\.git@[0-9a-f]{40}"
    ) as caught:
        choose_engine("detectron2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "processes", "words"),
    [
        (("SOLVER.ACCUMULATION_STEPS", 2), 1, "SOLVER.ACCUMULATION_STEPS"),
        (("SOLVER.PARALLEL", "fsdp"), 1, "SOLVER.PARALLEL"),
        (("SOLVER.COMPILE", "eager"), 1, "SOLVER.COMPILE"),
        (("SOLVER.EMA.ENABLED", True), 1, "SOLVER.EMA.ENABLED"),
        (("MODEL.DISTILL.WEIGHTS", "mini"), 1, "MODEL.DISTILL.WEIGHTS"),
        ((), 2, "2 processes"),
    ],
)
def test_auto_is_plain_for_what_detectron2_cannot_do(toy_cfg, settings, processes, words):
    pytest.importorskip("err_seg.d2", exc_type=ImportError)
    cfg = toy_cfg(*settings)
    engine, reason = choose_engine("auto", training=cfg, processes=processes)
    assert engine == "plain"
    assert words in reason
    assert choose_engine("auto", training=toy_cfg()) == ("detectron2", "which is installed")
    assert choose_engine("detectron2", training=cfg, processes=processes)[0] == "detectron2"  # refuses by itself


def test_auto_asks_whether_detectron2_can(monkeypatch, toy_cfg):
    def refuse(cfg, processes):
        raise ConfigError(f"not in {processes} processes")

    monkeypatch.setitem(sys.modules, "err_seg.d2", sys)  # as if it could be imported
    monkeypatch.setitem(sys.modules, "err_seg.d2.config", SimpleNamespace(check_detectron2_can=refuse))
    reason = "since with detectron2: not in 3 processes"
    assert choose_engine("auto", training=toy_cfg(), processes=3) == ("plain", reason)
    assert choose_engine("auto") == ("detectron2", "which is installed")


def test_nothing_but_its_own_package_imports_detectron2():
    program = (
        "import pkgutil, sys, err_seg, err_seg.engine\n"
        "for package in ('engine', 'data', 'evaluation', 'jobs', 'modeling', 'prediction'):\n"
        "    for module in pkgutil.iter_modules([f'err_seg/{package}']):\n"
        "        try:\n"
        "            __import__(f'err_seg.{package}.{module.name}')\n"
        "        except ModuleNotFoundError as error:\n"
        "            assert error.name == 'ray', error\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'detectron2']\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True, timeout=120)
    files = [path for folder in ("err_seg", "tools") for path in (REPOSITORY / folder).rglob("*.py")]
    words = ("import detectron2", "from detectron2")
    importing = {path.parent.name for path in files if any(word in path.read_text("utf-8") for word in words)}
    assert importing == {"d2"}


def test_what_lacks_a_package_is_skipped_for_a_reason_that_names_it(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2/__init__.py").write_text("import a_package_that_nobody_has")
    files = [str(path) for path in (REPOSITORY / "tests/d2").glob("test_*.py") if path != Path(__file__)]
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-m", "not slow", "-p", "no:cacheprovider", *files],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout
    skips = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert len(skips) >= len(files)
    assert all("a_package_that_nobody_has" in line for line in skips)
