"""A loader process that is killed ends a run with one sentence, and loses nothing."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from multiprocessing.resource_sharer import DupFd

import psutil
import pytest
import torch

from err_seg.data import ImageReadError, SegmentationPairs, WorkerError, get_dataset, register, spec_from_dict
from err_seg.data.loader import training_loader
from err_seg.data.transforms import TrainingTransform
from err_seg.engine import EvaluationError, TrainingError, evaluate
from err_seg.engine.trainer import PlainTrainer
from err_seg.utils.errors import start_worker, worker_failures
from tests.helpers.processes import kill_a_loader_process
from tests.helpers.training import assert_same_weights, command, declaration, environment, run, wait_for


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGBUS])
def test_training_names_the_newest_checkpoint_and_resumes(run_cfg, tmp_path, monkeypatch, signum):
    long = ("SOLVER.MAX_ITER", 12)  # longer than what the processes have read ahead
    run(run_cfg(*long, "OUTPUT_DIR", str(tmp_path / "straight")))
    cfg, step = run_cfg(*long, "DATALOADER.NUM_WORKERS", 2), PlainTrainer.step

    def killing(run, *arguments):
        if run.iteration == 3:
            kill_a_loader_process(signum)
        return step(run, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PlainTrainer, "step", killing)
        newest = r"the last good checkpoint is .*/iter_\d+\. Then rerun with --resume"
        with pytest.raises(TrainingError, match=rf"^a loader process .* DATALOADER\.NUM_WORKERS; {newest}$") as stop:
            run(cfg)
    assert stop.value.alone
    run(cfg, resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")


def test_the_command_ends_in_one_line(run_cfg, tmp_path):
    cfg = run_cfg("SOLVER.MAX_ITER", 100_000, "DATALOADER.NUM_WORKERS", 2)
    arguments = command(cfg, tmp_path / "run.yaml")
    process = subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "out/checkpoints/iter_0000002", process)
    psutil.Process(process.pid).children()[0].kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("error: a loader process ")
    assert "the last good checkpoint is " in errors.splitlines()[-1]


def test_evaluation_keeps_what_is_done_and_goes_on(run_cfg, toy_model):
    model = toy_model()
    (expected,) = evaluate(run_cfg(), model)
    cfg, seen = run_cfg("DATALOADER.NUM_WORKERS", 1), []

    def count(*_):
        seen.append(None)
        if len(seen) == 1:
            kill_a_loader_process()

    hook = model.encoder.register_forward_pre_hook(count)
    ending = r"a loader process .*; (\d) images of toy_val are done and kept\. Then rerun the same command"
    with pytest.raises(EvaluationError, match=ending) as stop:
        evaluate(cfg, model)
    hook.remove()
    kept = int(re.search(ending, str(stop.value))[1])
    assert len(seen) - 1 <= kept <= len(seen), "all but an image that was under way"
    seen.clear()
    model.encoder.register_forward_pre_hook(lambda *_: seen.append(None))
    (result,) = evaluate(cfg, model)
    assert len(seen) == 7 - kept
    assert result.metrics == pytest.approx(expected.metrics, nan_ok=True)


SMALL_SHARED_MEMORY = """
import sys
from err_seg.data import SegmentationPairs, TrainingTransform, spec_from_dict
from err_seg.data.loader import training_loader
root = sys.argv[1]
spec = spec_from_dict({"name": "own", "image_dir": root + "/images", "label_dir": root + "/labels", "vocabulary": ["a"],
                       "image_ext": ".png"})
try:
    for batch in training_loader(SegmentationPairs(spec), TrainingTransform(256), 4, 0, workers=2):
        pass
except Exception as error:
    print(type(error).__name__, error)
