import numpy as np
import pytest

from err_seg.commands import compare as command
from err_seg.evaluation import BenchmarkResult, save_results
from err_seg.evaluation.metrics import segmentation_metrics
from err_seg.evaluation.results import save_image_counts
from err_seg.lab.comparison import (
    ComparisonTable,
    EvaluatedRun,
    bootstrap_miou,
    compare,
    differing_settings,
    interval,
    miou,
)

NAMES = ["cat", "sky & sea", "tree"]


def draw_images(rng, quality, images=12):
    """Return the confusion matrices [prediction, ground truth] of images, of which many pixels are right."""
    truth = np.random.default_rng(0).integers(0, 40, (images, 3))
    matrices = np.zeros((images, 3, 3), np.int64)
    for image in range(images):
        for label in range(3):
            share = np.full(3, (1 - quality) / 2)
            share[label] = quality
            matrices[image, :, label] = rng.multinomial(truth[image, label], share)
    return matrices


def counts_of(matrices):
    """Return (I, 3, N): right, ground truth, predicted."""
    return np.stack([matrices.diagonal(axis1=1, axis2=2), matrices.sum(1), matrices.sum(2)], axis=1).astype(np.int32)


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes what an evaluation leaves."""

    def write(name, matrices, settings=None, benchmark="A-3", images=None):
        total = matrices.sum(axis=0)
        metrics, pixels = segmentation_metrics(total, NAMES), total.sum(axis=0).tolist()
        folder = tmp_path / name
        save_results(
            [BenchmarkResult(benchmark, metrics, NAMES, pixels, len(matrices), settings or {})], folder / "results.json"
        )
        names = images or [f"{i:03d}" for i in range(len(matrices))]
        save_image_counts(folder / "inference" / benchmark, names, counts_of(matrices))
        return EvaluatedRun.read(folder)

    return write


def test_miou_of_counts_is_that_of_the_confusion_matrix():
    matrices = draw_images(np.random.default_rng(1), 0.7)
    matrices[:, 1] = matrices[:, :, 1] = 0  # a class that no image shows
    assert miou(counts_of(matrices).sum(axis=0)[None])[0] == segmentation_metrics(matrices.sum(axis=0), NAMES)["mIoU"]
    assert np.isnan(miou(np.zeros((1, 3, 4)))[0])


def test_the_bootstrap_draws_whole_images_and_the_same_ones_for_all_runs():
    first, second = (counts_of(draw_images(np.random.default_rng(seed), 0.7)) for seed in (1, 2))
    draws = bootstrap_miou([first, second, first], 120, seed=3)
    np.testing.assert_array_equal(draws[0], draws[2])
    weights = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), 120)
    for draw in (0, 55, 119):
        images = np.repeat(np.arange(12), weights[draw])
        expected = [miou(run[images].sum(axis=0)[None])[0] for run in (first, second)]
        np.testing.assert_allclose(draws[:2, draw], expected, rtol=1e-12)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    population = counts_of(draw_images(rng, 0.6, images=4000))
    truth, held = miou(population.sum(axis=0)[None])[0], 0
    for trial in range(150):
        drawn = population[rng.integers(0, 4000, 60)]
        (draws,) = bootstrap_miou([drawn], 200, trial)
        held += abs(miou(drawn.sum(axis=0)[None])[0] - truth) <= interval(draws)
    assert 0.88 <= held / 150 <= 0.99


def test_a_paired_difference_is_narrower_than_the_runs_themselves(write_run):
    matrices = draw_images(np.random.default_rng(1), 0.7)
    better = matrices.copy()
    moved = better[:, 1, 0] // 2  # half of the first class's pixels that are taken for the second's
    better[:, 1, 0] -= moved
    better[:, 0, 0] += moved
    first, second = write_run("first", matrices), write_run("second", better)
    metrics, classes = compare([first, second])
    assert metrics.header[:3] == ["run", "mIoU", "difference"]
    (one, other) = metrics.rows
    own, paired = float(one[1].split(" ± ")[1]), float(other[2].split(" ± ")[1])
    assert float(other[2].split(" ± ")[0]) > paired
    assert paired < own / 2
    assert [row[0] for row in classes.rows] == ["cat", "sky & sea"], "the class that did not change is left out"
    before, after = (segmentation_metrics(m.sum(axis=0), NAMES)["IoU-cat"] for m in (matrices, better))
    assert classes.rows[0][2:] == [before, after, f"{after - before:+.2f}"]


def test_settings_that_differ_are_found_inside_others(write_run):
    matrices = draw_images(np.random.default_rng(1), 0.7)
    first = write_run("first", matrices, {"K": 12, "S": 640, "source": {"sha256": "aa", "name": "b"}})
    second = write_run(
        "second", matrices, {"K": 4, "S": 640, "source": {"sha256": "bb", "name": "b"}, "predictor": "p"}
    )
    rows = differing_settings([first.results["A-3"], second.results["A-3"]])
    assert rows == [["K", "12", "4"], ["source.sha256", "aa", "bb"], ["predictor", "-", "p"]]
    settings, metrics = compare([first, second])  # no class changed
    assert settings.rows == rows
    assert metrics.rows[1][2] == "+0.00 ± 0.00"


def test_one_run_alone_is_summarised_with_all_classes(write_run):
    run = write_run("only", draw_images(np.random.default_rng(1), 0.7))
    metrics, classes = compare([run])
    assert "difference" not in metrics.header
    assert [row[0] for row in classes.rows] == NAMES
    assert classes.rows[1][1] == run.results["A-3"].class_pixels[1]


def test_without_image_counts_there_are_no_intervals(write_run):
    matrices = draw_images(np.random.default_rng(1), 0.7)
    first, second = write_run("first", matrices), write_run("second", matrices)
    file = second.folder / "inference" / "A-3" / "images.npz"
    file.unlink()
    metrics = compare([first, second])[0]
    assert metrics.note.startswith(f"No intervals: {file} is missing")
    assert metrics.rows[1][2] == "+0.00"


def test_runs_of_other_images_are_not_compared(write_run):
    matrices = draw_images(np.random.default_rng(1), 0.7)
    first = write_run("first", matrices)
    fewer = write_run("fewer", matrices[:8])
    with pytest.raises(ValueError, match="not evaluated on the same images of A-3: 12 and 8 images, 8 in both"):
        compare([first, fewer])
    relabelled = matrices.copy()
    relabelled[7, 0, 2] += 1
    other = write_run("other", relabelled)
    with pytest.raises(ValueError, match="the ground truth of 007 differs; evaluate both"):
        compare([first, other])
    elsewhere = write_run("elsewhere", matrices, benchmark="B-3")
    with pytest.raises(ValueError, match=r"no benchmark in common \(.*first: A-3; .*elsewhere: B-3\)"):
        compare([first, elsewhere])


def test_counts_of_another_evaluation_are_noticed(write_run):
    matrices = draw_images(np.random.default_rng(1), 0.7)
    run = write_run("run", matrices)
    save_image_counts(run.folder / "inference" / "A-3", [f"{i:03d}" for i in range(12)], counts_of(matrices[::-1] // 2))
    with pytest.raises(ValueError, match=r"images\.npz is of another evaluation than the results of"):
        compare([run])


def test_latex():
    table = ComparisonTable("50 % of_all", ["class", "IoU"], [["sky & sea", float("nan")], ["a_b\\c", 1.25]], "−1 ± 2.")
    assert table.as_latex().splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{50 \% of\_all. $-$1 $\pm$ 2.}",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"class & IoU \\",
        r"\midrule",
        r"sky \& sea & - \\",
        r"a\_b\textbackslash{}c & 1.25 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


@pytest.mark.parametrize("suffix", [".md", ".tex"])
def test_the_command(write_run, tmp_path, capsys, suffix):
    first, second = (write_run(name, draw_images(np.random.default_rng(i), 0.7)) for i, name in enumerate(("a", "b")))
    output = tmp_path / f"comparison{suffix}"
    arguments = [str(first.folder), str(second.folder / "results.json"), "--per-class", "--output", str(output)]
    assert command.main([*arguments, "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert "±: 95 % interval of the bootstrap over images, 50 resamples, paired for differences." in printed
    assert "| tree " in printed
    assert ("\\toprule" if suffix == ".tex" else "| tree ") in output.read_text()


def test_mistakes_are_one_line(tmp_path, capsys):
    assert command.main([str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
    assert command.main([str(tmp_path), "--output", "table.html"]) == 1
    assert "--output table.html: expected a .md or .tex file" in capsys.readouterr().err
