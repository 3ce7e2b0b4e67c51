"""The packages of examples/plugins: installed, and at toy size trained, resumed, evaluated, loaded and published."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import err_seg
from err_seg import plugins
from err_seg.commands import publish, sweep
from err_seg.engine import evaluate
from err_seg.export import check_onnx, check_program, export_onnx, export_program
from err_seg.lab.sweeps.definition import load_sweep
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.models.checkpoint import CheckpointError
from tests.helpers.plugins import EXAMPLES, NAMES
from tests.helpers.toy import SHARED, VOCABULARY
from tests.helpers.training import assert_resumes_exactly, environment, lines, metrics, run, write_images

SHORT = ("SOLVER.MAX_ITER", 2, "SOLVER.CHECKPOINT_PERIOD", 1, "LOG.PERIOD", 2, "SOLVER.IMS_PER_BATCH", 2)
OF_THE_NETWORK = ["parallel_aggregation", "resnet_backbone", "second_encoder", "shuffle_decoder"]
RESEARCH = ["parallel_aggregation", "second_encoder"]
PARTS = {
    "parallel_aggregation": lambda model: model.head.escf.layers[0].merge.experts,
    "resnet_backbone": lambda model: model.encoder.clip.visual.layer4,
    "second_encoder": lambda model: model.encoder.second.model,
    "shuffle_decoder": lambda model: model.head.gud.predict,
}


def test_there_is_one_of_each_kind():
    assert len(NAMES) == 8
    for name in NAMES:
        text = (EXAMPLES / name / "README.md").read_text()
        assert f"pip install ./examples/plugins/{name}\n" in text
        assert f"`imported {name} 1.0`" in text
        assert f"err-seg train --config-file examples/plugins/{name}/train.yaml" in text
        assert yaml.safe_load((EXAMPLES / name / "train.yaml").read_text())["MODEL"]["IMPORTS"] == [name]


def forget(name, monkeypatch):
    """Make a package one that this process has not imported yet."""
    monkeypatch.setattr(plugins, "_versions", {})
    del sys.modules[name]


@pytest.mark.parametrize("name", sorted({*NAMES} - {"street_data"}))
def test_an_example_trains_resumes_evaluates_loads_predicts_and_publishes(
    name, example, run_cfg, tmp_path, monkeypatch, images, capsys
):
    own = (*example(name), *SHORT, "OUTPUT_DIR", str(tmp_path / "straight"))
    assert_resumes_exactly(run_cfg, tmp_path, monkeypatch, *own, stops=(1,), last=2)
    if name == "dice_loss":
        (line,) = (line for line in lines(tmp_path / "straight") if "lr" in line)
        assert line["loss_dice"] > 0
        assert line["loss_sem_seg"] + line["loss_dice"] == pytest.approx(line["total_loss"], rel=1e-6)

    weights = tmp_path / "straight/model_final.safetensors"
    forget(name, monkeypatch)
    with pytest.raises(CheckpointError, match=rf"not imported: {name} 1\.0\. If you trust .*imports=\['{name}'\]"):
        err_seg.load(weights, device="cpu")
    model = err_seg.load(weights, device="cpu", imports=name)
    if name in PARTS:
        assert PARTS[name](model) is not None
    assert model.predict(images[0], VOCABULARY).labels.shape == images[0].shape[:2]

    (result,) = evaluate(run_cfg(*own, "MODEL.WEIGHTS", str(weights)), model)
    assert ("mDice" in result.metrics) == (name == "dice_metric")
    if name == "dice_metric":
        assert result.metrics["mIoU"] < result.metrics["mDice"] < 100, "Dice is never below IoU"
    forget(name, monkeypatch)
    assert publish.main([str(tmp_path / "straight"), "someone/toys", "--dry-run"]) == 2
    assert f"--import {name}" in capsys.readouterr().err
    assert publish.main([str(tmp_path / "straight"), "someone/toys", "--dry-run", "--import", name]) == 0
    assert f"imports=['{name}']" in (tmp_path / "straight/published/README.md").read_text()
    again = err_seg.load(tmp_path / "straight/published", device="cpu")
    assert again.settings == model.settings
    assert torch.equal(again.predict(images[0], VOCABULARY).maps, model.predict(images[0], VOCABULARY).maps)


def test_street_data_trains(example, run_cfg, tmp_path):
    own = example("street_data")
    assert own[:2] == ["MODEL.IMPORTS", ["street_data"]]
    for split in ("train", "val"):
        write_images(tmp_path, split, 3, 11)
        (tmp_path / "streets").mkdir(exist_ok=True)
        (tmp_path / split / "images").rename(tmp_path / "streets" / split)
        (tmp_path / split / "labels").rename(tmp_path / "streets" / f"{split}annot")
    for file in tmp_path.glob("streets/*annot/*.png"):
        relabelled(file)
    data = ("DATASETS.TRAIN", ["streets_train"], "DATASETS.VAL", ["streets_val"], "DATASETS.TEST", ["streets_val"])
    cfg = run_cfg(
        "MODEL.IMPORTS", ["street_data"], *data, *SHORT, "DATASETS.ROOT", str(tmp_path), "DATASETS.CUSTOM", []
    )
    (result,) = evaluate(cfg, run(cfg).eval())
    assert len(result.class_names) == 11
    stored = json.loads((tmp_path / "out/results.json").read_text())["benchmarks"]["streets_val"]
    assert stored["pictures"] == 3
    assert stored["settings"]["K"] == 4, "the toy configuration's own goes before the data set's"


def relabelled(file):
    """Write the data set's own label into pixels without one."""
    label = np.array(Image.open(file))
    Image.fromarray(np.where(label == 255, 11, label).astype(np.uint8)).save(file)


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="needs street images")
def test_street_data_reads_photographs(example, run_cfg, tmp_path):
    example("street_data")
    (tmp_path / "streets").symlink_to(SHARED / "camvid")
    data = ("DATASETS.TRAIN", ["streets_train"], "DATASETS.TEST", [], "DATASETS.ROOT", str(tmp_path))
    run(run_cfg("MODEL.IMPORTS", ["street_data"], *data, *SHORT, "DATASETS.CUSTOM", []))
    assert metrics(tmp_path / "out", "total_loss")[0] > 0


