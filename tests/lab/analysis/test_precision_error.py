import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from err_seg.commands import analyze
from err_seg.evaluation.benchmarks import new_counts
from err_seg.evaluation.loop import count_images
from err_seg.evaluation.predictors import NetworkPredictor
from err_seg.lab.analysis.precision_error import measure_precision_error, precision_table
from err_seg.mini.clip import ERR_SEG_WEIGHTS

CLASSES = ("cat", "grass", "sky", "tree", "dog")


@pytest.fixture
def pairs(write_pairs, images):
    labels = [np.arange(image.shape[0] * image.shape[1]).reshape(image.shape[:2]) % 5 for image in images]
    return write_pairs([label.astype(np.uint8) for label in labels], CLASSES, images, num_kept=3)


@pytest.mark.parametrize("seen", [(), ("TEST.TILE", 48, "TEST.REFINE", True)])
def test_fp32_is_evaluations_and_the_others_differ_a_little(toy_cfg, toy_model, pairs, seen):
    cfg, model = toy_cfg("TEST.BATCH_SIZE", 2, *seen), toy_model()
    exact, low = measure_precision_error(cfg, model, pairs, ["bf16"])
    assert (exact.precision, low.precision) == ("fp32", "bf16")
    assert (exact.same_kept, exact.same_labels, exact.mean_error, exact.max_error) == (1, 1, 0, 0)
    assert 0 < low.mean_error < low.max_error < 0.1
    assert low.same_labels < 1
    assert model.precision == "fp32"

    class Kept:
        done = frozenset()
        unsaved = 0

        def kept(self, counts):
            return torch.no_grad()

        def counting(self):
            return nullcontext({})

        def save(self, counts):
            pass

    counts = new_counts(pairs.spec, "cpu", boundary_iou=False)
    count_images(cfg, NetworkPredictor(cfg, model), pairs, counts, Kept(), None)
    assert exact.miou == counts.metrics(CLASSES)["mIoU"]
    assert "|      bf16 | " in precision_table([exact, low])


def test_no_image_keeps_the_same_classes(toy_cfg, toy_model, pairs, monkeypatch):
    model, asked = toy_model(), []
    choose = model.head.choose

    def another(*arguments):
        kept, scores = choose(*arguments)
        asked.append(None)
        return (kept + len(asked) % 2) % len(CLASSES), scores

    monkeypatch.setattr(model.head, "choose", another)
    _, low = measure_precision_error(toy_cfg(), model, pairs, ["fp16"])
    assert low.same_kept == 0
    assert math.isnan(low.max_error)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["precision", "--config-file", "mini/err_seg", "--datasets", "mini_world_test_4"]
    arguments += ["--opts", "MODEL.WEIGHTS", str(ERR_SEG_WEIGHTS), "MODEL.DEVICE", "cpu"]
    assert analyze.main(arguments) == 0
    assert "|      bf16 | " in capsys.readouterr().out
    results = json.loads((tmp_path / "output/analysis/precision.json").read_text())
    assert [result["precision"] for result in results] == ["fp32", "bf16", "fp16"]
    assert all(result["same_labels"] > 0.99 for result in results)
