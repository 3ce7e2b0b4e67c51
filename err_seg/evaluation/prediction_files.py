"""Predictions of a benchmark as files: label maps, run-length segments, overlays."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from err_seg.data import DatasetSpec, read_image
from err_seg.evaluation import rle_segments, save_label_png, save_rle_json
from err_seg.utils.files import write_text
from err_seg.utils.images import save_image
from err_seg.visualization.overlay import overlay


class PredictionFiles:
    """Writes the files that ``TEST.SAVE`` asks for.

    - ``"png"``: ``labels/<name>.png``, class indices with a palette (16-bit grey for more than 255 classes);
    - ``"rle"``: ``sem_seg_predictions.json``, COCO's run-length segments of all images;
    - ``"overlay"``: ``overlays/<name>.png``, the classes' colours over the image, with a legend.

    The classes are those of the ground truth: in a background variant, all other words become "background".

    Args:
        folder: the benchmark's folder.
        kinds: any of the three.
        spec: the benchmark.
        names: name of each image by its index.
    """

    def __init__(self, folder: Path, kinds: Sequence[str], spec: DatasetSpec, names: Sequence[str]):
        self.folder, self.kinds, self.spec, self.names = folder, kinds, spec, names
        self._segments = folder / "segments"  # of each image, until all are done

    def save(self, index: int, image_path: str, labels: np.ndarray) -> None:
        """Write the files of one image; ``labels`` (H, W) are indices into the benchmark's vocabulary."""
        name, classes = self.names[index], self.spec.evaluated_classes
        labels = np.minimum(labels, len(classes) - 1)
        if "png" in self.kinds:
            save_label_png(labels, self.folder / "labels" / f"{name}.png", classes)
        if "rle" in self.kinds:
            segments = rle_segments(labels, image_path, classes)
            write_text(self._segments / f"{index:07d}.json", json.dumps(segments))
        if "overlay" in self.kinds:
            image = overlay(read_image(image_path), labels, classes)
            save_image(image, self.folder / "overlays" / f"{name}.png")

    def finish(self) -> None:
        """Put the segments of all images into one file (in one process, when all are done)."""
        if "rle" in self.kinds:
            files = (self._segments / f"{index:07d}.json" for index in range(len(self.names)))
            segments = (segment for file in files for segment in json.loads(file.read_text(encoding="utf-8")))
            save_rle_json(segments, self.folder / "sem_seg_predictions.json")
            shutil.rmtree(self._segments)
