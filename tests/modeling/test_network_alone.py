"""The network stands alone, and names the places of the paper that it implements."""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest
from torch import nn

import err_seg.modeling
from tests.helpers.toy import REPOSITORY

MODULES = [name for _, name, _ in pkgutil.iter_modules(err_seg.modeling.__path__, "err_seg.modeling.")]
NOT_IN_THE_PAPER = {
    "ConvReLU6",
    "DeterministicResize",
    "FastViTEncoder",
    "GuidedConv2d",
    "GuidedLinear",
    "Linear",
    "PerClass",
}


def test_the_network_imports_neither_data_nor_drawing_nor_evaluation():
    program = f"import sys, {', '.join(MODULES)}; print(*(name for name in sys.modules if name.startswith('err_seg.')))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {name.split(".")[1] for name in done.stdout.split()} == {"modeling", "utils", "version"}


@pytest.mark.parametrize("module", MODULES)
def test_each_box_names_its_place_in_the_paper(module):
    for name, kind in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if kind.__module__ == module and issubclass(kind, nn.Module) and name not in NOT_IN_THE_PAPER:
            assert re.search(r"\(?paper\b|Table|Fig\.", kind.__doc__), f"{name} says nothing of the paper"
