"""Metrics of seen and unseen classes: their values, and every table that shows them."""

import csv
import json
import math

import pytest
import torch

from err_seg.config import ConfigError
from err_seg.data import register, spec_from_dict, unregister
from err_seg.engine import evaluate
from err_seg.engine.periodic_eval import check_selection, scalar_metrics
from err_seg.evaluation import (
    BenchmarkResult,
    ConfusionMatrix,
    copypaste_lines,
    load_results,
    save_results,
    save_summary_csv,
    summary_table,
)
from err_seg.evaluation.metrics import SEEN_METRICS, seen_metrics
from err_seg.models.card import TrainingRecord, model_card
from tests.helpers.toy import VOCABULARY


def result_of(name="own", groups=((0, 2), (1, 3))):
    """IoU 50, 100, NaN (no ground truth) and 0; two of the names are equal."""
    counts = ConfusionMatrix(4, 255)
    counts.update(torch.tensor([[0, 3, 1, 0]]), torch.tensor([[0, 0, 1, 3]]))
    return BenchmarkResult.from_counts(name, counts, ["bag", "cup", "bag", "sky"], 1, seen_and_unseen=groups)


def test_means_by_index_over_the_classes_with_ground_truth():
    metrics = result_of().metrics
    assert metrics["IoU-bag (0)"] == pytest.approx(100 / 3)
    assert metrics["mIoU-seen"] == pytest.approx(100 / 3), "the other class has no ground truth"
    assert metrics["mIoU-unseen"] == 50
    assert metrics["hIoU"] == pytest.approx(2 * 50 * (100 / 3) / (50 + 100 / 3))
    assert tuple(metrics)[-3:] == SEEN_METRICS


def test_where_a_group_has_nothing():
    assert math.isnan(result_of(groups=((2,), (0, 1))).metrics["mIoU-seen"])
    assert math.isnan(result_of(groups=((2,), (0, 1))).metrics["hIoU"])
    assert seen_metrics([0.0, 0.0], [0], [1])["hIoU"] == 0
    assert SEEN_METRICS[0] not in result_of(groups=()).metrics


def test_every_table_shows_them_where_a_result_has_them(tmp_path):
    with_groups, without = result_of(), result_of("other", ())
    table = [
        [cell.strip() for cell in row.strip("| ").split("|")]
        for row in summary_table([with_groups, without]).splitlines()
    ]
    assert table[0] == ["benchmark", "mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC", *SEEN_METRICS, "images"]
    assert table[2][6:] == ["33.33", "50.00", "40.00", "1"]
    assert table[3][6:] == ["-", "-", "-", "1"]
    assert "hIoU" not in summary_table([without])

    save_summary_csv([with_groups, without], tmp_path / "results.csv")
    rows = list(csv.reader((tmp_path / "results.csv").open()))
    assert rows[0][-4:] == [*SEEN_METRICS, "pictures"]
    assert (float(rows[1][-2]), rows[2][-4:]) == (pytest.approx(40), ["", "", "", "1"])

    lines = copypaste_lines([with_groups])
    assert lines[:2] == ["copypaste: Task: sem_seg", "copypaste: mIoU,fwIoU,mACC,pACC,mIoU-seen,mIoU-unseen,hIoU"]
    assert copypaste_lines([without])[1] == "copypaste: mIoU,fwIoU,mACC,pACC"

    scalars = scalar_metrics([with_groups])
    assert scalars["sem_seg/mIoU-unseen"] == 50
    assert {"sem_seg/hIoU", "sem_seg/mIoU-seen"} <= scalars.keys()
    assert not any("IoU-bag" in name for name in scalars)

    save_results([with_groups], tmp_path / "results.json")
    assert load_results(tmp_path / "results.json")[0].metrics["hIoU"] == pytest.approx(40)
    assert "hIoU" in model_card("own", {}, TrainingRecord([with_groups]))
    assert "hIoU" not in model_card("own", {}, TrainingRecord([without]))


def test_the_best_weights_may_be_chosen_by_them(run_cfg, toy_world):
    specs = [spec_from_dict({**toy_world[1], **more}) for more in ({"seen": ["cat"]}, {})]
    check_selection(run_cfg("TEST.BEST_METRIC", "hIoU"), specs[:1])
    with pytest.raises(ConfigError, match="toy_val has no metric 'hIoU'"):
        check_selection(run_cfg("TEST.BEST_METRIC", "hIoU"), specs)


def test_an_evaluation_of_an_entry_that_says_what_is_seen(run_cfg, toy_model, toy_world):
    entry = {**toy_world[1], "name": "toy_seen", "seen": ["cat", "sofa", "tree"]}
    register(spec_from_dict(entry))
    try:
        plain, seen = evaluate(run_cfg("DATASETS.TEST", ["toy_val", "toy_seen"]), toy_model())
    finally:
        unregister("toy_seen")
    assert seen.metrics == pytest.approx({**plain.metrics, **{name: seen.metrics[name] for name in SEEN_METRICS}})
    iou = [seen.metrics[f"IoU-{name}"] for name in VOCABULARY]
    assert seen.metrics["mIoU-seen"] == pytest.approx((iou[0] + iou[3] + iou[5]) / 3)
    assert seen.metrics["mIoU-unseen"] == pytest.approx((iou[1] + iou[2] + iou[4] + iou[6]) / 4)
    assert json.dumps(seen.settings) == json.dumps(plain.settings)
