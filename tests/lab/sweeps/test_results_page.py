"""The results page, from a store of made-up runs."""

import json
import re

import numpy as np
import torch

from err_seg.commands.results import main
from err_seg.evaluation import BenchmarkResult, save_results
from err_seg.lab.analysis.class_recall import ClassRecall
from err_seg.lab.sweeps import results_page
from err_seg.lab.sweeps.definition import load_sweep
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.mini.vocabulary import VOCABULARY
from tests.helpers.toy import REPOSITORY


def write_runs(store, name, miou):
    """Write what runs of a sweep leave: a row of figures a seed, a figure a variant."""
    sweep = load_sweep(REPOSITORY / f"configs/ablations/{name}.yaml", mini=True)
    runs = plan_runs(sweep, store / "runs")
    for run, figure in zip(runs, miou, strict=False):
        run.training.begin()
        run.evaluation.begin()
        metrics = {"mIoU": figure, **{f"IoU-{name}": figure for name in VOCABULARY}}
        save_results([BenchmarkResult("mini_world_test", metrics, list(VOCABULARY), [1] * 60, 320)], run.results)
        facts = {"err_seg": "1.0", "packages": {"torch": torch.__version__}, "device": "cpu", "cuda": None}
        (run.training.folder / "metrics.json").write_text('{"max_mem": 1024}\n')
        (run.training.folder / "environment.json").write_text(json.dumps(facts))


def test_the_page_shows_what_was_run_and_names_what_was_not(tmp_path, capsys):
    write_runs(tmp_path / "sweeps", "fig_7", [60, 50, 61, 62, 60, 52])
    write_runs(tmp_path / "sweeps", "table_ix", [60, 59, 60, 58, 60, 57])
    page = tmp_path / "page" / "results.md"
    assert main(["--sweeps", str(tmp_path / "sweeps"), "--page", str(page)]) == 0
    text = page.read_text()
    assert "| plain MLP" in text
    assert "as in the paper" in text.split("## Table IX")[1].split("##")[0]
    assert "-2.0 ± 1.0" in text
    assert "14.1 20.1 35.6 56.3 94.7" in text, "the paper's row"
    shown, missing = text.split("## Not run")
    assert "table_vi.yaml" not in shown
    assert "* Table VI: gradient of stage 4: `python tools/sweep.py configs/ablations/table_vi.yaml --mini`" in missing
    for image in re.findall(r"!\[.*\]\((.+)\)", text):
        assert (page.parent / image).is_file()
    assert "(results/fig_7-mini.png)" in text
    assert "10 trainings of 500 iterations with 2 images each; err_seg 1.0, torch" in text


def test_miou_over_k_stands_beside_the_share_of_the_classes_that_are_kept(tmp_path, monkeypatch):
    write_runs(tmp_path, "table_xiii", [60, 20, 50])
    drawn, measured = {}, []

    def recall(cfg, model, pairs):
        measured.append((model, pairs))
        return ClassRecall("mini_world_test", 2, np.arange(60), np.arange(60))

    monkeypatch.setattr(results_page, "measure_class_recall", recall)
    monkeypatch.setattr(results_page, "build_model", lambda cfg: cfg.MODEL.WEIGHTS)
    monkeypatch.setattr(results_page, "SegmentationPairs", lambda spec, root: spec.name)
    monkeypatch.setattr(results_page, "save_figure", lambda figure, path: drawn.update({path: figure}))
    results_page.write_results(tmp_path, tmp_path / "page.md")
    ((model, pairs),) = measured
    assert (model.split("/")[-1], pairs) == ("model_final.safetensors", "mini_world_test")
    miou, share = drawn[tmp_path / "page/table_xiii-mini.png"].axes
    assert [container.lines[0].get_xydata().tolist() for container in miou.containers] == [
        [[2.0, 20.0], [4.0, 50.0], [12.0, 60.0]]
    ] * 3, "seen, unseen and all"
    (line,) = share.get_lines()
    assert line.get_xdata().tolist() == list(range(2, 13))
    title = "mIoU over K, and the share of the classes present that CRM keeps"
    assert f"![{title}](page/table_xiii-mini.png)" in (tmp_path / "page.md").read_text()


def test_without_any_run_it_says_what_to_do(tmp_path, capsys):
    assert main(["--sweeps", str(tmp_path), "--page", str(tmp_path / "results.md")]) == 1
    assert "first: python tools/sweep.py" in capsys.readouterr().err
    assert not (tmp_path / "results.md").exists()
