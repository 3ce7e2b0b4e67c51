"""Data sets: declaration, reading, transforms and loading."""

from err_seg.data.catalog import (
    CATALOG,
    Catalog,
    dataset_names,
    find_dataset,
    get_dataset,
    register,
    register_entries,
    unregister,
)
from err_seg.data.dataset import Sample, SegmentationPairs, digest_of_files
from err_seg.data.images import ImageReadError, read_image, read_label, read_masked_image
from err_seg.data.loader import (
    Batch,
    EvaluationItem,
    TrainingDataset,
    TrainingSampler,
    evaluation_loader,
    training_loader,
)
from err_seg.data.spec import DatasetError, DatasetSpec, PairError, datasets_root, spec_from_dict
from err_seg.data.transforms import EvaluationTransform, SSDColorJitter, TrainingTransform, shortest_edge_size
from err_seg.text.vocabularies import load_vocabulary, read_vocabulary, vocabulary_names
from err_seg.utils.errors import WorkerError

__all__ = [
    "CATALOG",
    "Batch",
    "Catalog",
    "DatasetError",
    "DatasetSpec",
    "EvaluationItem",
    "EvaluationTransform",
    "ImageReadError",
    "PairError",
    "SSDColorJitter",
    "Sample",
    "SegmentationPairs",
    "TrainingDataset",
    "TrainingSampler",
    "TrainingTransform",
    "WorkerError",
    "dataset_names",
    "datasets_root",
    "digest_of_files",
    "evaluation_loader",
    "find_dataset",
    "get_dataset",
    "load_vocabulary",
    "read_image",
    "read_label",
    "read_masked_image",
    "read_vocabulary",
    "register",
    "register_entries",
    "shortest_edge_size",
    "spec_from_dict",
    "training_loader",
    "unregister",
    "vocabulary_names",
]
