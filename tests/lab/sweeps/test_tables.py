import csv
import json
import math

import pytest
import torch

from err_seg.evaluation import BenchmarkResult, ConfusionMatrix, save_results
from err_seg.lab.sweeps.definition import SweepError, load_sweep
from err_seg.lab.sweeps.plan import plan_runs
from err_seg.lab.sweeps.results import MACS, MEMORY, VariantResult, measured_rows, paper_difference, verdict
from err_seg.lab.sweeps.tables import draw_sweep, markdown_table, save_tables
from err_seg.mini.vocabulary import SEEN, UNSEEN, VOCABULARY
from tests.helpers.toy import REPOSITORY

SWEEPS = REPOSITORY / "configs/ablations"


def row(name="row", all_=(), paper=None):
    return VariantResult(name, list(range(len(all_))), {"all": list(all_)} if len(all_) else {}, paper or {})


REFERENCE = row("full", (60.0, 62.0, 61.0), {"A-847": 10.0, "PC-59": 50.0})


@pytest.mark.parametrize(
    ("figures", "paper", "expected"),
    [
        ((57.0, 60.0, 58.0), {"A-847": 9.0, "PC-59": 50.0}, "as in the paper"),
        ((57.0, 60.0, 58.0), {"A-847": 9.0, "PC-59": 52.0}, "other way round"),
        ((57.0, 64.0, 61.5), {"A-847": 9.0}, "within the spread"),
        ((57.0, 60.0, 58.0), {"A-847": 10.05, "PC-59": 50.0}, "none in the paper"),
        ((57.0,), {"A-847": 9.0}, ""),
        ((), {"A-847": 9.0}, ""),
        ((57.0, 60.0, 58.0), {}, ""),
    ],
)
def test_verdict(figures, paper, expected):
    assert verdict(row(all_=figures, paper=paper), REFERENCE, "all") == expected


def test_differences_are_taken_seed_by_seed():
    other = VariantResult("other", [2, 0], {"all": [60.0, 59.0]}, {"PAS-20": 1.0, "A-847": 11.0})
    assert verdict(other, REFERENCE, "all") == "other way round", "both are 1.0 lower, without any spread"
    assert paper_difference(other, REFERENCE) == 1.0, "over the columns that both have"
    assert paper_difference(REFERENCE, REFERENCE) is None


def write_result(run, name, miou=0.0, kept=None):
    """Write what an evaluation leaves."""
    metrics = {"mIoU": miou, **{f"IoU-{n}": 80.0 if i in SEEN else 40.0 for i, n in enumerate(VOCABULARY)}}
    names = list(VOCABULARY)
    run.training.begin()
    run.evaluation.begin()
    save_results([BenchmarkResult(name, metrics, names, [5] * len(names), 3, mean_kept=kept)], run.results)


def test_tables_of_the_real_data_hold_the_paper_beside_what_was_measured(tmp_path):
    sweep = load_sweep(SWEEPS / "table_xiii.yaml")
    runs = plan_runs(sweep, tmp_path / "runs")
    assert not any(r.values for r in measured_rows(sweep, runs))
    write_result(runs[1], "ade20k_847_val", 14.25)
    rows = measured_rows(sweep, runs)
    save_tables(sweep, rows, tmp_path, "the command")
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("# Table XIII: K in evaluation\n\n`the command`\n\n|")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    assert lines[0] == ["", "A-847", "PC-459", "A-150", "PC-59", "PAS-20", "seeds"]
    assert lines[2] == ["A-847, K = 32", "– (13.6)", "–", "–", "–", "–", "not run"]
    assert lines[3] == ["A-847, K = 48", "14.2 (13.9)", "–", "–", "–", "–", "1"]
    with open(tmp_path / "table.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert (table[1]["A-847"], table[1]["A-847 deviation"], table[1]["A-847 paper"]) == ("14.25", "", "13.9")
    assert (table[0]["A-847"], table[0]["seeds"]) == ("", "0")
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["rows"][1]["figures"] == {"A-847": [14.25]}
    (panel,) = draw_sweep(sweep, rows).axes
    assert panel.get_xscale() == "log"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == [
        "A-847",
        "PC-459",
        "A-150",
        "PC-59",
        "PAS-20",
    ]


def test_tables_of_the_miniature_world_compare_with_the_first_row(tmp_path):
    sweep = load_sweep(SWEEPS / "table_x.yaml", mini=True)
    runs = plan_runs(sweep, tmp_path / "runs")
    write_result(runs[0], "mini_world_test")
    (runs[0].training.folder / "metrics.json").write_text('{"max_mem": 1024}\n{"max_mem": 2048}\n{"sem_seg/mIoU": 9}\n')
    (runs[0].training.folder / "environment.json").write_text('{"cuda": "12.8"}')
    first, second, *_ = measured_rows(sweep, runs)
    (runs[0].training.folder / "environment.json").write_text('{"cuda": null}')
    assert MEMORY not in measured_rows(sweep, runs)[0].values, "a process's memory says nothing of the network's"
    assert first.mean("seen") == pytest.approx(80)
    assert first.mean("unseen") == pytest.approx(40)
    assert first.mean("all") == pytest.approx((80 * len(SEEN) + 40 * len(UNSEEN)) / len(VOCABULARY))
    assert first.mean(MEMORY) == 2.0
    assert 0 < first.mean(MACS) < 1
    assert second.mean("all") is None
    table = markdown_table(sweep, [first, second])
    assert "| SSR alone" in table
    assert "13.9 20.5 35.8 56.9, 95.3 GMAC, 4.2 GiB" in table
    with pytest.raises(SweepError, match="no entry 'plot'"):
        draw_sweep(sweep, [first, second])


def test_a_sweep_over_the_minimum_score_shows_how_many_classes_are_kept(tmp_path):
    sweep = load_sweep(SWEEPS / "adaptive_k.yaml", mini=True)
    runs = [run for run in plan_runs(sweep, tmp_path / "runs") if run.seed == 0]
    for run, kept in zip(runs, (12.0, 9.5, 7.25), strict=False):
        write_result(run, "mini_world_test", kept=kept)
    rows = measured_rows(sweep, runs)
    assert [row.mean("classes kept") for row in rows[:4]] == [12.0, 9.5, 7.25, None]
    assert "classes kept" in markdown_table(sweep, rows).splitlines()[0]
    miou, kept = draw_sweep(sweep, rows).axes
    assert miou.get_xscale() == "symlog"
    assert [text.get_text() for text in miou.get_legend().get_texts()] == ["seen", "unseen", "all"]
    (line,) = kept.get_lines()
    assert line.get_xydata().tolist() == [[0.0, 12.0], [0.0025, 9.5], [0.005, 7.25]]


def test_costs_are_counted_with_the_papers_vocabulary_and_k(tmp_path):
    """Table X: with SSR alone ESCF is cheaper than with CSR alone, which tells the paper's middle rows apart."""
    sweep = load_sweep(SWEEPS / "table_x.yaml")
    runs = plan_runs(sweep, tmp_path / "runs")
    for run in runs:
        write_result(run, "ade20k_847_val")
    macs = [row.mean(MACS) for row in measured_rows(sweep, runs)]
    assert macs == pytest.approx([86.3, 120.3, 143.2, 177.2], abs=0.1)


def test_undefined_figures_stay_undefined(tmp_path):
    sweep = load_sweep(SWEEPS / "table_ix.yaml")
    (run, *_) = runs = plan_runs(sweep, tmp_path / "runs")
    confusion = ConfusionMatrix(2, 255)
    confusion.update(torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 2, dtype=torch.int64))
    result = BenchmarkResult.from_counts("my_streets", confusion, ["a", "b"], 1)
    assert math.isnan(result.metrics["IoU-b"])
    run.training.begin()
    run.evaluation.begin()
    save_results([result], run.results)
    assert measured_rows(sweep, runs)[0].values == {"my_streets": [100.0]}


