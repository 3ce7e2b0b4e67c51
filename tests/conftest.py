"""Toy networks that the whole test set shares, and a small disk."""

import os
import shutil
import signal
import subprocess

# before torch is loaded: on some processors sums differ from those of a process that is given one thread later
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

import err_seg
from err_seg.data.catalog import CATALOG
from tests.helpers.toy import TOY, liven

# their fixtures are for all tests
pytest_plugins = [f"tests.helpers.{name}" for name in ("training", "predicting", "plugins", "fake_cuda", "web_page")]


def pytest_configure(config):
    """Heed Ctrl-C: xdist's workers ignore it, and so would the processes that tests start and interrupt."""
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread():
    """Toy networks are too small for more, and sums keep their order."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def catalog_as_before():
    """Forget after a test the data sets that it registered."""
    specs = CATALOG._specs
    CATALOG._specs = dict(specs)
    yield
    CATALOG._specs = specs


@pytest.fixture(autouse=True, scope="session")
def no_contrast_unless_asked_for():
    """Leave random networks, which would find one of a thousand common names everywhere, to the names of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(err_seg.ERRSeg, "few_names", 0)
        yield


@pytest.fixture
def toy_cfg():
    """Return a function from overrides to the configuration of a toy network."""
    return lambda *overrides: err_seg.get_cfg(None, [*TOY, *overrides])


@pytest.fixture
def toy_model(toy_cfg):
    """Return a function from overrides to a toy network in which no signal vanishes."""

    def build(*overrides):
        model = err_seg.build_model(toy_cfg(*overrides))
        liven(model)
        return model

    return build


@pytest.fixture
def images():
    """Three images of unequal sizes, H×W×3 uint8."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in ((48, 80), (96, 64), (70, 70))
    ]


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 64 MB, in memory; return its folder and what fills it up."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounting.returncode:
        pytest.skip(f"no file system may be mounted here: {mounting.stderr.strip()}")

    def fill(leave=0):
        size = shutil.disk_usage(disk).free - leave
        with (disk / "ballast").open("ab") as file:
            file.write(b"\0" * max(size, 0))

    yield disk, fill
    subprocess.run(["umount", "--lazy", str(disk)], check=False)