"""


def test_shared_memory_that_does_not_suffice_is_named_and_nothing_hangs(tmp_path):
    from PIL import Image

    for folder, mode in (("images", "RGB"), ("labels", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (256, 256)).save(tmp_path / folder / "a.png")
    if not shutil.which("unshare"):
        pytest.skip("needs unshare, of util-linux")
    small = 'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"'
    program = [sys.executable, "-c", SMALL_SHARED_MEMORY, str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", small, "sh", *program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.stdout.startswith("WorkerError a loader process ran out of shared memory (/dev/shm holds 1.05"), done
    assert "--shm-size" in done.stdout
    assert "DATALOADER.NUM_WORKERS" in done.stdout


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_named_without_the_processs_stack_trace(run_cfg, tmp_path, toy_world, workers):
    folder = tmp_path / "damaged_train"
    shutil.copytree(os.path.dirname(toy_world[0]["image_dir"]), folder)
    image = folder / "images/p3.png"
    image.write_bytes(image.read_bytes()[:300])
    register(spec_from_dict(declaration(tmp_path, "damaged_train")))
    pairs = SegmentationPairs(get_dataset("damaged_train"))
    with pytest.raises(ImageReadError) as raised:
        list(training_loader(pairs, TrainingTransform(32), 1, 0, workers=workers))
    assert str(raised.value).startswith(f"{image}: cannot be decoded, it may be damaged")
    cfg = run_cfg("DATASETS.TRAIN", ["damaged_train"], "DATALOADER.NUM_WORKERS", workers, "SOLVER.IMS_PER_BATCH", 1)
    cfg.SOLVER.MAX_ITER = 10
    with pytest.raises(TrainingError) as stop:
        run(cfg)
    assert str(stop.value).startswith(f"{image}: cannot be decoded, it may be damaged")
    assert "worker" not in str(stop.value)
    assert "\n" not in str(stop.value)
    assert "checkpoint" in str(stop.value)
    assert "DATALOADER.SKIP_DAMAGED True" in str(stop.value)
    with pytest.raises(EvaluationError) as stop:
        evaluate(run_cfg("DATASETS.TEST", ["damaged_train"], "DATALOADER.NUM_WORKERS", workers), model_of(cfg))
    kept = "3 images of damaged_train are done and kept"
    assert f"{kept}. Fix or remove the file, then rerun the same command" in str(stop.value)


def model_of(cfg):
    import err_seg

    return err_seg.build_model(cfg)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ("DataLoader worker (pid(s) 12, 13) exited unexpectedly", r"process \(pid 12, 13\) ended unexpectedly"),
        ("DataLoader worker (pid 12) exited unexpectedly with exit code 1. Details", r"\(pid 12\) ended unexpectedly"),
        (
            "DataLoader worker (pid 12) is killed by signal: Killed. ",
            r"\(pid 12\) was killed by a signal \(Killed\), as",
        ),
        (
            "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            r"out of shared memory \(/dev/shm holds .*B\); .* --shm-size=8g\) or lower DATALOADER\.NUM_WORKERS$",
        ),
        ("unable to allocate shared memory(shm) for file </torch_1>: No space", "ran out of shared memory"),
    ],
)
def test_what_torch_says_is_understood(told, sentence):
    with pytest.raises(WorkerError, match=sentence), worker_failures():
        raise RuntimeError(told)


def test_a_process_that_is_killed_while_it_hands_over_a_batch_is_told_of(monkeypatch):
    def lost(*arguments):
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr("torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data", lost)
    monkeypatch.setattr("err_seg.utils.errors.SIGNAL_SECONDS", 0.1)
    loader = torch.utils.data.DataLoader([1, 2], num_workers=1)
    with pytest.raises(WorkerError, match="a loader process ended unexpectedly"), worker_failures():
        next(iter(loader))
    with pytest.raises(ConnectionResetError), worker_failures():
        lost()


class HandedOver(torch.utils.data.Dataset):
    """One file that its process hands over as it does the memory of a batch."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return DupFd(os.open(os.devnull, os.O_RDONLY))


@pytest.mark.parametrize(("start", "told"), [(start_worker, False), (None, True)])
def test_a_process_whose_batch_is_no_longer_wanted_prints_nothing(capfd, start, told):
    loader = torch.utils.data.DataLoader(HandedOver(), batch_size=None, num_workers=1, worker_init_fn=start)
    batches = iter(loader)
    handed = next(batches)
    address, _ = handed._id
    with socket.socket(socket.AF_UNIX) as lost:  # as a trainer that is interrupted while it takes over a batch
        lost.connect(address)
    os.close(handed.detach())  # the thread goes on: the next one is served
    assert ("Traceback" in capfd.readouterr().err) is told


def test_other_errors_stay_as_they_are():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError) as raised, worker_failures():
        raise error
    assert raised.value is error
