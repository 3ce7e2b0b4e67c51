"""The miniature world end to end: the command at toy size, the packaged network, metrics, table and image grid."""

import itertools
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import err_seg
from err_seg.commands.mini import main
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import evaluate
from err_seg.evaluation import BenchmarkResult, ConfusionMatrix, load_results
from err_seg.lab.mini import evaluation, stages
from err_seg.lab.mini.evaluation import BASELINE, GROUPS, evaluate_baseline, group_miou, seconds_per_image
from err_seg.lab.mini.pretraining import PretrainingConfig
from err_seg.lab.mini.stages import prediction_grid, print_table, save_report, summarize
from err_seg.mini.clip import CLIPS, ERR_SEG_WEIGHTS
from err_seg.mini.vocabulary import SEEN, UNSEEN, UNSEEN_COMBINATIONS, UNSEEN_WORDS, VOCABULARY
from tests.helpers.toy import REPOSITORY

CONFIG = REPOSITORY / "configs/mini/err_seg.yaml"
TWELVE = "mini_world_test_12"
TOY = [
    *("INPUT.SIZE", "64"),
    *("INPUT.CROP_SIZE", "64"),
    *("INPUT.MIN_SIZE_TRAIN", "[64]"),
    *("SOLVER.MAX_ITER", "3"),
    *("SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.DEVICE", "cpu"),
]


