"""The data sets in detectron2's catalogs."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from err_seg.colors import class_colors
from err_seg.data import DatasetSpec, SegmentationPairs, dataset_names, get_dataset, register_entries

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Records:
    """Lists a data set as detectron2 wants it; the folders are looked at when it is called.

    Attributes:
        spec: the data set.
        root: what its folders lie under.
    """

    spec: DatasetSpec
    root: str

    def __call__(self) -> list[dict[str, Any]]:
        """List one dictionary a picture: ``file_name``, ``sem_seg_file_name`` and ``dataset_name``.

        Raises:
            DatasetError: the data set is not on disk.
        """
        pairs = SegmentationPairs(self.spec, self.root)
        files = (pairs.paths(index) for index in range(len(pairs)))
        return [
            {"file_name": image, "sem_seg_file_name": label, "dataset_name": self.spec.name} for image, label in files
        ]


def register_datasets(root: str = "", custom: Iterable[Mapping[str, Any]] = ()) -> None:
    """Register all data sets, by name and alias, in ``DatasetCatalog`` and ``MetadataCatalog``.

    Calling it again moves them to another root. A name that somebody else has registered stays theirs.

    Args:
        root: as ``DATASETS.ROOT``.
        custom: data sets declared on the spot, as ``DATASETS.CUSTOM``.
    """
    register_entries(custom)
    for name in dataset_names():
        spec = get_dataset(name)
        for alias in (spec.name, *spec.aliases):
            _register(alias, Records(spec, root))


def _register(name: str, records: Records) -> None:
    present = DatasetCatalog.data.get(name)
    if present == records:
        return
    if present is not None and not isinstance(present, Records):
        logger.info("the data set name %r is registered by other code and stays so", name)
        return
    if present is not None:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, records)
    spec = records.spec
    MetadataCatalog.get(name).set(
        stuff_classes=list(spec.evaluated_classes),
        stuff_colors=class_colors(spec.evaluated_classes).tolist(),
        ignore_label=spec.ignore_label,
        evaluator_type="sem_seg",
        image_root=str(spec.image_folder(records.root)),
        sem_seg_root=str(spec.label_folder(records.root)),
    )
