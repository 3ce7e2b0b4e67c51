"""The commands: help, version and mistakes load nothing heavy; the scripts of a checkout call them."""

import subprocess
import sys

import pytest

from err_seg.commands import COMMANDS
from err_seg.commands.options import reporting_errors
from err_seg.utils.errors import RunError, TrainingInterrupted
from err_seg.version import __version__
from tests.helpers.toy import REPOSITORY

HEAVY = {"torch", "torchvision", "timm", "open_clip", "numpy", "matplotlib", "scipy", "PIL", "fvcore", "rich", "gradio"}
REPORT = f"""
import atexit, runpy, sys
atexit.register(lambda: print("heavy:", *sorted({HEAVY} & set(sys.modules))))
sys.argv = sys.argv[1:]
if sys.argv[0].endswith(".py"):
    runpy.run_path(sys.argv[0], run_name="__main__")
else:
    runpy.run_module(sys.argv[0], run_name="__main__")
"""
SCRIPTS = [*sorted((REPOSITORY / "tools").glob("*.py")), REPOSITORY / "datasets/prepare.py"]


def run_and_list_imports(*arguments):
    """Run ``python -m err_seg`` or a script in a process of its own: status, text, heavy imports."""
    command = [sys.executable, "-c", REPORT, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    printed, _, heavy = done.stdout.rpartition("heavy:")
    return done.returncode, printed + done.stderr, heavy.split()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_and_version_load_nothing_heavy(arguments):
    status, text, heavy = run_and_list_imports("err_seg", *arguments)
    assert (status, heavy) == (0, [])
    if arguments == ["--version"]:
        assert text.strip() == f"err_seg {__version__}"
    elif arguments == ["--help"]:
        assert all(f"  {name} " in text for name in COMMANDS)
    else:
        assert text.startswith(f"usage: err-seg {arguments[0]}")
        assert text.count(f"    err-seg {arguments[0]}") >= 2, "two examples"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_in_the_arguments_is_told_without_loading_anything_heavy(name):
    status, text, heavy = run_and_list_imports("err_seg", name, "--nonsense")
    assert (status, heavy) == (2, [])
    assert f"err-seg {name}" in text


def test_an_unknown_command_is_refused_with_the_known_ones():
    status, text, heavy = run_and_list_imports("err_seg", "nonsense")
    assert (status, heavy) == (2, [])
    assert "'nonsense'" in text
    assert "benchmark" in text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_of_a_checkout_are_the_commands(script):
    assert len(script.read_text().splitlines()) <= 12
    status, text, heavy = run_and_list_imports(script, "--help")
    assert (status, heavy) == (0, [])
    assert text.startswith("usage: err-seg ")


def test_the_choices_are_those_of_the_code():
    from err_seg.commands import mini
    from err_seg.config import constants
    from err_seg.data.preparation.conversions import CONVERSIONS
    from err_seg.jobs import FORMATS
    from err_seg.mini.canvas import LEVELS
    from err_seg.mini.sampling import SPLITS
    from err_seg.mini.vocabulary import CLASS_SETS
    from err_seg.models import hub
    from err_seg.utils.device import PRECISIONS

    assert tuple(hub.MODELS) == constants.MODEL_NAMES
    assert ("auto", *PRECISIONS) == constants.PRECISIONS
    assert tuple(FORMATS) == constants.FORMATS
    assert tuple(CONVERSIONS) == constants.PREPARED
    assert (SPLITS, tuple(LEVELS), tuple(CLASS_SETS)) == (mini.SPLITS, mini.LEVELS, mini.CLASS_SETS)


def test_importing_the_package_loads_nothing_heavy_and_its_names_are_there():
    code = f"import sys, err_seg; print(sorted({HEAVY} & set(sys.modules)), dir(err_seg)); err_seg.data.register"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] [")
    import err_seg

    assert all(getattr(err_seg, name) is not None for name in err_seg.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = err_seg.nonsense


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (None, 0, ""),
        (ValueError("wrong"), 5, "error: wrong\n"),
        (FileNotFoundError("no file"), 5, "error: no file\n"),
        (RunError("stopped at iteration 3"), 5, "error: stopped at iteration 3\n"),
        (TrainingInterrupted("saved; rerun with --resume", 15), 143, "SIGTERM: saved; rerun with --resume\n"),
        (KeyboardInterrupt(), 130, "interrupted; the same command continues\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_stops_a_command_is_one_line_and_its_status(capsys, error, status, printed):
    @reporting_errors(5, "the same command continues")
    def main():
        if error:
            raise error

    assert (main(), capsys.readouterr().err) == (status, printed)


def test_an_interrupt_that_a_command_does_not_explain_is_python_s():
    @reporting_errors(1)
    def main():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        main()
