"""Vocabularies of many names: the table, what is not run, and the memory of choosing."""

import json

import numpy as np
import pytest

from err_seg.config import get_cfg, shipped_configs
from err_seg.evaluation import BenchmarkResult
from err_seg.lab.benchmarks.measurement import in_new_process
from err_seg.mini.vocabulary import mini_vocabulary
from tools.studies import vocabularies
from tools.studies.vocabularies import (
    ALL,
    CRM,
    FREE,
    VocabularyResult,
    choosing_memory,
    estimated_memory,
    markdown,
    shown_miou,
)

CONFIG = shipped_configs() / "mini/err_seg_large.yaml"
MIOU = {"seen": 50.0, "unseen": 40.0, "all": 45.0}


def test_miou_is_that_of_the_names_shown():
    names = [*mini_vocabulary(100).names, "background"]
    iou = {f"IoU-{name}": 60.0 if index % 2 == 0 else 20.0 for index, name in enumerate(names)}
    iou[f"IoU-{names[1]}"], iou["IoU-background"] = float("nan"), 0.0  # one that no scene shows, and the distractors
    result = BenchmarkResult("mini_world_1000_test", iou, names, [1] * 101, 160)
    expected = {"seen": 60.0, "unseen": 20.0, "all": (50 * 60 + 49 * 20) / 99}
    assert shown_miou(result) == pytest.approx(expected)


def test_memory_of_more_classes_is_extrapolated():
    rows = [VocabularyResult(100, FREE, 0, 5e6, 1.0, MIOU), VocabularyResult(100, CRM, 12, 20e6, 1.0, MIOU)]
    assert estimated_memory(rows, 100) == 0
    rows.append(VocabularyResult(100, ALL, 100, 108e6, 1.0, MIOU))
    assert estimated_memory(rows, 10_000) == pytest.approx(108e6 + 9_900 * 1e6)
    rows.append(VocabularyResult(10_000, ALL, 10_000, estimated_memory(rows, 10_000)))
    assert estimated_memory(rows, 200) == pytest.approx(208e6), "what was not run teaches nothing"
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown(rows).splitlines()]
    assert table[3] == ["100", "CRM, K = 12", "50.0", "40.0", "45.0", "1", "19"]
    assert table[5] == ["10,000", "all kept, K = 10,000", "not run: needs 9.3 GB", "", "", "", ""]


def test_choosing_takes_no_more_memory_with_a_longer_vocabulary():
    cfg = get_cfg(CONFIG, ["MODEL.CLIP.PRETRAINED", "", "INPUT.SIZE", 640])
    assert in_new_process(choosing_memory, cfg, 10_000) < 55 * 2**20, (
        "C16 of all classes would be 61 MB, and is never made"
    )


@pytest.mark.slow
def test_the_command_measures_every_vocabulary(tmp_path, capsys):
    sets = ["DATASETS.TRAIN", "['mini_world_100_train_8']"]
    sets += ["DATASETS.TEST", "['mini_world_100_test_8', 'mini_world_5000_test_8']", "DATASETS.ROOT", str(tmp_path)]
    options = ["--output", str(tmp_path), "--most-memory", "1"]
    vocabularies.main([*options, *sets, "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2"])
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [(row["names"], row["method"]) for row in rows] == [(t, m) for t in (100, 5_000) for m in (FREE, CRM, ALL)]
    assert all(row["milliseconds"] > 0 and np.isfinite(row["miou"]["all"]) for row in rows[:5])
    assert rows[5]["miou"] is None
    assert "all kept, K = 5,000 | not run: " in capsys.readouterr().out
    assert (tmp_path / "results.png").stat().st_size > 5_000
