"""Prediction of a whole data set with Ray Data (``pip install 'err_seg[ray]'``), on one machine or many.

import ray
from err_seg.ray_data import predict_rows

images = ray.data.read_binary_files("/data/photos", include_paths=True)
rows = predict_rows(images, "err-seg-b", ["cat", "sofa, couch", "wall"], num_gpus=1, concurrency=8)
rows.write_parquet("/data/labels")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray

from err_seg.data import ImageReadError, read_image
from err_seg.evaluation import rle_segments
from err_seg.jobs.label_set import UNLABELED, LabelSet, parse_words
from err_seg.models import hub

Row = dict[str, Any]


class Predictor:
    """A worker of Ray Data: holds the network, takes batches of encoded images, returns rows of labels.

    Args:
        model: a name or file for :func:`err_seg.load`, which every machine can read.
        words: the classes.
        num_kept: K, instead of the model's own.
        options: keyword arguments of :func:`err_seg.load`.
    """

    def __init__(self, model: str, words: LabelSet, num_kept: int | None, options: Mapping[str, Any]):
        self.model = hub.load(model, **options)
        self.words = words
        self.num_kept = num_kept

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Label images.

        Args:
            batch: "path" and "bytes" (encoded images), as ``ray.data.read_binary_files`` gives them.

        Returns:
            See :func:`predict_rows`.
        """
        rows = []
        for path, data in zip(batch["path"], batch["bytes"], strict=True):
            try:
                rows.append(self._predict(str(path), read_image(data, str(path))))
            except ImageReadError as error:
                rows.append(_row(str(path), error=str(error)))
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _predict(self, path: str, image: np.ndarray) -> Row:
        result = self.model.predict(image, self.words.vocabulary, num_kept=self.num_kept)
        labels = self.words.labels(result)
        return _row(path, result.size, rle_segments(labels, path, self.words.classes, ignore_label=UNLABELED))


def predict_rows(
    images: "ray.data.Dataset",
    model: str,
    classes: Sequence[str],
    *,
    background: Sequence[str] = (),
    num_kept: int | None = None,
    concurrency: int = 1,
    batch_size: int = 8,
    num_cpus: float | None = None,
    num_gpus: float = 0,
    **options: Any,
) -> "ray.data.Dataset":
    """Label a data set of encoded images.

    Args:
        images: rows with "path" and "bytes".
        model: a name or file for :func:`err_seg.load`.
        classes: class names.
        background: as the command's ``--background``.
        num_kept: K, instead of the model's own.
        concurrency: number of workers, each with its own network.
        batch_size: images that a worker takes at a time.
        num_cpus, num_gpus: of each worker; reading the images needs one more CPU.
        options: further keyword arguments of :func:`err_seg.load`.

    Returns:
        One row per image: "path", "height", "width", "classes" (names that occur), "labels" (their indices), "pixels"
        and "counts" (the masks in COCO's compressed run-length coding), "nothing" (pixels of no class), and "error",
        which is empty unless the image could not be read.

    Raises:
        LabelSetError: words that cannot be used.
    """
    words = parse_words(classes, background)
    return images.map_batches(
        Predictor,
        fn_constructor_args=(model, words, num_kept, options),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


def _row(path: str, size: tuple[int, int] = (0, 0), segments: Sequence[Row] = (), error: str = "") -> Row:
    pixels = [segment["area"] for segment in segments]
    return {
        "path": path,
        "height": size[0],
        "width": size[1],
        "classes": [segment["category_name"] for segment in segments],
        "labels": [segment["category_id"] for segment in segments],
        "pixels": pixels,
        "counts": [segment["segmentation"]["counts"] for segment in segments],
        "nothing": size[0] * size[1] - sum(pixels),
        "error": error,
    }
