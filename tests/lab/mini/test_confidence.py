"""err-seg mini confidence: its numbers by hand, and a run."""

import json

import pytest
import torch

from err_seg.commands import mini
from err_seg.evaluation import ConfusionMatrix
from err_seg.lab.mini import confidence


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
    mini.main(["confidence", "--networks", "mini", "mini", "--scenes", "3", "--output", str(tmp_path)])
    out = capsys.readouterr().out
    assert out == (tmp_path / "confidence.md").read_text()
    document = json.loads((tmp_path / "confidence.json").read_text())
    assert len(document["found"]) == len(document["calibrations"]) == 2
    for row in document["found"][0].values():
        assert list(row) == list(confidence.COLUMNS)
        assert all(0 <= value <= 100 for value in row.values())
    assert " ± 0.00" in out
