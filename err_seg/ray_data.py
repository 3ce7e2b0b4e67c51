"""Prediction of a whole data set with Ray Data (``pip install 'err_seg[ray]'``), on one machine or many.

import ray
from err_seg.ray_data import predict_rows

images = ray.data.read_binary_files("/data/photos", include_paths=True)
rows = predict_rows(images, "err-seg-b", ["cat", "sofa, couch", "wall"], num_gpus=1, concurrency=8)
rows.write_parquet("/data/labels")
"""

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from err_seg.data import ImageReadError, read_masked_image
from err_seg.jobs.label_set import UNLABELED, LabelSet, parse_label_set, without_empty
from err_seg.models import hub
from err_seg.text.vocabularies import VocabularySource
from err_seg.visualization.label_files import rle_segments

__all__ = ["Predictor", "predict_rows"]
Row = dict[str, Any]


class Predictor:
    """A worker of Ray Data: holds the network, takes batches of encoded images, returns rows of labels.

    The arguments are those of :func:`predict_rows`, with the classes and the background as a label set.
    """

    def __init__(
        self,
        model: str,
        label_set: LabelSet,
        contrast: VocabularySource | None,
        num_kept: int | None,
        options: Mapping[str, Any],
    ):
        self.model = hub.load(model, **options)
        self.label_set = label_set
        self.options = {"contrast": contrast, "num_kept": num_kept}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Label the encoded images of a batch, rows of "path" and "bytes"; returns rows of :func:`predict_rows`."""
        rows = [self._row(str(path), data) for path, data in zip(batch["path"], batch["bytes"], strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _row(self, path: str, data: bytes) -> Row:
        (height, width), segments, problem = (0, 0), list[Row](), ""
        try:
            image = read_masked_image(data, path)
            result = self.model.predict(image, self.label_set.vocabulary, **self.options)
            (height, width), labels = result.size, without_empty(self.label_set.labels(result), image)
            segments = rle_segments(labels, path, self.label_set.classes, ignore_label=UNLABELED)
        except ImageReadError as error:
            problem = str(error)
        pixels = [segment["area"] for segment in segments]
        return {
            "path": path,
            "height": height,
            "width": width,
            "classes": [segment["category_name"] for segment in segments],
            "labels": [segment["category_id"] for segment in segments],
            "pixels": pixels,
            "counts": [segment["segmentation"]["counts"] for segment in segments],
            "nothing": height * width - sum(pixels),
            "error": problem,
        }


def predict_rows(
    images: "ray.data.Dataset",
    model: str,
    classes: Sequence[str],
    *,
    background: Sequence[str] = (),
    contrast: VocabularySource | None = None,
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
        model: a name or file for :func:`err_seg.load`, which every machine can read.
        classes: class names.
        background: as the command's ``--background``.
        contrast: names that compete with the classes, see :meth:`err_seg.ERRSeg.predict`.
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
        LabelSetError: class names that cannot be used.
    """
    return images.map_batches(
        Predictor,
        fn_constructor_args=(model, parse_label_set(classes, background), contrast, num_kept, options),
        batch_size=batch_size,
        compute=ray.data.ActorPoolStrategy(size=concurrency),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
