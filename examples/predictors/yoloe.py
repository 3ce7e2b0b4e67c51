"""YOLOE of ultralytics as a predictor: one mask for each instance, or none.

    pip install ultralytics
    err-seg evaluate --predictor examples/predictors/yoloe.py:YOLOESeg DATASETS.TEST "['pascal_voc_20b_val']"
    err-seg benchmark prediction --config-file err_seg_mobileclip2_s0 --predictor examples/predictors/yoloe.py:YOLOESeg

YOLOE_WEIGHTS names other weights, or a model without any (yoloe-11s-seg.yaml) to measure its time alone.
``one_map`` serves any method that finds masks of words.
"""

import os

import numpy as np
import torch
from ultralytics import YOLOE

NONE = -1


def one_map(masks: np.ndarray, scores: np.ndarray, classes: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Merge n masks (n, H, W) with their scores (n,) and classes (n,): a pixel's best mask wins, -1 without any."""
    labels = np.full(size, NONE)
    for i in np.argsort(scores, kind="stable"):  # the best is painted last
        labels[masks[i]] = classes[i]
    return labels


class YOLOESeg:
    """Finds instances of words."""

    def __init__(self) -> None:
        weights = os.environ.get("YOLOE_WEIGHTS", "yoloe-11s-seg.pt")
        self.settings = {"weights": weights}  # recorded with the results
        self.is_random = weights.endswith(".yaml")
        self.model = YOLOE(weights)
        self.names: list[str] = []

    def __call__(self, image: np.ndarray, names: list[str]) -> np.ndarray:
        """Label an image (H, W, 3), uint8 RGB, with N names; -1 where nothing was found."""
        if names != self.names:
            words = [name.split(",")[0] for name in names]  # the first of several synonyms
            embeddings = torch.randn(1, len(words), 512) if self.is_random else self.model.get_text_pe(words)
            self.model.set_classes([f"{i} {word}" for i, word in enumerate(words)], embeddings)  # names may repeat
            self.names = names
        result = self.model.predict(image[..., ::-1], retina_masks=True, verbose=False)[0]  # BGR in, masks of H×W out
        if result.masks is None:
            return np.full(image.shape[:2], NONE)
        found = result.boxes
        masks, classes = result.masks.data.cpu().numpy().astype(bool), found.cls.int().cpu().numpy()
        return one_map(masks, found.conf.cpu().numpy(), classes, image.shape[:2])
