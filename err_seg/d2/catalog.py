"""The data sets in detectron2's catalogs."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from err_seg.data import DatasetError, DatasetSpec, SegmentationPairs, dataset_names, get_dataset, register_entries
from err_seg.visualization.colors import class_colors

FILES = "file_name", "sem_seg_file_name"
LABEL_FILE = "label_file_name"
logger = logging.getLogger(__name__)


class RawRecord(dict[str, Any]):
    """A record whose label file, under ``LABEL_FILE``, detectron2's own mapper and evaluator would misread."""

    def __missing__(self, key: str) -> Any:
        if not key.startswith("sem_seg"):
            raise KeyError(key)
        raise DatasetError(
            f"data set {self['dataset_name']!r}: its entry changes the labels in the files (label_map and the like, or "
            "left_out), which detectron2's own mapper and evaluator do not; use ERRSegMapper and ERRSegEvaluator"
        )


@dataclass(frozen=True)
class Records:
    """Lists a data set in detectron2's form; the folders are read when it is called.

    Attributes:
        spec: the data set.
        root: what its folders lie under.
    """

    spec: DatasetSpec
    root: str

    def __call__(self) -> list[dict[str, Any]]:
        """List one dictionary per image: ``file_name``, ``sem_seg_file_name`` and ``dataset_name``, or a ``RawRecord``.

        Raises:
            DatasetError: the data set is not on disk.
        """
        pairs = SegmentationPairs(self.spec, self.root)
        is_raw = self.spec.label_rule or self.spec.left_out
        kind, keys = (RawRecord, (FILES[0], LABEL_FILE)) if is_raw else (dict, FILES)
        files = (pairs.paths(index) for index in range(len(pairs)))
        return [kind(zip(keys, paths, strict=True), dataset_name=self.spec.name) for paths in files]


def register_datasets(root: str = "", custom: Iterable[Mapping[str, Any]] = ()) -> None:
    """Register all data sets, by name and alias, in ``DatasetCatalog`` and ``MetadataCatalog``.

    Calling it again moves them to another root. A name that other code has registered is left as it is.

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
    present, spec = DatasetCatalog.data.get(name), records.spec
    if present == records:
        return
    if isinstance(present, Records):
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
    elif present is not None:
        logger.info("the data set name %r is registered by other code and stays so", name)
        return
    DatasetCatalog.register(name, records)
    MetadataCatalog.get(name).set(
        stuff_classes=list(spec.evaluated_classes),
        stuff_colors=class_colors(spec.evaluated_classes).tolist(),
        ignore_label=spec.ignore_label,
        evaluator_type="sem_seg",
        image_root=str(spec.image_folder(records.root)),
        sem_seg_root=str(spec.label_folder(records.root)),
    )


def spec_of(name: str) -> DatasetSpec:
    """Return the declaration of a data set: ours, or what ``MetadataCatalog`` says of one that was registered there.

    Of the latter it takes ``stuff_classes``, the names of the labels 0, 1, 2 ..., and ``ignore_label``, 255 unless it
    says otherwise.

    Raises:
        DatasetError: it is registered in neither, or its metadata lack the class names.
    """
    try:
        return get_dataset(name)
    except DatasetError as error:
        if name not in DatasetCatalog.data and name not in MetadataCatalog.data:
            raise
        metadata = MetadataCatalog.get(name)
        if not metadata.get("stuff_classes"):
            raise DatasetError(
                f"data set {name!r}: MetadataCatalog has no class names of it; set them: "
                f"MetadataCatalog.get({name!r}).set(stuff_classes=[...], ignore_label=255)"
            ) from error
        return DatasetSpec(
            name=name,
            image_dir=metadata.get("image_root") or ".",
            label_dir=metadata.get("sem_seg_root") or ".",
            vocabulary=tuple(metadata.stuff_classes),
            ignore_label=metadata.get("ignore_label", 255),
        )


def records_of(name: str, root: str = "", num_images: int = 0) -> list[dict[str, Any]]:
    """List the records of ``DatasetCatalog``, each with its ``dataset_name``; of so many images if not 0.

    A name that declares its data set by itself (mini_world_test_24) is registered first, under ``root``.
    """
    if name not in DatasetCatalog.data:
        _register(name, Records(get_dataset(name), root))
    records = [{"dataset_name": name, **record} for record in DatasetCatalog.get(name)]
    if num_images:
        pairs = open_pairs(name).spread(num_images)
        files = {pairs.paths(index)[0] for index in range(len(pairs))}
        records = [record for record in records if record["file_name"] in files]
    return records


class RecordedPairs(SegmentationPairs):
    """Images and label maps that records name by ``file_name`` and ``sem_seg_file_name``, in their order.

    Raises:
        DatasetError: there is no record, or one lacks the label map.
    """

    def __init__(self, spec: DatasetSpec, records: Iterable[Mapping[str, Any]]):
        self.spec, self.selection = spec, {}
        self._advice = "Labels must be the indices of stuff_classes, and ignore_label."
        try:
            self._paths = [(record[FILES[0]], record[FILES[1]]) for record in records]
        except KeyError as error:
            raise DatasetError(f"data set {spec.name!r}: a record of DatasetCatalog has no {error}") from error
        if not self._paths:
            raise DatasetError(f"data set {spec.name!r}: DatasetCatalog lists no image")
        folder = os.path.commonpath([Path(image).parent for image, _ in self._paths])
        self.names = [Path(image).relative_to(folder).with_suffix("").as_posix() for image, _ in self._paths]


def open_pairs(name: str, root: str | None = None) -> SegmentationPairs:
    """Find the images and label maps of a data set, by default under the root that it is registered with.

    Raises:
        DatasetError: the data set is unknown or not on disk.
    """
    spec, registered = spec_of(name), DatasetCatalog.data.get(name)
    if isinstance(registered, Records):
        return SegmentationPairs(spec, registered.root if root is None else root)
    return SegmentationPairs(spec, root) if registered is None else RecordedPairs(spec, registered())