def test_seen_and_unseen_classes_have_columns_where_a_result_has_them(tmp_path):
    sweep = load_sweep(SWEEPS / "table_xiii.yaml")
    runs = plan_runs(sweep, tmp_path / "runs")
    for run, more in zip(runs, ({}, {"mIoU-seen": 30.0, "mIoU-unseen": 10.0, "hIoU": 15.0}), strict=False):
        run.training.begin()
        run.evaluation.begin()
        metrics = {"mIoU": 20.0, "IoU-a": 20.0, **more}
        save_results([BenchmarkResult("ade20k_150_val", metrics, ["a"], [5], 3)], run.results)
    rows = measured_rows(sweep, runs)
    assert rows[0].values == {"A-150": [20.0]}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown_table(sweep, rows).splitlines()]
    assert lines[0][-4:] == ["A-150, hIoU", "A-150, mIoU-seen", "A-150, mIoU-unseen", "seeds"]
    assert (lines[2][-4:-1], lines[3][-4:-1]) == (["–"] * 3, ["15.0", "30.0", "10.0"])
    draw_sweep(sweep, rows)


def test_a_sweep_of_own_benchmarks_has_no_columns_of_the_papers(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "title: Own\nbase: mini/err_seg\nsettings: {DATASETS.TEST: [mini_world_test_24]}\nvariants:\n"
        "  K = 4: {settings: {MODEL.CRM.NUM_KEPT: 4}}\n  K = 8: {settings: {MODEL.CRM.NUM_KEPT: 8}}\n"
    )
    sweep = load_sweep(file)
    runs = plan_runs(sweep, tmp_path / "runs")
    write_result(runs[0], "mini_world_test_24", 14.25)
    save_tables(sweep, measured_rows(sweep, runs), tmp_path, "the command")
    text = (tmp_path / "table.md").read_text()
    (header,) = (line for line in text.splitlines() if "seeds" in line)
    assert [cell.strip() for cell in header.strip("|").split("|")] == ["", "mini_world_test_24", "seeds"]
    assert "the paper's" not in text
    assert (
        (tmp_path / "table.csv")
        .read_text()
        .startswith("variant,seeds,mini_world_test_24,mini_world_test_24 deviation\n")
    )


def test_a_mean_of_all_but_the_first_row(tmp_path):
    file = tmp_path / "own.yaml"
    variants = "".join(
        f"  {name}: {{settings: {{MODEL.CRM.NUM_KEPT: {k}}}}}\n" for name, k in (("a", 9), ("b", 4), ("c", 8))
    )
    settings = "settings: {DATASETS.TEST: [mini_world_test_24]}\n"
    file.write_text(f"title: Own\nbase: mini/err_seg\n{settings}mean: true\nvariants:\n{variants}")
    sweep = load_sweep(file)
    runs = plan_runs(sweep, tmp_path / "runs")
    for run, miou in zip(runs, (50.0, 20.0, 30.0), strict=True):
        lines = markdown_table(sweep, measured_rows(sweep, runs)).splitlines()
        if run is runs[2]:
            assert [cell.strip() for cell in lines[-2].split("|")] == ["", "mean of all others", "–", "", ""]
        write_result(run, "mini_world_test_24", miou)
    last = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in markdown_table(sweep, measured_rows(sweep, runs)).splitlines()[-2:]
    ]
    assert last == [["mean of all others", "25.0", ""], ["of a", "50.0 %", ""]]
    file.write_text(file.read_text().replace("mean: true", "mean: 5"))
    with pytest.raises(SweepError, match="mean must be true or false, not 5"):
        load_sweep(file)
