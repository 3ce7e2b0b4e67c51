"""Results for supervision (Roboflow): ``pip install "err_seg[supervision]"``."""

from typing import Any

import numpy as np

try:
    import supervision
except ImportError as error:
    raise ImportError(f'this needs supervision ({error}): pip install "err_seg[supervision]"') from error


def detections(result: Any) -> supervision.Detections:
    """Return a detection for each class that occurs, in label order.

    Each has the class's mask (H, W) bool, the box around it, ``class_id`` (the label), ``confidence`` (the mean
    probability, in 0..1) and ``class_name`` in ``data``.

    Args:
        result: an ``err_seg.Segmentation``.
    """
    labels, scores = result.labels.cpu().numpy(), result.scores.cpu().numpy()
    classes = np.unique(labels[labels >= 0])
    masks = labels == classes[:, None, None]
    return supervision.Detections(
        xyxy=supervision.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=classes.astype(int),
        confidence=np.array([scores[mask].mean() for mask in masks], dtype=np.float32),
        data={"class_name": np.array([result.vocabulary[label] for label in classes])},
    )