@pytest.mark.parametrize("name", RESEARCH)
def test_sweeps_build(name, example, tmp_path):
    example(name)
    for mini in (False, True):
        plan = load_sweep(EXAMPLES / name / f"{name}_sweep.yaml", mini=mini)
        runs = plan_runs(plan, tmp_path)
        assert len({run.evaluation.folder for run in runs}) == len(runs) == 3 * len(plan.seeds)
        if mini:
            for a_run in runs[:: len(plan.seeds)]:
                assert err_seg.build_model(a_run.cfg) is not None
    assert "has not been measured" in load_sweep(EXAMPLES / name / f"{name}_sweep.yaml").note


@pytest.mark.slow
@pytest.mark.parametrize("name", RESEARCH)
def test_sweeps_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES / name}:{environment()['PYTHONPATH']}")
    monkeypatch.syspath_prepend(EXAMPLES / name)
    variants = list(load_sweep(EXAMPLES / name / f"{name}_sweep.yaml", mini=True).variants)
    arguments = [str(EXAMPLES / name / f"{name}_sweep.yaml"), "--mini", "--seeds", "0", "--scenes", "8", "4", "24"]
    arguments += ["--output", str(tmp_path), "--variants", *(variant.name for variant in variants[:2])]
    tiny = ["SOLVER.MAX_ITER", "2", "INPUT.SIZE", "64", "INPUT.CROP_SIZE", "64", "INPUT.MIN_SIZE_TRAIN", "[64]"]
    assert sweep.main([*arguments, "--engine", "plain", *tiny]) == 0
    rows = json.loads((tmp_path / f"{name}_sweep-mini/results.json").read_text())["rows"]
    assert sum(bool(row["figures"]) for row in rows) == 2


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
@pytest.mark.parametrize("name", OF_THE_NETWORK)
def test_export(name, ending, example, toy_model, tmp_path):
    if ending == "onnx":
        for library in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(library)
    write, check = {"pt2": (export_program, check_program), "onnx": (export_onnx, check_onnx)}[ending]
    model = toy_model(*example(name)).eval()
    write(model, tmp_path / f"net.{ending}")
    assert check(model, tmp_path / f"net.{ending}").holds


INSTALLED = """
import err_seg
from err_seg.plugins import imported_packages
cfg = err_seg.get_cfg("mini/err_seg", ["MODEL.GUD.NAME", "shuffle", "OUTPUT_DIR", "out"])
print(sorted(imported_packages().items()))
print(type(err_seg.build_model(cfg).head.gud).__name__)
"""


@pytest.mark.parametrize("names", [["shuffle_decoder"], pytest.param(NAMES, marks=pytest.mark.slow)])
def test_installed_packages_are_found_by_their_entry_points(names, tmp_path):
    for name in names:  # a build leaves files beside the sources
        shutil.copytree(EXAMPLES / name, tmp_path / "sources" / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    sources = [str(tmp_path / "sources" / name) for name in names]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), *sources], check=True, timeout=300)
    shutil.rmtree(tmp_path / "sources")
    variables = {**environment(), "PYTHONPATH": f"{tmp_path / 'site'}:{environment()['PYTHONPATH']}"}
    command = [sys.executable, "-c", INSTALLED]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [str([(name, "1.0") for name in names]), "PixelShuffleDecoder"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {"street_data"}))
def test_an_example_runs_as_its_readme_says(name, tmp_path):
    variables = {**environment(), "PYTHONPATH": f"{EXAMPLES / name}:{environment()['PYTHONPATH']}"}
    command = [sys.executable, "-m", "err_seg", "train", "--engine", "plain"]
    command += [
        "--config-file",
        str(EXAMPLES / name / "train.yaml"),
        "SOLVER.MAX_ITER",
        "1",
        "SOLVER.IMS_PER_BATCH",
        "2",
    ]
    command += [
        "OUTPUT_DIR",
        "out",
        "DATASETS.TEST",
        "['mini_world_test_24']",
        "DATASETS.TRAIN",
        "['mini_world_train_8']",
        "DATASETS.VAL",
        "[]",
        "DATASETS.ROOT",
        ".",
    ]
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"imported {name} 1.0" in (tmp_path / "out/log.txt").read_text()
