import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from err_seg.evaluation import BoundaryConfusion, segmentation_metrics
from err_seg.evaluation.boundary import boundary_width, is_boundary

IGNORE = 255
NAMES = ["a", "b", "c"]


def band(mask, width):
    """Cut a mask to its boundary as the paper does: mask minus mask eroded, the outside of the image is empty."""
    return mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=width, border_value=0)


def oracle(images, ratio):
    values = []
    for c in range(len(NAMES)):
        both = either = present = 0
        for prediction, label in images:
            width = boundary_width(*label.shape, ratio)
            valid = label != IGNORE
            found, truth = band((prediction == c) & valid, width), band((label == c) & valid, width)
            both, either = both + (found & truth).sum(), either + (found | truth).sum()
            present += (label == c).sum()
        values.append(100 * both / either if present else math.nan)
    return values


def image(draw):
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    # Small maps repeated give regions that are larger than their boundary.
    zoom = draw(st.integers(1, 5))
    prediction = draw(npst.arrays(np.int64, shape, elements=st.integers(0, 2)))
    label = draw(npst.arrays(np.int64, shape, elements=st.sampled_from([0, 1, 2, IGNORE])))
    return np.kron(prediction, np.ones((zoom, zoom), np.int64)), np.kron(label, np.ones((zoom, zoom), np.int64))


@given(st.data(), st.sampled_from([0.02, 0.1]))
@settings(max_examples=60, deadline=None)
def test_agrees_with_eroding_the_mask_of_every_class(data, ratio):
    images = [image(data.draw) for _ in range(2)]
    boundary = BoundaryConfusion(3, IGNORE, dilation_ratio=ratio)
    for prediction, label in images:
        boundary.update(torch.from_numpy(prediction), torch.from_numpy(label))
    metrics = boundary.metrics(NAMES)
    expected = oracle(images, ratio)
    assert [metrics[f"BoundaryIoU-{name}"] for name in NAMES] == pytest.approx(expected, nan_ok=True)
    iou = segmentation_metrics(boundary.matrix, NAMES)
    smaller = [min(iou[f"IoU-{name}"], value) for name, value in zip(NAMES, expected, strict=True)]
    assert [metrics[f"min(IoU, B-Iou)-{name}"] for name in NAMES] == pytest.approx(smaller, nan_ok=True)


def test_boundary_of_a_square_by_hand():
    labels = torch.zeros(9, 9, dtype=torch.uint8)
    labels[2:7, 2:7] = 1
    boundary = is_boundary(labels, 1)
    ring = torch.zeros(9, 9, dtype=torch.bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    ring[[0, -1], :] = ring[:, [0, -1]] = True  # the image's rim bounds the background
    assert torch.equal(boundary, ring)


def test_a_shifted_square_scores_lower_at_its_boundary():
    label = torch.zeros(100, 100, dtype=torch.int64)
    label[20:80, 20:80] = 1
    prediction = label.roll(2, dims=1)
    boundary = BoundaryConfusion(2, IGNORE)
    boundary.update(prediction, label)
    metrics = boundary.metrics(["ground", "square"])
    iou = segmentation_metrics(boundary.matrix, ["ground", "square"])["IoU-square"]
    assert metrics["BoundaryIoU-square"] < iou - 20
    assert metrics["min(IoU, B-Iou)-square"] == metrics["BoundaryIoU-square"]
    assert metrics["mBoundaryIoU"] == pytest.approx((metrics["BoundaryIoU-square"] + metrics["BoundaryIoU-ground"]) / 2)


@pytest.mark.parametrize(("size", "width"), [((1, 1), 1), ((480, 640), 16), ((30, 40), 1), ((60, 65), 2)])
def test_the_band_is_two_percent_of_the_diagonal(size, width):
    assert boundary_width(*size) == width


def test_background_counts_as_in_the_confusion_matrix():
    label = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    boundary = BoundaryConfusion(2, IGNORE, background=1)
    boundary.update(torch.tensor([[0, 0, 5, 9], [0, 0, 7, 1]]), label)
    assert boundary.metrics(["a", "background"])["mBoundaryIoU"] == 100


def test_parts_and_batches_are_the_whole():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randint(0, 3, (4, 5, 6), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    label = prediction.roll(3, dims=2)
    label[:, :3] = IGNORE
    whole, first, second = (BoundaryConfusion(3, IGNORE) for _ in range(3))
    whole.update(prediction, label)
    first.update(prediction[0], label[0])
    second.update(prediction[1:], label[1:])
    merged = BoundaryConfusion.from_state(json.loads(json.dumps(first.state()))).merge(second)
    assert merged.metrics(NAMES) == whole.metrics(NAMES)
    assert 0 < whole.metrics(NAMES)["mBoundaryIoU"] < 100


def test_bad_settings_and_images_are_refused():
    boundary = BoundaryConfusion(3, IGNORE)
    with pytest.raises(ValueError, match="label holds 7"):
        boundary.update(torch.tensor([[0]]), torch.tensor([[7]]))
    with pytest.raises(ValueError, match=r"different widths .* 0\.02 and 0\.1 of the diagonal"):
        boundary.merge(BoundaryConfusion(3, IGNORE, dilation_ratio=0.1))
    with pytest.raises(ValueError, match="1 class names need"):
        boundary.metrics(["a"])


def test_without_images_there_are_no_figures_and_no_warnings(recwarn):
    assert all(math.isnan(value) for value in BoundaryConfusion(3, IGNORE).metrics(NAMES).values())
    assert not recwarn


def test_a_class_of_a_single_pixel_counts():
    label = torch.zeros(5, 5, dtype=torch.int64)
    label[2, 2] = 1
    boundary = BoundaryConfusion(3, IGNORE)
    boundary.update(label, label)
    metrics = boundary.metrics(NAMES)
    assert (metrics["BoundaryIoU-a"], metrics["BoundaryIoU-b"], metrics["mBoundaryIoU"]) == (100, 100, 100)
    assert math.isnan(metrics["BoundaryIoU-c"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
def test_every_integer_dtype_counts_alike(dtype):
    generator = torch.Generator().manual_seed(0)
    prediction, label = torch.randint(0, 3, (2, 1, 6, 6), generator=generator).repeat_interleave(3, 3)
    label[:, 2] = IGNORE
    expected, counted = BoundaryConfusion(3, IGNORE), BoundaryConfusion(3, IGNORE)
    expected.update(prediction, label)
    counted.update(prediction.to(dtype), label.to(dtype))
    assert counted.state() == expected.state()
