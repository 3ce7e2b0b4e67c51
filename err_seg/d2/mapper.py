"""The images of the plain engine in detectron2's form: dictionaries."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.config import configurable
from fvcore.common.config import CfgNode

from err_seg.d2.catalog import FILES, LABEL_FILE, spec_of
from err_seg.d2.config import from_detectron2
from err_seg.data import Batch, DatasetSpec, EvaluationTransform, TrainingTransform, read_image
from err_seg.data.dataset import read_sample
from err_seg.engine.run_log import SkippedSamples
from err_seg.engine.run_setup import training_transform
from err_seg.evaluation.tta import evaluation_transform


def batches_of_records(
    batches: Iterable[Batch], dataset_name: str, skipped: SkippedSamples
) -> Iterator[list[dict[str, Any]]]:
    """Turn the plain engine's batches into lists of dictionaries, which the model takes; list the skipped pairs."""
    for batch in batches:
        skipped.add(batch.damaged)
        yield [
            {"file_name": path, "image": image, "sem_seg": label, "dataset_name": dataset_name}
            for path, image, label in zip(batch.paths, batch.images, batch.labels, strict=True)
        ]


class ERRSegMapper:
    """Reads and transforms an image, in training with its label map, as the plain engine does.

    Args:
        transform: that of training, or that of evaluation.
        train_dataset: in training, the data set of records that do not name theirs.
    """

    @configurable
    def __init__(self, transform: TrainingTransform | EvaluationTransform, train_dataset: DatasetSpec | None = None):
        self.transform, self.train_dataset = transform, train_dataset

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Translate ``cfg.INPUT`` into the constructor's arguments."""
        cfg = from_detectron2(cfg)
        if is_train:
            spec = spec_of(cfg.DATASETS.TRAIN[0]).for_training(cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES)
            return {"transform": training_transform(cfg, spec.ignore_label), "train_dataset": spec}
        return {"transform": evaluation_transform(cfg)}

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add what the record's files hold; random choices follow from torch's random state.

        Args:
            record: ``file_name``, in training ``sem_seg_file_name`` or ``label_file_name``; ``dataset_name`` where it
                is not the configuration's.

        Returns:
            A new dictionary with ``image``, (3, h, w) uint8 RGB, ``height`` and ``width`` (of the image in
            evaluation), and in training ``sem_seg``, (h, w) int64, class indices and the ignore label.
        """
        if isinstance(self.transform, EvaluationTransform):
            pixels = read_image(record["file_name"], as_stored=True)
            height, width = pixels.shape[:2]
            return {**record, "image": self.transform(pixels), "height": height, "width": width}
        spec = spec_of(record["dataset_name"]).for_training() if "dataset_name" in record else self.train_dataset
        assert spec is not None
        sample = read_sample(spec, record["file_name"], record.get(LABEL_FILE) or record[FILES[1]])
        image, label = self.transform(sample.image, sample.label, int(torch.randint(2**63 - 1, ())))
        return {**record, "image": image, "sem_seg": label, "height": label.shape[0], "width": label.shape[1]}
