"""Results as supervision's detections."""

import numpy as np
import pytest

supervision = pytest.importorskip("supervision")

VOCABULARY = ["cat", "grass", "sky", "tree"]


def test_a_detection_for_each_class(toy_model):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    result = toy_model().predict(image, VOCABULARY)
    detections = result.to_supervision()
    labels = result.labels.numpy()
    assert detections.class_id.tolist() == np.unique(labels).tolist()
    assert detections["class_name"].tolist() == [VOCABULARY[label] for label in detections.class_id]
    for mask, label, confidence, box in zip(
        detections.mask, detections.class_id, detections.confidence, detections.xyxy, strict=True
    ):
        assert np.array_equal(mask, labels == label)
        assert confidence == pytest.approx(result.scores.numpy()[mask].mean(), rel=1e-4)
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max(), rows.max()]
    annotated = supervision.MaskAnnotator().annotate(image.copy(), detections)
    assert not np.array_equal(annotated, image)
