"""Our figures and files beside those of detectron2's SemSegEvaluator on the same label files."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.evaluation import ConfusionMatrix, segmentation_metrics
from err_seg.visualization.label_files import rle_segments
from tests.helpers.rle import labels_from_rle

pytestmark = pytest.mark.d2

NAMES = ["wall", "sky", "tree", "predicted in vain", "nowhere", "boat"]
IGNORE = 255


def blobs(rng, shape, values):
    """Make regions of a few pixels' size."""
    coarse = rng.choice(values, size=(shape[0] // 8 + 1, shape[1] // 8 + 1))
    return np.kron(coarse, np.ones((8, 8), dtype=np.int64))[: shape[0], : shape[1]]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(3)
    made = []
    for shape in ((60, 90), (130, 77), (33, 200), (1, 5)):
        label = blobs(rng, shape, [0, 1, 2, 5, IGNORE])
        wrong = blobs(rng, shape, [0, 1, 2, 3, 5])
        keep = (rng.random(shape) < 0.7) & (label != IGNORE)
        made.append((np.where(keep, label, wrong), label))
    return made


@pytest.fixture(scope="module")
def reference(images, tmp_path_factory):
    """Run detectron2's evaluator: its figures, and its segments by image."""
    pytest.importorskip("err_seg.d2", exc_type=ImportError)
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    folder = tmp_path_factory.mktemp("detectron2")
    records = []
    for index, (_, label) in enumerate(images):
        Image.fromarray(label.astype(np.uint8)).save(folder / f"{index}.png")
        records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(folder / f"{index}.png")})
    name = "err_seg_evaluator_comparison"
    DatasetCatalog.register(name, lambda: records)
    ids = {10 * label + 3: label for label in range(len(NAMES))}
    MetadataCatalog.get(name).set(
        stuff_classes=NAMES, ignore_label=IGNORE, stuff_dataset_id_to_contiguous_id=ids, evaluator_type="sem_seg"
    )
    evaluator = SemSegEvaluator(name, distributed=False, output_dir=str(folder))
    evaluator.reset()
    for record, (prediction, _) in zip(records, images, strict=True):
        scores = torch.nn.functional.one_hot(torch.from_numpy(prediction), len(NAMES)).permute(2, 0, 1)
        evaluator.process([record], [{"sem_seg": scores}])
    figures = evaluator.evaluate()["sem_seg"]
    DatasetCatalog.remove(name)
    return figures, json.loads((folder / "sem_seg_predictions.json").read_text())


@pytest.fixture(scope="module")
def ours(images):
    confusion = ConfusionMatrix(len(NAMES), IGNORE)
    for prediction, label in images:
        confusion.update(torch.from_numpy(prediction), torch.from_numpy(label))
    return confusion


def test_figures(reference, ours):
    figures, _ = reference
    expected = {name: value for name, value in figures.items() if "ound" not in name and "min(" not in name}
    metrics = segmentation_metrics(ours.matrix, NAMES)
    assert metrics.pop("mIoU-v0.6") == pytest.approx(metrics["mIoU"] * 4 / 5)
    assert list(metrics) == list(expected)
    assert metrics == pytest.approx(expected, rel=1e-14, nan_ok=True)
    assert np.isnan(metrics["IoU-predicted in vain"])
    assert 0 < metrics["mIoU"] < 100


def test_prediction_file(reference, images):
    _, segments = reference
    ids = [10 * label + 3 for label in range(len(NAMES))]
    own = []
    for index, (prediction, _) in enumerate(images):
        own += rle_segments(prediction, f"{index}.jpg", NAMES, category_ids=ids)
        theirs = [segment for segment in segments if segment["file_name"] == f"{index}.jpg"]
        np.testing.assert_array_equal(labels_from_rle(theirs, category_ids=ids), prediction)
    keys = ("file_name", "category_id", "segmentation")
    assert [{key: segment[key] for key in keys} for segment in own] == segments
