"""The command itself: killed twice on the way, it leaves the table that an undisturbed run leaves."""

import contextlib
import fcntl
import io
import json
import os
import re
import struct
import subprocess
import sys
import termios

import pytest
import torch
from safetensors.torch import save_file

from err_seg.commands import sweep
from err_seg.data import DatasetError
from err_seg.engine import evaluate
from err_seg.lab.sweeps import display as display_module
from err_seg.lab.sweeps import executor
from err_seg.lab.sweeps.definition import SweepError, load_sweep
from err_seg.lab.sweeps.display import Display
from err_seg.lab.sweeps.executor import open_data, work_through
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.lab.sweeps.run_steps import Workers
from err_seg.mini.clip import ERR_SEG_WEIGHTS
from err_seg.utils.locks import locked
from tests.helpers.toy import REPOSITORY
from tests.helpers.training import environment, run, wait_for

SWEEP = """
title: Two trainings, three rows
base: base.yaml
seeds: [0]
settings: {TEST.EVAL_PERIOD: 1000}  # a sweep's trainings evaluate on nothing
variants:
  full: {}
  K = 2: {settings: {MODEL.CRM.NUM_KEPT: 2}}
  no star: {settings: {MODEL.ESCF.STAR: False}, paper: {A-847: 1.0}}
plot: {x: MODEL.CRM.NUM_KEPT, label: K}
"""


