import csv
import json
import math

import pytest
import torch

from err_seg.evaluation import (
    BenchmarkResult,
    BoundaryConfusion,
    ConfusionMatrix,
    copypaste_lines,
    load_results,
    save_class_csv,
    save_results,
    save_summary_csv,
    summary_table,
)
from err_seg.evaluation.results import text_table


@pytest.fixture
def result():
    confusion = ConfusionMatrix(4, 255)
    confusion.update(torch.tensor([[0, 0, 0, 2], [0, 1, 2, 1]]), torch.tensor([[0, 0, 0, 0], [1, 1, 255, 255]]))
    names = ["bag", "bed ", "bag", "wall, [brick] | stone"]
    return BenchmarkResult.from_counts("A-4", confusion, names, 1, settings={"K": 2})


@pytest.fixture
def empty():
    return BenchmarkResult.from_counts("nothing", ConfusionMatrix(1, 255), ["a"], 0)


def same(first, second):
    return first == second or json.dumps(vars(first)) == json.dumps(vars(second))  # NaN equals itself in text


def test_json_round_trip_with_undefined_figures(result, empty, tmp_path):
    path = tmp_path / "new" / "results.json"
    save_results([result, empty], path)
    text = path.read_text(encoding="utf-8")
    assert "NaN" not in text
    stored = json.loads(text)["benchmarks"]
    assert stored["A-4"]["metrics"]["IoU-bag (2)"] is None
    assert stored["A-4"]["settings"] == {"K": 2}
    assert stored["A-4"]["class_pixels"] == [4, 2, 0, 0]
    loaded = load_results(path)
    assert [r.benchmark for r in loaded] == ["A-4", "nothing"]
    assert same(loaded[0], result)
    assert same(loaded[1], empty)


def test_a_failed_write_leaves_the_old_results(result, tmp_path):
    path = tmp_path / "results.json"
    save_results([result], path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="two results named 'A-4'"):
        save_results([result, result], path)
    unwritable = BenchmarkResult("x", {"mIoU": math.inf}, [], [], 0)
    with pytest.raises(ValueError, match="JSON compliant"):
        save_results([unwritable], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"benchmarks": []}', '{"benchmarks": {"a": {"mIoU": 3}}}', '{"benchmarks": {"a": 1}}'],
)
def test_what_is_no_results_file_is_refused_by_name(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json is no results file"):
        load_results(path)


def test_summary_csv(result, empty, tmp_path):
    save_summary_csv([result, empty], tmp_path / "summary.csv")
    with open(tmp_path / "summary.csv", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == ["benchmark", "mIoU", "mIoU-v0.6", "fwIoU", "mACC", "pACC", "pictures"]
    assert first[0] == "A-4"
    assert [float(cell) for cell in first[1:6]] == [result.metrics[name] for name in header[1:6]]
    assert first[6] == "1"
    assert second == ["nothing", "", "", "", "", "", "0"]


def test_class_csv(result, tmp_path):
    save_class_csv(result, tmp_path / "classes.csv")
    with open(tmp_path / "classes.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "IoU", "ACC", "pixels"],
        ["bag (0)", "60.0", "75.0", "4"],
        ["bed ", "50.0", "50.0", "2"],
        ["bag (2)", "", "", "0"],
        ["wall, [brick] | stone", "", "", "0"],
    ]


def test_summary_table(result, empty):
    assert summary_table([result, empty]).splitlines() == [
        "| benchmark |  mIoU | mIoU-v0.6 | fwIoU |  mACC |  pACC | images |",
        "|-----------|-------|-----------|-------|-------|-------|--------|",
        "| A-4       | 55.00 |     36.67 | 56.67 | 62.50 | 66.67 |      1 |",
        "| nothing   |     - |         - |     - |     - |     - |      0 |",
    ]


def test_a_table_shows_names_as_they_are(result):
    lines = text_table(["class", "IoU", "ACC", "pixels"], result.class_rows()).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["|", "bag", "(0)", "|", "60.00", "|", "75.00", "|", "4", "|"]
    assert "wall, [brick] \\| stone" in lines[-1]


def test_long_names_are_not_cut():
    table = text_table(["class"], [["x" * 300], ["电视"]])
    assert "x" * 300 in table
    assert "电视" in table


def test_copypaste_lines_as_detectron2_prints_them(result, empty):
    assert copypaste_lines([result]) == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU,fwIoU,mACC,pACC",
        "copypaste: 55.0000,56.6667,62.5000,66.6667",
    ]
    several = copypaste_lines([result, empty])
    assert several[0] == "copypaste: Task: A-4"
    assert several[3:] == [
        "copypaste: Task: nothing",
        "copypaste: mIoU,fwIoU,mACC,pACC",
        "copypaste: nan,nan,nan,nan",
    ]


def test_boundary_metrics_follow():
    counts = BoundaryConfusion(1, 255)
    counts.update(torch.tensor([[0]]), torch.tensor([[0]]))
    result = BenchmarkResult.from_counts("b", counts, ["a"], 1)
    assert copypaste_lines([result])[1:] == [
        "copypaste: mIoU,fwIoU,mACC,pACC,mBoundaryIoU",
        "copypaste: 100.0000,100.0000,100.0000,100.0000,100.0000",
    ]
