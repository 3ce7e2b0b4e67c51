import json

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from err_seg.lab.analysis.class_recall import (
    ClassRecall,
    class_ranks,
    draw_class_recall,
    draw_saturation,
    measure_class_recall,
    recall_table,
    save_class_recall,
)
from err_seg.visualization.plots import save_figure

CLASSES = ("cat", "grass", "sky", "tree", "dog", "sofa, couch", "traffic light", "bus", "sea")


@pytest.fixture
def toy_pairs(write_pairs, images):
    """Return a function from further declarations to a data set of three images of unequal sizes."""
    rng = np.random.default_rng(1)
    labels = [
        rng.choice([index, 2 * index + 1, 4, 255], image.shape[:2]).astype(np.uint8)
        for index, image in enumerate(images)
    ]
    return lambda **values: write_pairs(labels, CLASSES, images, **values)


def recall_by_prediction(model, pairs, num_kept, num_classes):
    """Count kept classes and pixels the long way: through the whole network, for one K."""
    samples = [pairs[index] for index in range(len(pairs))]
    with torch.no_grad(), model.evaluating():
        images = model.preprocess([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples])
        kept = model(images, model.embed_vocabulary(CLASSES), num_kept).kept.tolist()
    present = np.array([[(sample.label == value).sum() for value in range(num_classes)] for sample in samples])
    found = np.array([[value in classes for value in range(num_classes)] for classes in kept]) * present
    return (found > 0).sum() / (present > 0).sum(), found.sum() / present.sum()


@pytest.mark.parametrize("switches", [(), ("MODEL.HSM.ENABLED", False)])
def test_recall_is_that_of_the_classes_the_network_keeps(toy_cfg, toy_model, toy_pairs, switches):
    cfg = toy_cfg("INPUT.MIN_SIZE_TEST", 0, "TEST.BATCH_SIZE", 2, *switches)
    model, pairs = toy_model(*switches), toy_pairs(num_kept=3)
    recall = measure_class_recall(cfg, model, pairs)
    assert recall.images == 3
    assert recall.num_kept == 3
    for k in (2, 6):
        expected = recall_by_prediction(model, pairs, k, len(CLASSES))
        assert (recall.class_recall[k - 1], recall.pixel_recall[k - 1]) == pytest.approx(expected)
    assert recall.class_recall[-1] == recall.pixel_recall[-1] == 1


def test_background_does_not_count(toy_cfg, toy_model, toy_pairs):
    cfg = toy_cfg("INPUT.MIN_SIZE_TEST", 0)
    model, pairs = toy_model(), toy_pairs(variant="background", num_foreground=5)
    recall = measure_class_recall(cfg, model, pairs)
    expected = recall_by_prediction(model, pairs, 4, 5)
    assert (recall.class_recall[3], recall.pixel_recall[3]) == pytest.approx(expected)


def test_ranks_are_a_permutation_that_the_kept_classes_lead(toy_model, images):
    model = toy_model()
    with torch.no_grad(), model.evaluating():
        inputs = model.preprocess([torch.from_numpy(image).permute(2, 0, 1) for image in images])
        text = model.embed_vocabulary(CLASSES)
        ranks, kept = class_ranks(model, inputs, text), model(inputs, text).kept
    assert ranks.sort(dim=1).values.tolist() == [list(range(9))] * 3
    assert (ranks < 4).nonzero()[:, 1].view(3, 4).tolist() == kept.tolist()


def test_table_file_and_image(tmp_path):
    recall = ClassRecall("toy", 2, np.array([3, 1, 0, 0]), np.array([30, 0, 10, 0]), num_kept=2)
    empty = ClassRecall("empty", 1, np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64))
    lines = recall_table([recall, empty], (1, 2, 8)).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert rows[2] == ["toy", "4", "2", "classes", "75.00", "100.00", "-"]
    assert rows[3] == ["toy", "4", "2", "pixels", "75.00", "75.00", "-"]
    assert rows[4] == ["empty", "2", "-", "classes", "-", "-", "-"]

    save_class_recall([recall], tmp_path / "recall.json")
    assert json.loads((tmp_path / "recall.json").read_text())["toy"]["pixels_by_rank"] == [30, 0, 10, 0]

    figure = draw_class_recall([recall])
    curve, dot = figure.axes[1].lines
    assert list(curve.get_ydata()) == [0.75, 0.75, 1, 1]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (2, 0.75)
    save_figure(figure, tmp_path / "recall.png")
    assert Image.open(tmp_path / "recall.png").format == "PNG"


def test_saturation():
    panel = Figure().subplots()
    draw_saturation(panel, ClassRecall("toy", 2, np.array([2, 1, 1, 0]), np.ones(4, dtype=np.int64)), [2, 8, 1])
    (curve,) = panel.lines
    assert list(curve.get_xdata()) == [1, 2, 3, 4]  # no recall where K > T
    assert list(curve.get_ydata()) == [50, 75, 100, 100]
