"""DATALOADER.SKIP_DAMAGED: training goes on without what cannot be read, and resumes exactly."""

import logging

import pytest

from err_seg.engine.run_log import SkippedSamples
from tests.helpers.training import assert_same_weights, metrics, run, stop_after


@pytest.mark.parametrize("workers", [0, 2])
def test_run_with_damaged_pairs_resumes_bit_by_bit_and_lists_them_once(
    damaged_cfg, tmp_path, monkeypatch, caplog, workers
):
    run(damaged_cfg("OUTPUT_DIR", str(tmp_path / "straight")))
    cfg = damaged_cfg("DATALOADER.NUM_WORKERS", workers)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(cfg)
    caplog.clear()
    run(cfg, resume=True)
    assert_same_weights(tmp_path / "straight/model_final.safetensors", tmp_path / "out/model_final.safetensors")
    keys = ("iteration", "total_loss", "lr")
    assert metrics(tmp_path / "out", *keys) == metrics(tmp_path / "straight", *keys)
    listed = (tmp_path / "out/damaged.txt").read_text().splitlines()
    assert listed == (tmp_path / "straight/damaged.txt").read_text().splitlines()
    assert sorted(line.split(": ")[0] for line in listed) == [
        str(tmp_path / "damaged_train/images/p3.png"),
        str(tmp_path / "damaged_train/labels/p7.png"),
    ]
    assert "skipping" not in caplog.text, "they were reported before the run was stopped"


def test_new_run_begins_a_new_list(damaged_cfg, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/damaged.txt").write_text("of an earlier run\n")
    run(damaged_cfg("SOLVER.MAX_ITER", 3))
    assert "of an earlier run" not in (tmp_path / "out/damaged.txt").read_text()
    assert len((tmp_path / "out/damaged.txt").read_text().splitlines()) == 2


def test_pairs_are_counted_and_told_of_once_by_whichever_process(tmp_path, caplog):
    first, second = SkippedSamples(tmp_path), SkippedSamples(tmp_path)
    first.add([])
    assert not (tmp_path / "damaged.txt").exists()
    with caplog.at_level(logging.WARNING):
        first.add(["a.png: cut\nshort", "b.png: empty", "b.png: empty"])
        second.add(["b.png: empty", "c.png: empty"])
        second.add(["a.png: cut\nshort"])
    assert (tmp_path / "damaged.txt").read_text() == "a.png: cut short\nb.png: empty\nc.png: empty\n"
    assert caplog.text.count("skipping a damaged pair") == 3
    assert f"damaged pairs so far: 2, listed in {tmp_path / 'damaged.txt'}" in caplog.text
    assert "damaged pairs so far: 3" in caplog.text