@pytest.fixture(scope="module")
def packaged():
    """Return the configuration and the network that the package brings."""
    cfg = err_seg.get_cfg(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", str(ERR_SEG_WEIGHTS)])
    return cfg, err_seg.build_model(cfg)


@pytest.mark.parametrize("file", sorted((REPOSITORY / "configs/mini").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_configuration_builds(file):
    cfg = err_seg.get_cfg(file, ["MODEL.DEVICE", "cpu"])
    model = err_seg.build_model(cfg)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    words = get_dataset(cfg.DATASETS.TEST[0]).vocabulary[:60]
    assert model.embed_vocabulary(words).shape == (60, 128)


def test_the_command_leaves_table_figures_and_images(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    output = tmp_path / "run"
    options = ["--output", str(output), "--scenes", "8", "4", "24", "--seeds", "3", "4"]
    assert main(["all", *TOY, *options]) == 0
    printed = capfd.readouterr().out
    assert "unseen" in printed
    assert "ERR-Seg, K = 60" in printed
    document = json.loads((output / "results.json").read_text())
    assert [run["seed"] for run in document["runs"]] == [3, 4]
    assert list(document["summary"]) == [BASELINE, "ERR-Seg, K = 12", "ERR-Seg, K = 60 (all)"]
    for run in document["runs"]:
        for row in run["rows"].values():
            parts = [row[group] * len(GROUPS[group]) for group in ("seen", "unseen")]
            assert sum(parts) / 60 == pytest.approx(row["all"])
    with Image.open(output / "predictions.png") as grid:
        assert grid.width > 1000
        assert grid.height > 1000

    first = document["runs"][0]["rows"]["ERR-Seg, K = 12"]["all"]
    assert main(["evaluate", *TOY, *options[:-1]]) == 0
    assert "model_final.safetensors" in capfd.readouterr().out
    again = json.loads((output / "results.json").read_text())["runs"][0]["rows"]
    assert again["ERR-Seg, K = 12"]["all"] == pytest.approx(first, abs=1e-3)


def test_the_command_pretrains(tmp_path, capsys, monkeypatch):
    toy = PretrainingConfig(
        steps=2, crops=60, crop_sides=(32,), crop_batch=8, scenes=8, scene_sides=(32,), scene_batch=4
    )
    monkeypatch.setitem(stages.SETTINGS, "mini", toy)
    assert main(["pretrain", "--output", str(tmp_path)]) == 0
    assert "zero-shot accuracy" in capsys.readouterr().out
    with safe_open(tmp_path / "clip.safetensors", "pt") as file:
        assert json.loads(file.metadata()["command"]).startswith("err-seg mini pretrain --output")
        assert "crop_batch=8" in file.metadata()["pretraining"]


def test_an_unknown_key_is_reported(tmp_path, capsys):
    assert main(["train", "--output", str(tmp_path), "SOLVER.MAX_ITERS", "3"]) == 1
    assert "did you mean SOLVER.MAX_ITER?" in capsys.readouterr().err


def test_the_packaged_network_beats_the_training_free_baseline(packaged, tmp_path):
    cfg, model = packaged
    settings = cfg.clone()
    settings.OUTPUT_DIR, settings.DATASETS.ROOT, settings.DATASETS.TEST = str(tmp_path), str(tmp_path), [TWELVE]
    baseline = evaluate_baseline(cfg, model, SegmentationPairs(get_dataset(TWELVE), tmp_path))
    (result,) = evaluate(settings, model)
    assert result.pictures == baseline.pictures == 12
    assert result.metrics["mIoU"] > baseline.metrics["mIoU"] + 10


def test_all_rows_of_the_table_are_of_the_same_part(packaged, tmp_path, monkeypatch):
    cfg, model = packaged
    settings, baseline = cfg.clone(), []
    settings.OUTPUT_DIR, settings.DATASETS.ROOT, settings.DATASETS.TEST = str(tmp_path), str(tmp_path), [TWELVE]
    settings.TEST.NUM_IMAGES = 3
    evaluate_all = evaluation.evaluate_baseline

    def note(cfg, model, pairs):
        baseline.extend(pairs.names)
        return evaluate_all(cfg, model, pairs)

    monkeypatch.setattr(evaluation, "evaluate_baseline", note)
    evaluation.measure(settings, model)
    assert baseline == ["00000", "00004", "00008"]
    for folder in ("K12", "K60"):
        (result,) = load_results(tmp_path / folder / "results.json")
        assert result.pictures == 3


def test_the_packaged_network_is_a_checkpoint_like_any_other(packaged, tmp_path):
    _, model = packaged
    by_file = err_seg.load(ERR_SEG_WEIGHTS, device="cpu")
    assert by_file.settings == model.settings
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, by_file.state_dict()[name]), name
    for name, tensor in load_file(CLIPS["mini"].weights).items():  # the CLIP is the one that training starts from
        assert torch.equal(tensor.float(), model.state_dict()[f"encoder.clip.{name}"]), name
    with safe_open(ERR_SEG_WEIGHTS, "pt") as file:
        assert "mini" in file.metadata()["command"]
    assert ERR_SEG_WEIGHTS.stat().st_size < 5.5e6
    stages.save_half(model.state_dict(), tmp_path / "saved.safetensors", {"command": "as in the test"})
    assert (tmp_path / "saved.safetensors").stat().st_size < 5.5e6


def test_figures_are_means_over_the_groups():
    confusion = ConfusionMatrix(60, 255)
    truth = torch.arange(60).repeat(2, 1)
    predicted = truth.clone()
    predicted[0, UNSEEN_WORDS[0]] = SEEN[0]
    confusion.update(predicted, truth)
    result = BenchmarkResult.from_counts("world", confusion, VOCABULARY, 1)
    figures = group_miou(result)
    assert figures["seen"] == pytest.approx(100 * (23 + 2 / 3) / 24)
    assert figures["unseen"] == pytest.approx(100 * (35 + 1 / 2) / 36)
    assert figures["unseen combinations"] == 100
    assert len(UNSEEN) == len(UNSEEN_COMBINATIONS) + len(UNSEEN_WORDS)


def test_groups_with_a_class_that_no_image_shows_have_no_figure():
    confusion = ConfusionMatrix(60, 255)
    truth = torch.tensor([SEEN])
    confusion.update(truth, truth)
    result = BenchmarkResult.from_counts("world", confusion, VOCABULARY, 1)
    assert group_miou(result) == {"seen": 100}


def test_too_few_test_scenes_leave_figures_out(tmp_path, monkeypatch, capsys, caplog):
    """It used to fail after the training: "28 classes occur in none of the 8 images"."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert main(["all", *TOY, "--output", str(tmp_path / "run"), "--scenes", "4", "4", "4"]) == 0
    told = caplog.messages[0]  # before all else
    assert re.search(r"'mini_world_test_4': 4 of 4 label maps hold no pixel of \d+ of 60 classes", told)
    assert "ERR-Seg, K = 60" in capsys.readouterr().out
    summary = json.loads((tmp_path / "run/results.json").read_text())["summary"]
    assert set(summary["ERR-Seg, K = 12"]) == {"ms", "fusion ms"}


def test_what_cannot_be_measured_is_told_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for test in ("['mini_world_test_4', 'mini_world_val_4']", "['mini_world_train_4']"):
        assert main(["all", *TOY, "--output", str(tmp_path), "DATASETS.TEST", test]) == 1
        assert "DATASETS.TEST must be one data set with the 60 names" in capsys.readouterr().err
    assert not list(tmp_path.glob("seed*"))


def test_fusion_is_timed_as_a_part_of_the_whole(packaged, monkeypatch):
    """By a clock that ticks when it is looked at: before and after the whole, ESCF and GUD."""
    _, model = packaged
    clock = itertools.count()
    monkeypatch.setattr(model, "size", 96)
    monkeypatch.setattr(evaluation, "_now", lambda _: float(next(clock)))
    images = [torch.zeros(3, 128, 160, dtype=torch.uint8)] * 3
    assert seconds_per_image(model, images, model.embed_vocabulary(VOCABULARY), 6) == (5, 2)
    assert next(clock) == 6 * 4, "an image to warm up, and each image once"


def test_grid_names_what_it_shows():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((128, 192), (160, 130))]
    truths = [np.full(image.shape[:2], UNSEEN[0]) for image in images]
    wrong = [np.where(np.arange(truth.shape[1]) < 40, SEEN[0], truth) for truth in truths]
    grid = prediction_grid(images, truths, {"ERR-Seg": wrong})
    right = prediction_grid(images, truths, {"ERR-Seg": truths})
    assert grid.width == right.width > 3 * 256
    assert np.asarray(grid).std() > 30
    assert (np.asarray(grid) != np.asarray(right)).any()


def test_report_over_seeds(tmp_path, capsys):
    runs = [{"row": {"seen": 50.0, "unseen": 40.0, "all": 44.0}}, {"row": {"seen": 52.0, "unseen": 44.0, "all": 47.0}}]
    assert summarize(runs)["row"]["seen"] == pytest.approx({"mean": 51, "stdev": 2**0.5})
    print_table(runs, [0, 1])
    assert "51.0 ± 1.4" in capsys.readouterr().out
    save_report(runs, [0, 1], {"command": "x"}, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text())["summary"]["row"]["unseen"]["mean"] == 42
