"""The studies behind figures in the documentation: their numbers by hand, and short runs."""

import json

import numpy as np
import pytest
import torch

from err_seg.evaluation import ConfusionMatrix
from err_seg.mini.scenes import MiniScenes
from err_seg.prediction.class_maps import UNLABELED
from tools.studies import confidence, words


def test_columns_by_hand():
    """100 pixels, of which the first 5 and the last 5 are wrong; the first 8 are the least confident ones."""
    counts, prediction = ConfusionMatrix(2, 255), torch.zeros(1, 100, dtype=torch.int64)
    counts.count_confidence(((0,), (1,)))
    label, trust = prediction.clone(), torch.full((1, 100), 0.95)
    label[0, :5] = label[0, -5:] = 1
    trust[0, :8] = 0.55
    counts.update(prediction, label, trust)
    found = confidence.columns_of(counts, [(3.0, 6, 2), (9.0, 6, 4), (1.0, 50, 3)])
    assert found["ECE"] == pytest.approx(100 * (8 * abs(0.55 - 3 / 8) + 92 * abs(0.95 - 87 / 92)) / 100, abs=0.03)
    assert found[confidence.PIXELS] == pytest.approx(100 * (5 + 2 * 5 / 92) / 10, abs=1.0)
    assert found[confidence.REGIONS] == pytest.approx(100 * (4 + 2 * 4 / 6) / 10)


def test_a_run_writes_what_it_prints(tmp_path, capsys):
    confidence.main(["--networks", "mini", "mini", "--scenes", "3", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert out == (tmp_path / "results.md").read_text()
    document = json.loads((tmp_path / "results.json").read_text())
    assert len(document["found"]) == len(document["calibrations"]) == 2
    for row in document["found"][0].values():
        assert list(row) == list(confidence.COLUMNS)
        assert all(0 <= value <= 100 for value in row.values())
    assert " ± 0.00" in out


def test_pixels_are_ranked_by_hand():
    truths = np.array([True, True, True, False, False])
    auroc, rate = words.ranking(np.array([0.9, 0.8, 0.1, 0.5, 0.1]), truths)
    assert auroc == pytest.approx((2 + 2 + 0.5) / 6)  # of the six pairs, one is equal and one is wrong
    assert rate == 1.0


def test_half_of_the_names_asked_for_are_there():
    scenes = MiniScenes("test", length=3)
    for ask in words.questions(scenes, 4):
        assert len(set(ask.names)) == 4
        assert set(np.unique(ask.label)) - {UNLABELED} == {0, 1}
    present, absent, *_ = words.questions(scenes, 1)
    assert (present.label == 0).any()
    assert (absent.label == UNLABELED).all()


def test_contrast_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(words, "ASKED", (1,))
    monkeypatch.setattr(words, "in_new_process", lambda *_: (1.0, 2.0))
    words.main(["--scenes", "2", "--output", str(tmp_path)])
    rows = {row["contrast"]: row["metrics"][0] for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert rows["common"]["IoU"] > rows["off"]["IoU"] + 30
    assert (rows["off"]["false area"], rows["common"]["false area"]) == (50, 0)  # all of every second image
    assert rows["threshold"]["accuracy"] >= 90