@pytest.fixture
def sweep_file(run_cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    base = run_cfg("SOLVER.MAX_ITER", 40, "SOLVER.CHECKPOINT_PERIOD", 2, "LOG.PERIOD", 2)
    (tmp_path / "base.yaml").write_text(base.dump())
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def command(file, output, *more):
    script = str(REPOSITORY / "tools/sweep.py")
    return [sys.executable, script, str(file), "--output", str(output), "--engine", "plain", *more]


def figures(output):
    document = json.loads((output / "sweep/results.json").read_text())
    return {row["name"]: row["figures"] for row in document["rows"]}


def test_killed_twice_it_leaves_the_same_table(sweep_file, tmp_path, capsys):
    output = tmp_path / "killed"
    full, _, no_star = plan_runs(load_sweep(sweep_file), output / "runs")
    line = command(sweep_file, output)
    # killed without warning while the first training runs: its process lives on, and is waited for
    process = subprocess.Popen(line, env=environment())
    wait_for(full.training.folder / "checkpoints/iter_0000002", process)
    process.kill()
    process.wait()
    # asked to stop while the second one runs: that one saves a checkpoint
    process = subprocess.Popen(line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(no_star.training.folder / "checkpoints/iter_0000002", process)
    process.terminate()
    output_, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "| no star" in output_
    assert "the same command continues" in errors
    assert full.results.is_file()
    assert "SIGTERM: stopped after" in (no_star.training.folder / "output.txt").read_text()
    assert figures(output)["no star"] == {}

    assert sweep.main(line[2:]) == 0
    assert "3 runs, 2 of them done before" in capsys.readouterr().out
    assert "resuming from" in (no_star.training.folder / "output.txt").read_text()
    assert {file.name for file in (output / "sweep").iterdir()} == {"table.md", "table.csv", "results.json", "plot.png"}
    assert "not run" not in (output / "sweep/table.md").read_text()

    undisturbed = no_star.cfg.clone()
    undisturbed.OUTPUT_DIR = str(tmp_path / "undisturbed")
    (result,) = evaluate(undisturbed, run(undisturbed))
    assert figures(output)["no star"] == {"toy_val": [result.metrics["mIoU"]]}
    assert len(list((output / "runs").iterdir())) == 2, "two rows share a training"

    # weights that are there already are evaluated, and nothing is trained
    weights = ["--weights", str(full.weights), "--variants", "K = 2"]
    assert sweep.main([*line[2:], *weights]) == 0
    (folder,) = output.glob("sweep-weights-*")
    rows = {row["name"]: row["figures"] for row in json.loads((folder / "results.json").read_text())["rows"]}
    assert rows == {"full": {}, "K = 2": figures(output)["K = 2"], "no star": {}}


def test_what_fails_is_told_and_the_other_runs_are_done(sweep_file, tmp_path):
    runs = plan_runs(load_sweep(sweep_file), tmp_path / "runs", ["SOLVER.MAX_ITER", 1])
    runs[2].cfg.SOLVER.PRECISION = "fp16"  # which the CPU refuses
    finished = []

    def write_table():
        finished.append(1)
        if len(finished) == 1:
            raise OSError("No space left on device")

    failures = work_through(runs, Workers(engine="plain"), Display(), write_table)
    (of_training,) = [failure for failure in failures if failure.startswith("training of no star, seed 0 failed with")]
    assert 'SOLVER.PRECISION "fp16" needs a GPU' in of_training
    (of_table,) = [failure for failure in failures if failure is not of_training]
    assert "No space left on device" in of_table
    assert len(finished) == 2
    assert all(run.is_evaluated() for run in runs[:2])


def test_a_failed_training_is_not_repeated_for_each_of_its_rows(sweep_file, tmp_path, capsys):
    runs = plan_runs(load_sweep(sweep_file), tmp_path / "runs")[:2]
    for planned in runs:
        planned.cfg.SOLVER.PRECISION = "fp16"
    assert len(work_through(runs, Workers(engine="plain"), Display(), list)) == 1
    assert capsys.readouterr().out.count("…") == 1


def test_each_run_is_done_once_by_one_of_the_slots_and_those_of_a_training_by_the_same(
    sweep_file, tmp_path, monkeypatch
):
    runs, done, tables = plan_runs(load_sweep(sweep_file), tmp_path / "runs", seeds=[1, 2]), {}, []

    def finish(run, workers, slot, stop, display):
        assert run.title not in done
        done[run.title] = slot
        return "" if run.seed else f"{run.title} failed"

    monkeypatch.setattr(executor, "_finish_run", finish)
    failures = work_through(runs, Workers(jobs=2), Display(io.StringIO()), lambda: tables.append(1))
    assert sorted(failures) == ["full, seed 0 failed", "no star, seed 0 failed"], "K = 2 has the training of full"
    assert done.keys() == {run.title for run in runs} - {"K = 2, seed 0"}
    assert all(done[f"full, seed {seed}"] == done[f"K = 2, seed {seed}"] for seed in (1, 2))
    assert set(done.values()) <= {0, 1}
    assert len(tables) == 6


def test_data_that_a_later_run_trains_on_is_opened_before_any_runs(sweep_file, tmp_path):
    """It was not, if an earlier run on the same data was trained already."""
    first, _, second = plan_runs(load_sweep(sweep_file), tmp_path / "runs")
    first.training.begin()
    save_file({"weight": torch.ones(1)}, first.weights)
    for run_ in (first, second):
        run_.cfg.DATASETS.TRAIN = ["coco_stuff_train"]
    open_data([first])
    with pytest.raises(DatasetError, match="coco_stuff_train"):
        open_data([first, second])


def test_jobs_share_cores_and_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    workers = Workers(jobs=2, num_gpus=2)
    workers.check()
    shares = [workers.environment(slot) for slot in range(2)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4,5", "6,7"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"2"}
    assert "OMP_NUM_THREADS" not in Workers().environment(0)
    with pytest.raises(SweepError, match="--jobs 3 of --num-gpus 2 each need 6 GPUs, there are 4"):
        Workers(jobs=3, num_gpus=2).check()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # none are wanted
    workers.check()
    assert workers.environment(1)["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert workers.environment(1)["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_dry_run_lists_what_is_missing(sweep_file, tmp_path, capsys):
    arguments = [str(sweep_file), "SOLVER.MAX_ITER", "9", "--dry-run", "--output", str(tmp_path / "out")]
    assert sweep.main(arguments) == 0
    output = capsys.readouterr().out
    assert output.count("missing: ") == 3
    assert "| no star" in output
    assert not (tmp_path / "out/runs").exists()


def test_two_sweeps_over_other_runs_do_not_write_one_table(sweep_file, tmp_path, capsys):
    """The table was that of the sweep that ended last; sweeps over the same runs share the work."""
    arguments = [str(sweep_file), "--dry-run", "--output", str(tmp_path / "out")]
    assert sweep.main([*arguments, "SOLVER.MAX_ITER", "9"]) == 0
    (lock,) = (tmp_path / "out").glob(".sweep.lock")
    with locked(lock, lock.read_text()):
        assert sweep.main([*arguments, "SOLVER.MAX_ITER", "9"]) == 0
        table = (tmp_path / "out/sweep/table.md").read_text()
        capsys.readouterr()
        assert sweep.main(arguments) == 1
        assert "another sweep is writing the table of other settings or seeds" in capsys.readouterr().err
        assert sweep.main([*arguments, "--seeds", "5"]) == 1
    assert (tmp_path / "out/sweep/table.md").read_text() == table
    assert sweep.main(arguments) == 0


def test_the_miniature_world_is_declared_to_every_run(tmp_path, capsys):
    file = REPOSITORY / "configs/ablations/table_ix.yaml"
    arguments = [str(file), "--mini", "--dry-run", "--output", str(tmp_path), "--scenes", "8", "4", "24"]
    assert sweep.main(arguments) == 0
    assert capsys.readouterr().out.count("missing: ") == 6


MINI = """
title: Too few scenes
base: {base}
seeds: [3]
settings: {{SOLVER.MAX_ITER: 2, INPUT.SIZE: 64, INPUT.CROP_SIZE: 64, INPUT.MIN_SIZE_TRAIN: [64], MODEL.DEVICE: cpu}}
variants: {{full: {{}}, no star: {{settings: {{MODEL.ESCF.STAR: False}}}}}}
mini: {{}}
"""


@pytest.fixture
def mini_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    file = tmp_path / "mini.yaml"
    file.write_text(MINI.format(base=REPOSITORY / "configs/mini/sweep.yaml"))
    return file


def test_too_few_scenes_are_told_first_and_leave_figures_blank(mini_file, tmp_path, capsys, caplog):
    """It used to train everything, and then to fail: 28 classes occur in none of the 8 images."""
    scenes = ["--mini", "--scenes", "4", "4", "4", "--engine", "plain", "--output", str(tmp_path / "out")]
    assert sweep.main([str(mini_file), *scenes, "--variants", "no star"]) == 0
    assert re.search(r"'mini_world_test_4': 4 of 4 label maps hold no pixel of \d+ of 60 classes", caplog.text)
    output = capsys.readouterr().out
    told = output[: output.index("training of no star, seed 3 …")]
    assert "seeds 3; the first: 2 iterations of 2 images of mini_world_train_4" in told
    assert re.search(r"all variants: .*SOLVER.MAX_ITER 2", told)
    assert "MODEL.ESCF.STAR False" in told
    rows = [line.split("|")[1:6] for line in output.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in rows if "star" in row[0]][-1] == ["no star", "–", "–", "–", "1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cost: ade20k", "unknown data set 'ade20k'"),
        ("settings: {DATASETS.TEST: [mini_world_val, mini_world_test]}", "must be one data set with the 60 names"),
        ("settings: {DATASETS.TEST: [mini_world_train]}", "must be one data set with the 60 names"),
        ("settings: {DATASETS.TEST: [mini_world_tset]}", "unknown data set 'mini_world_tset'"),
    ],
)
def test_what_would_fail_after_the_runs_is_told_before(mini_file, tmp_path, capsys, change, message):
    mini_file.write_text(mini_file.read_text().replace("mini: {}", f"mini: {{{change}}}"))
    assert sweep.main([str(mini_file), "--mini", "--output", str(tmp_path / "out")]) == 1
    output, errors = capsys.readouterr()
    assert message in errors
    assert "…" not in output


def test_progress_is_seen_on_a_terminal_in_bars(sweep_file, tmp_path):
    own, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, 160, 0, 0))
    line = command(sweep_file, tmp_path / "out", "--variants", "full")
    process = subprocess.Popen(line, env=environment(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while block := os.read(own, 4096):
            shown += block
    os.close(own)
    told = shown.decode()
    assert process.wait() == 0, told
    assert re.search(r"training of full, seed 0: +\d+%\|.*\| \d+/40, loss \d\.\d{4}, 0:00:\d\d left", told)
    assert re.search(r"Two trainings, three rows: +0%\|.*\| 0/1", told)


def test_progress_is_seen_elsewhere_in_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(display_module, "SECONDS_BETWEEN_LINES", 0.0)
    stream, metrics = io.StringIO(), tmp_path / "metrics.json"
    line = {"iteration": 99, "total_loss": 0.25, "eta_seconds": 83.4}
    with Display(stream).process("training of a", tmp_path, 500, 0) as look:
        look()
        (tmp_path / "output.txt").write_text("log\rdrawing mini_world_val to /a/1/2:  50%|██  | 120/240 [00:02<")
        look()
        metrics.write_text(json.dumps(line) + "\n")
        look()
        look()
        for other in ({"iteration": 99, "sem_seg/mIoU": 40.0}, line | {"total_loss": None}):  # nothing to add
            metrics.write_text(metrics.read_text() + json.dumps(other) + "\n")
            look()
    with Display(stream).process("evaluation of a", tmp_path, 0, 0) as look:
        (tmp_path / "output.txt").write_text("… evaluator: Inference done 28/80. Dataloading: 0.07 s/iter.\n")
        look()
    assert stream.getvalue().splitlines() == [
        "training of a: 120 of 240  drawing mini_world_val to /a/1/2",
        "training of a: 100 of 500  loss 0.2500, 0:01:23 left",
        "training of a: 120 of 240  drawing mini_world_val to /a/1/2",
        "evaluation of a: 28 of 80",
    ]


def test_of_several_sweeps_those_of_the_real_data_alone_are_passed_over(tmp_path, capsys):
    files = [str(REPOSITORY / f"configs/ablations/{name}.yaml") for name in ("table_ii", "table_ix")]
    assert sweep.main([*files, "--mini", "--dry-run", "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "passed over: " in output
    assert "table_ii.yaml has no entry 'mini'" in output
    assert "| plain MLP" in output


@pytest.mark.parametrize(
    "line", ["a.yaml b.yaml", "a.yaml K.EY 1 --seeds 0 1", "a.yaml --mini", "a.yaml --weights w K.EY 1"]
)
def test_files_and_overrides_are_told_apart(line):
    arguments = sweep.parse_arguments(line.split())
    assert [file.suffix for file in arguments.sweeps] == [".yaml"] * line.count(".yaml")
    assert arguments.opts == (["K.EY", "1"] if "K.EY" in line else [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "none"], "there is no variant 'none'; there are 'full', 'K = 2', 'no star'"),
        (["--weights", "none.pth"], "none.pth"),
        (["--weights", str(ERR_SEG_WEIGHTS), "--sha256", "0" * 64], "expected 0000"),
        (["--weights", str(ERR_SEG_WEIGHTS), "--revision", "main"], "revision are for models of the hub"),
        (["--revision", "main"], "--revision: say which weights, with --weights"),
        (["SOLVER.MAX_ITR", "3"], "variant 'full': unknown key SOLVER.MAX_ITR"),
        (["--mini"], "no entry 'mini'"),
    ],
)
def test_mistakes_are_one_line(sweep_file, tmp_path, capsys, arguments, message):
    assert sweep.main([str(sweep_file), "--output", str(tmp_path / "out"), *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_eval_all_says_how_it_is_used():
    script = ["bash", str(REPOSITORY / "scripts/eval_all.sh")]
    result = subprocess.run(script, capture_output=True, text=True)
    assert result.returncode == 2
    assert "usage: bash scripts/eval_all.sh b|l" in result.stderr


def test_eval_all_prints_the_papers_row_beside_what_was_measured(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "weights.safetensors")  # enough for a dry run
    arguments = ["b", str(tmp_path / "weights.safetensors"), "--output", str(tmp_path / "out"), "--dry-run"]
    arguments += ["DATASETS.ROOT", str(tmp_path)]
    environment_ = {**environment(), "ERR_SEG_VENV": sys.prefix}
    script = ["bash", str(REPOSITORY / "scripts/eval_all.sh"), *arguments]
    result = subprocess.run(script, env=environment_, capture_output=True, text=True, check=True)
    assert "missing: ConvNeXt-B, both towers, seed 0" in result.stdout
    assert "– (13.9)" in result.stdout
    missing = subprocess.run([*script[:3], "none.pth"], env=environment_, capture_output=True, text=True)
    assert (missing.returncode, missing.stderr) == (1, "error: there are no weights none.pth\n")
