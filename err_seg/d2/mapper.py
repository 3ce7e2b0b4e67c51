"""From a record of the catalog to what the model takes: the pictures of the plain engine."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from fvcore.common.config import CfgNode
from torch.utils.data import Dataset, get_worker_info

from err_seg.d2.catalog import spec_of
from err_seg.d2.config import from_detectron2
from err_seg.data import DatasetSpec, EvaluationTransform, TrainingTransform, read_image
from err_seg.data.dataset import read_sample
from err_seg.data.loader import label_dtype, read_or_next, seed_of
from err_seg.engine.step import training_transform

SEED, DAMAGED = "transform_seed", "damaged"


class SeededDataset(Dataset):
    """Mapped records addressed by (epoch, index), each with the seed of its random choices.

    Args:
        records: a list of ``DatasetCatalog``.
        mapper: what to do with each.
        seed: 0 or more.
        skip_damaged: read the next record in place of one that cannot be read.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        seed: int,
        skip_damaged: bool = False,
    ):
        self.records, self.mapper, self.seed, self.skip_damaged = records, mapper, seed, skip_damaged

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, position: tuple[int, int]) -> dict[str, Any]:
        """Read one; ``damaged`` tells what is wrong with those that it stands in for."""
        epoch, index = position
        seed = seed_of(self.seed, epoch, index)
        record, damaged = read_or_next(
            lambda place: self.mapper({**self.records[place], SEED: seed}),
            *(index, len(self.records)),
            skip_damaged=self.skip_damaged,
        )
        labels = record["sem_seg"].to(label_dtype(spec_of(record["dataset_name"])))
        return {**record, "sem_seg": labels, DAMAGED: damaged}


def in_shared_memory(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave a batch as it is, its tensors, in a loader process, where the other process will read them."""
    if get_worker_info() is not None:
        for tensor in (value for record in batch for value in record.values() if isinstance(value, torch.Tensor)):
            tensor.share_memory_()
    return batch


class ERRSegMapper:
    """Reads and transforms a picture, in training with its label map, as the plain engine does.

    Args:
        transform: that of training, or that of evaluation.
        train_dataset: that of records that do not say, in training.
    """

    @configurable
    def __init__(self, transform: TrainingTransform | EvaluationTransform, train_dataset: DatasetSpec | None = None):
        self.transform, self.train_dataset = transform, train_dataset

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Translate ``cfg.INPUT`` into the constructor's arguments."""
        cfg = from_detectron2(cfg)
        if is_train:
            spec = spec_of(cfg.DATASETS.TRAIN[0])
            return {"transform": training_transform(cfg, spec.ignore_label), "train_dataset": spec}
        return {"transform": EvaluationTransform(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)}

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """Add what the record's files hold.

        Args:
            record: ``file_name``, in training ``sem_seg_file_name``; ``dataset_name`` where it is not the
                configuration's. Random choices follow from ``transform_seed``, or from torch's random state where
                there is none.

        Returns:
            A new dictionary with ``image``, (3, h, w) uint8 RGB, ``height`` and ``width`` (of the picture in
            evaluation), and in training ``sem_seg``, (h, w) int64, class indices and the ignore label.
        """
        record = dict(record)
        if isinstance(self.transform, EvaluationTransform):
            picture = read_image(record["file_name"])
            record.update(image=self.transform(picture), height=picture.shape[0], width=picture.shape[1])
            return record
        seed = record.pop(SEED, None)
        if seed is None:
            seed = int(torch.randint(2**63 - 1, ()))
        spec = spec_of(record["dataset_name"]) if "dataset_name" in record else self.train_dataset
        assert spec is not None
        sample = read_sample(spec, record["file_name"], record["sem_seg_file_name"])
        image, label = self.transform(sample.image, sample.label, seed)
        record.update(image=image, sem_seg=label, height=label.shape[0], width=label.shape[1])
        return record
