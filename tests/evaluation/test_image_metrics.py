import numpy as np
import pytest

from err_seg.engine import evaluate
from err_seg.evaluation.metrics import IMAGE_METRICS, image_metrics
from err_seg.evaluation.results import load_image_counts


def counts_of(labels, truths, classes):
    """Count images of label maps in the plainest way: (I, 3, N)."""
    counts = np.zeros((len(labels), 3, classes), np.int32)
    for i, (label, truth) in enumerate(zip(labels, truths, strict=True)):
        for c in range(classes):
            counts[i, :, c] = ((label == c) & (truth == c)).sum(), (truth == c).sum(), (label == c).sum()
    return counts


def test_values_by_hand():
    truths = np.array([[0, 0, 0, 1], [2, 2, 2, 2]])
    labels = np.array([[0, 0, 3, 3], [2, 2, 2, 0]])
    # image 0: class 0 2/3, class 1 missed, class 3 only predicted; image 1: class 2 3/4, class 0 only predicted
    found = image_metrics(counts_of(labels, truths, 5))
    assert tuple(found) == IMAGE_METRICS
    expected = [
        ((2 / 3 + 0) / 2 + 3 / 4) / 2,
        (2 / 3 + 0 + 3 / 4) / 3,
        (2 / 3 + 3 / 4) / 2,
        (2 / 4 + 1 / 4) / 2,
        (1 / 4 + 0) / 2,
    ]
    np.testing.assert_allclose(list(found.values()), 100 * np.array(expected))


def test_what_is_right_and_what_is_ignored():
    truths = np.random.default_rng(0).integers(0, 4, (5, 60))
    assert list(image_metrics(counts_of(truths, truths, 4)).values()) == [100, 100, 100, 0, 0]
    counts = counts_of(truths, truths, 4)
    counts[2] = 0  # an image without a labelled pixel does not count
    assert list(image_metrics(counts).values()) == [100, 100, 100, 0, 0]
    assert np.isnan(list(image_metrics(np.zeros((3, 3, 4), int)).values())).all()


@pytest.mark.parametrize("classes", [2, 7])
def test_an_independent_loop_gives_the_same(classes):
    rng = np.random.default_rng(classes)
    truths, labels = rng.integers(0, classes, (2, 6, 40)) * rng.integers(0, 2, (2, 6, 1))
    by_image, by_class = [], {c: [] for c in range(classes)}
    for label, truth in zip(labels, truths, strict=True):
        ious = {c: ((label == c) & (truth == c)).sum() / ((label == c) | (truth == c)).sum() for c in np.unique(truth)}
        by_image.append(np.mean(list(ious.values())))
        for c, iou in ious.items():
            by_class[c].append(iou)
    found = image_metrics(counts_of(labels, truths, classes))
    assert found["mIoU-I"] == pytest.approx(100 * np.mean(by_image))
    assert found["mIoU-C"] == pytest.approx(100 * np.mean([np.mean(ious) for ious in by_class.values() if ious]))


def test_an_evaluation_reports_them(run_cfg, toy_model, tmp_path):
    cfg = run_cfg("OUTPUT_DIR", str(tmp_path / "run"))
    (result,) = evaluate(cfg, toy_model())
    counts = load_image_counts(tmp_path / "run" / "inference" / result.benchmark).counts
    assert {name: result.metrics[name] for name in IMAGE_METRICS} == image_metrics(counts)
