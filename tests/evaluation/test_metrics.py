import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from err_seg.evaluation import ConfusionMatrix, class_pixels, segmentation_metrics, unique_names

IGNORE = 255
NAMES = ["wall", "sky", "tree", "rail", "boat"]


def oracle(prediction, label, names):
    """Compute every figure from sets of pixels, straight from the definitions; None: undefined."""
    pixels = [i for i, g in enumerate(label) if g != IGNORE]
    iou, acc, share, seen = {}, {}, {}, 0
    for c, name in enumerate(names):
        truth = {i for i in pixels if label[i] == c}
        found = {i for i in pixels if prediction[i] == c}
        seen += bool(truth | found)
        iou[name] = len(truth & found) / len(truth | found) if truth else None
        acc[name] = len(truth & found) / len(truth) if truth else None
        share[name] = len(truth) / len(pixels) if pixels else None
    present = [name for name in names if iou[name] is not None]
    total = sum(iou[name] for name in present)
    figures = {
        "mIoU": total / len(present) if present else None,
        "mIoU-v0.6": total / seen if seen else None,
        "fwIoU": sum(iou[name] * share[name] for name in present) if present else None,
        "mACC": sum(acc[name] for name in present) / len(present) if present else None,
        "pACC": sum(prediction[i] == label[i] for i in pixels) / len(pixels) if pixels else None,
    }
    figures |= {f"IoU-{name}": value for name, value in iou.items()}
    figures |= {f"ACC-{name}": value for name, value in acc.items()}
    return {name: math.nan if value is None else 100 * value for name, value in figures.items()}


def test_by_hand():
    # ground truth  a a a a b b . .      a: tp 3, gt 4, pred 4 (one on b): IoU 3/5
    # prediction    a a a c a b c b      b: tp 1, gt 2, pred 1: IoU 1/2; c: predicted only; d: nowhere
    label = torch.tensor([[0, 0, 0, 0], [1, 1, IGNORE, IGNORE]])
    prediction = torch.tensor([[0, 0, 0, 2], [0, 1, 2, 1]])
    confusion = ConfusionMatrix(4, IGNORE)
    confusion.update(prediction, label)
    metrics = segmentation_metrics(confusion.matrix, ["a", "b", "c", "d"])
    expected = {
        "mIoU": 100 * (3 / 5 + 1 / 2) / 2,
        "mIoU-v0.6": 100 * (3 / 5 + 1 / 2) / 3,
        "fwIoU": 100 * (3 / 5 * 4 / 6 + 1 / 2 * 2 / 6),
        "IoU-a": 60.0,
        "IoU-b": 50.0,
        "IoU-c": math.nan,
        "IoU-d": math.nan,
        "mACC": 100 * (3 / 4 + 1 / 2) / 2,
        "pACC": 100 * 4 / 6,
        "ACC-a": 75.0,
        "ACC-b": 50.0,
        "ACC-c": math.nan,
        "ACC-d": math.nan,
    }
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, rel=1e-12, nan_ok=True)
    assert class_pixels(confusion.matrix) == [4, 2, 0, 0]


@settings(deadline=None)
@given(
    npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6).flatmap(
        lambda shape: st.tuples(
            npst.arrays(np.int64, shape, elements=st.integers(0, 4)),
            npst.arrays(np.int64, shape, elements=st.sampled_from([0, 1, 2, 3, 4, IGNORE])),
        )
    )
)
def test_every_figure_agrees_with_the_definitions(pair):
    prediction, label = pair
    confusion = ConfusionMatrix(5, IGNORE)
    confusion.update(torch.from_numpy(prediction), torch.from_numpy(label))
    metrics = segmentation_metrics(confusion.matrix.numpy(), NAMES)
    expected = oracle(prediction.ravel().tolist(), label.ravel().tolist(), NAMES)
    assert metrics == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


def test_the_two_formulas_differ_by_the_classes_predicted_in_vain():
    confusion = np.diag([8, 8, 0, 0])
    confusion[2, 0] = confusion[3, 1] = 8
    metrics = segmentation_metrics(confusion, ["a", "b", "c", "d"])
    assert (metrics["mIoU"], metrics["mIoU-v0.6"]) == (50.0, 25.0)


def test_an_empty_matrix_has_no_figures_and_no_warnings(recwarn):
    metrics = segmentation_metrics(np.zeros((2, 2), dtype=np.int64), ["a", "b"])
    assert len(metrics) == 9
    assert all(math.isnan(value) for value in metrics.values())
    assert not recwarn


def test_perfect_and_hopeless_predictions():
    assert segmentation_metrics(np.diag([3, 4]), ["a", "b"])["mIoU"] == 100
    hopeless = segmentation_metrics(np.array([[0, 4], [3, 0]]), ["a", "b"])
    assert [hopeless[name] for name in ("mIoU", "fwIoU", "mACC", "pACC", "IoU-a", "ACC-b")] == [0] * 6


def test_large_counts():
    metrics = segmentation_metrics(np.array([[2**40, 2**40], [0, 2**41]]), ["a", "b"])
    assert metrics["IoU-a"] == 50
    assert class_pixels(np.array([[2**62, 0], [1, 0]])) == [2**62 + 1, 0]


def test_equal_class_names_keep_their_own_figures():
    metrics = segmentation_metrics(np.diag([1, 2, 0]), ["bag", "cup", "bag"])
    assert metrics["IoU-bag (0)"] == 100
    assert math.isnan(metrics["IoU-bag (2)"])
    assert "IoU-cup" in metrics
    assert len(metrics) == 5 + 2 * 3


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "a (0)", "a (1)", "a (1) (1)", ""]), max_size=8))
def test_names_become_unique_and_single_ones_stay(names):
    unique = unique_names(names)
    assert len(set(unique)) == len(names)
    assert all(new.startswith(old) for new, old in zip(unique, names, strict=True))
    if len(set(names)) == len(names):
        assert unique == names


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.zeros((3, 3), dtype=np.int64), "2 class names"),
        (np.zeros((2, 3), dtype=np.int64), "2 class names"),
        (np.zeros((2, 2)), "integer counts"),
        (np.array([[1, -1], [0, 0]]), "found -1"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused(confusion, message):
    with pytest.raises(ValueError, match=message):
        segmentation_metrics(confusion, ["a", "b"])
