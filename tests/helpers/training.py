"""A few images on disk, and the configuration to train and evaluate a toy network on them."""

import json
import os
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.commands import train as train_command
from err_seg.data import register, spec_from_dict, unregister
from err_seg.engine import train
from err_seg.engine.trainer import PlainTrainer
from err_seg.models.checkpoint import open_checkpoint
from err_seg.utils.processes import one_writer
from tests.helpers.toy import REPOSITORY, VOCABULARY

SHORT = [
    *("INPUT.CROP_SIZE", 32),
    *("INPUT.MIN_SIZE_TRAIN", [40]),
    *("DATASETS.TRAIN", ["toy_train"]),
    *("DATASETS.TEST", ["toy_val"]),
    *("SOLVER.IMS_PER_BATCH", 4),
    *("SOLVER.MAX_ITER", 6),
    *("SOLVER.WARMUP_ITERS", 2),
    *("SOLVER.BASE_LR", 1e-3),
    *("SOLVER.CHECKPOINT_PERIOD", 2),
    *("LOG.PERIOD", 1),
    *("LOG.TENSORBOARD", False),
]


def write_images(root, name, count, num_classes, seed=0):
    """Write ``count`` images of unequal sizes and their label maps: blocks of classes, coloured by class."""
    rng = np.random.default_rng(seed)
    palette = rng.integers(40, 216, (256, 3))
    for folder in ("images", "labels"):
        (root / name / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        blocks = rng.integers(0, num_classes, (3, 4))
        blocks[0, 0] = 255
        labels = blocks.repeat(20 + 3 * (index % 3), axis=0).repeat(18 + 2 * (index % 4), axis=1).astype(np.uint8)
        noise = rng.integers(-40, 40, (*labels.shape, 3))
        Image.fromarray((palette[labels] + noise).clip(0, 255).astype(np.uint8)).save(
            root / name / "images" / f"p{index}.png"
        )
        Image.fromarray(labels).save(root / name / "labels" / f"p{index}.png")


def declaration(root, name, vocabulary=VOCABULARY, **more):
    return {
        "name": name,
        "image_dir": str(root / name / "images"),
        "label_dir": str(root / name / "labels"),
        "vocabulary": list(vocabulary),
        "image_ext": ".png",
        **more,
    }


@pytest.fixture(scope="session")
def toy_world(tmp_path_factory):
    """Write data sets of 10 and 7 images; return their declarations."""
    root = tmp_path_factory.mktemp("toy_world")
    write_images(root, "toy_train", 10, len(VOCABULARY))
    write_images(root, "toy_val", 7, len(VOCABULARY), seed=1)
    return [declaration(root, "toy_train"), declaration(root, "toy_val")]


@pytest.fixture
def toy_data(toy_world):
    """Register the toy data sets for one test."""
    for entry in toy_world:
        register(spec_from_dict(entry))
    yield toy_world
    for entry in toy_world:
        unregister(entry["name"])


@pytest.fixture
def run_cfg(toy_cfg, toy_data, tmp_path):
    """Return a function from overrides to the configuration of a short run in ``tmp_path / "out"``."""
    own = ("OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.CUSTOM", toy_data)
    return lambda *overrides: toy_cfg(*SHORT, *own, *overrides)


@pytest.fixture
def damaged_cfg(run_cfg, toy_world, tmp_path):
    """Return a function from overrides to the configuration of a run on ten pairs, two of them damaged."""
    folder = tmp_path / "damaged_train"
    shutil.copytree(Path(toy_world[0]["image_dir"]).parent, folder)
    for file in ("images/p3.png", "labels/p7.png"):
        (folder / file).write_bytes((folder / file).read_bytes()[:60])
    register(spec_from_dict(declaration(tmp_path, "damaged_train")))
    own = ("DATASETS.TRAIN", ["damaged_train"], "DATALOADER.SKIP_DAMAGED", True)
    return lambda *overrides: run_cfg(*own, *overrides)


@pytest.fixture
def train_net(run_cfg, tmp_path, monkeypatch, capsys):
    """Return a function that runs err-seg train in this process; gives status, output, errors."""
    file = tmp_path / "run.yaml"
    file.write_text(run_cfg("SOLVER.MAX_ITER", 1).dump())

    def call(*arguments):
        line = ["train", "--config-file", str(file), "--engine", "plain", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", line)
        status = train_command.main()
        return status, *capsys.readouterr()

    return call


def metrics(folder, *keys):
    """Read metrics.json: a list of the values of the keys, a line each."""
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [tuple(line[key] for key in keys) if len(keys) > 1 else line[keys[0]] for line in lines]


def run(cfg, **options):
    """Train a new network and return it."""
    model = err_seg.build_model(cfg)
    train(cfg, model, **options)
    return model


def assert_same_weights(first, second, rtol=0.0, atol=0.0):
    """Compare two files of weights, by default bit by bit."""
    first, second = open_checkpoint(first).weights, open_checkpoint(second).weights
    torch.testing.assert_close(second, first, rtol=rtol, atol=atol)


TIMES = ("time", "data_time", "eta_seconds", "max_mem")


def lines(folder):
    """Read metrics.json: a dictionary a line, without what the clock and the machine decide."""
    read = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read]


def training_state(folder, iteration):
    """Read all that a checkpoint holds besides the weights, but for the configuration."""
    state = torch.load(folder / f"checkpoints/iter_{iteration:07d}/training.pt", weights_only=True)
    return {name: value for name, value in state.items() if name != "config"}


def assert_same_state(first, second):
    """Compare training states, bit by bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_same_state(first[name], second[name])
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *options, stops=(3, 5), last=6):
    """Compare a run with one that is killed after some iterations and resumed: weights, lines and state."""
    files = ["model_final.safetensors"]
    run(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "straight")))
    for done in stops:
        out = ("OUTPUT_DIR", str(tmp_path / f"stopped_{done}"))
        with monkeypatch.context() as patch:
            stop_after(patch, done)
            with pytest.raises(KeyboardInterrupt):
                run(run_cfg(*options, *out))
        run(run_cfg(*options, *out), resume=True)
        for file in [*files, *(path.name for path in (tmp_path / "straight").glob("model_best*"))]:
            assert_same_weights(tmp_path / "straight" / file, tmp_path / f"stopped_{done}" / file)
        assert lines(tmp_path / f"stopped_{done}") == lines(tmp_path / "straight")
        states = [training_state(tmp_path / name, last) for name in ("straight", f"stopped_{done}")]
        assert_same_state(*states)


def stop_after(monkeypatch, iterations):
    """Make the next run end with ``KeyboardInterrupt`` after so many iterations, as a kill would, saving nothing."""
    step, done = PlainTrainer.step, []

    def counted(run, *arguments):
        if len(done) == iterations:
            raise KeyboardInterrupt
        done.append(None)
        return step(run, *arguments)

    monkeypatch.setattr(PlainTrainer, "step", counted)


def command(cfg, file, *arguments):
    """Write the configuration to a file; return the command line that trains with it in the plain engine."""
    file.write_text(cfg.dump())
    program = [sys.executable, str(REPOSITORY / "tools/train_net.py"), "--config-file", str(file)]
    return [*program, "--engine", "plain", *arguments]


def environment():
    """Return the environment of a process that sums in the order that tests do."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def wait_for(path, process, seconds=120):
    """Wait until a file or folder is there, for as long as the process lives."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"no {path}, exit status {process.poll()}")
        time.sleep(0.01)


@contextmanager
def another_run(folder):
    """Let another thread write to a folder, as another run would."""
    started, over = threading.Event(), threading.Event()

    def write():
        with one_writer(folder):
            started.set()
            over.wait()

    thread = threading.Thread(target=write)
    thread.start()
    started.wait()
    yield
    over.set()
    thread.join()
