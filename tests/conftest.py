"""Toy networks that the whole test set shares, and a small disk."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

# before torch is loaded: on some processors sums differ from those of a process that is given one thread later
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

import err_seg
from err_seg.data.catalog import CATALOG

# their fixtures are for all tests
pytest_plugins = ["toy_training", "predicting", "fake_cuda", "web_page"]

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
SHARED = REPOSITORY.parent / "shared"

TOY = [
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.CLIP.NAME", str(TESTS / "toy_clip.json")),
    *("MODEL.TEXT.CACHE_DIR", "none"),
    *("MODEL.CRM.NUM_KEPT", 4),
    *("MODEL.CRM.NUM_KEPT_TRAIN", 4),
    *("MODEL.COST_EMBEDDING.HIDDEN_DIM", 8),
    *("MODEL.COST_EMBEDDING.DIM", 16),
    *("MODEL.ESCF.NUM_LAYERS", 2),
    *("MODEL.ESCF.GUIDANCE_DIM", 8),
    *("MODEL.ESCF.GUIDANCE_HIDDEN_DIM", 8),
    *("MODEL.GUD.DIMS", [16, 8, 8]),
    *("MODEL.GUD.GUIDANCE_DIMS", [8, 4, 4]),
    *("INPUT.SIZE", 64),
    *("INPUT.CROP_SIZE", 64),
    *("INPUT.MIN_SIZE_TRAIN", [64]),
    *("INPUT.MIN_SIZE_TEST", 64),
    *("DATALOADER.NUM_WORKERS", 0),
]
VOCABULARY = ("cat", "grass", "sky", "tree", "dog", "sofa, couch", "traffic light")


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


def liven(model):
    """Give a random network the contrasts that training would: scale what is initialised to next to nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
            elif parameter.dim() > 1 and not name.startswith("encoder.clip.token"):
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)


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
