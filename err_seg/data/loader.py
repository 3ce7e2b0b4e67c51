"""Batches for training and evaluation, the same for any number of processes.

Training runs through one global stream of images: position p is image ``permutation(epoch)[p % length]`` of epoch
``p // length``, transformed by random choices that depend on (seed, epoch, index) alone. With n ranks, position p goes
to rank ``p % n``, so that a global batch holds the same images on one process as on n, and a run resumes at any p.
A pair that cannot be read may be replaced by the next one in the data set: positions are consumed all the same.

Label maps travel between processes through shared memory, of which there may be little. They therefore have the
smallest integer type that fits, and are widened where they are used.
"""

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from err_seg.data.dataset import SegmentationPairs
from err_seg.data.images import ImageReadError
from err_seg.data.spec import DatasetSpec, PairError
from err_seg.data.transforms import EvaluationTransform, TrainingTransform
from err_seg.utils.errors import start_worker, worker_failures
from err_seg.utils.images import BACKGROUND

MOST_DAMAGED_IN_A_ROW = 20


class TrainingItem(NamedTuple):
    """A transformed pair: what a :class:`Batch` has of it."""

    image: Tensor
    label: Tensor
    path: str
    damaged: tuple[str, ...] = ()


class Batch(NamedTuple):
    """A batch for training.

    Attributes:
        images: (B, 3, S, S) uint8, RGB.
        labels: (B, S, S) of the data set's :func:`label_dtype`, class indices, the ignore label and ``BACKGROUND``.
        paths: the B image files.
        damaged: what is wrong with the pairs that others replace.
    """

    images: Tensor
    labels: Tensor
    paths: list[str]
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationItem:
    """One image for evaluation.

    Attributes:
        image: (3, h, w) uint8, RGB, resized.
        label: (H, W) of the data set's :func:`label_dtype`, class indices and the ignore label, at the original size.
        image_path: the image's file.
        index: its place in the data set.
        size: (H, W), the original size.
    """

    image: Tensor
    label: Tensor
    image_path: str
    index: int
    size: tuple[int, int]

    def pin_memory(self) -> "EvaluationItem":
        """Return the same in pinned memory (called by torch's loader)."""
        return replace(self, image=self.image.pin_memory(), label=self.label.pin_memory())


def seed_of(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers, each 0 or more."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def label_dtype(spec: DatasetSpec) -> torch.dtype:
    """Smallest integer type that holds a data set's labels; few operators take ``uint16``, so widen it first."""
    lowest = min(spec.ignore_label, BACKGROUND if spec.left_out_as == "background" else 0)
    highest = max(spec.ignore_label, spec.num_evaluated_classes - 1)
    kinds = (torch.uint8, torch.int16, torch.uint16, torch.int32)
    holding = (kind for kind in kinds if torch.iinfo(kind).min <= lowest and highest <= torch.iinfo(kind).max)
    return next(holding, torch.int64)


@dataclass
class TrainingDataset(Dataset):
    """Transformed pairs, addressed by (epoch, index); for the attributes see :func:`training_loader`."""

    pairs: SegmentationPairs
    transform: TrainingTransform
    seed: int
    skip_damaged: bool = False

    def __getitem__(self, position: tuple[int, int]) -> TrainingItem:
        """Read one (epoch, index), or, where damaged pairs are skipped, the next pair that can be read.

        Raises:
            ImageReadError, PairError: the pair is damaged; or, where many in a row are, the last one tried.
        """
        epoch, index = position
        damaged: list[str] = []
        while True:
            try:
                sample = self.pairs[(index + len(damaged)) % len(self.pairs)]
                break
            except (ImageReadError, PairError) as error:
                if not self.skip_damaged or _is_the_systems_fault(error):
                    raise
                damaged.append(str(error))
                if len(damaged) == min(MOST_DAMAGED_IN_A_ROW, len(self.pairs)):
                    raise type(error)(f"{len(damaged)} pairs in a row cannot be read; the last: {error}") from error
        image, label = self.transform(sample.image, sample.label, seed_of(self.seed, epoch, index))
        return TrainingItem(image, label.to(label_dtype(self.pairs.spec)), sample.image_path, tuple(damaged))


def _is_the_systems_fault(error: Exception) -> bool:
    """Whether a file could not be read for a reason that may pass; skipping it would change the order of images."""
    number = getattr(error.__cause__, "errno", None)
    return number not in (None, errno.ENOENT)


@dataclass
class TrainingSampler(Sampler):
    """Endless (epoch, index) pairs of one rank: its share of the global stream.

    Attributes:
        length: number of images.
        seed: 0 or more; each epoch's permutation depends on (seed, epoch).
        rank, world_size: this process among those that train together.
        start: global position to begin at: the number of images that all ranks together have consumed.

    Raises:
        ValueError: a number out of its range.
    """

    length: int
    seed: int
    rank: int = 0
    world_size: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        if self.length < 1 or min(self.seed, self.start) < 0 or not 0 <= self.rank < self.world_size:
            raise ValueError(f"expected length >= 1, seed >= 0, start >= 0, 0 <= rank < world_size; found {self}")

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start + (self.rank - self.start) % self.world_size
        shuffled = -1
        while True:
            epoch, place = divmod(position, self.length)
            if epoch != shuffled:
                generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
                order, shuffled = torch.randperm(self.length, generator=generator).tolist(), epoch
            yield epoch, order[place]
            position += self.world_size


class ImageLoader(DataLoader):
    """A ``DataLoader``, with its options, that reports its processes' failures in one sentence."""

    def __init__(self, dataset: Dataset, **options: Any) -> None:
        generator = torch.Generator()  # of the seed for the workers: not from the caller's global state
        super().__init__(dataset, worker_init_fn=start_worker, generator=generator, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator is enough
        """Yield the batches.

        Raises:
            ImageReadError, PairError, WorkerError: see :func:`err_seg.utils.errors.worker_failures`.
        """
        with worker_failures():
            yield from super().__iter__()


def training_loader(
    pairs: SegmentationPairs,
    transform: TrainingTransform,
    batch_size: int,
    seed: int,
    workers: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    skip_damaged: bool = False,
    pinned: bool = False,
) -> ImageLoader:
    """Endless :class:`Batch` es for training.

    Args:
        pairs, transform: what to read and what to do with it.
        batch_size: B, images per batch on this rank.
        seed: 0 or more; decides order and random choices.
        workers: processes that read; 0 reads in this one. Does not change the batches.
        start, rank, world_size: as of :class:`TrainingSampler`; ``start`` is B × world_size × batches done so far.
        skip_damaged: read the next pair in place of one that cannot be read.
        pinned: in memory from which CUDA copies without waiting.
    """
    return ImageLoader(
        TrainingDataset(pairs, transform, seed, skip_damaged),
        batch_size=batch_size,
        sampler=TrainingSampler(len(pairs), seed, rank, world_size, start),
        collate_fn=_to_batch,
        num_workers=workers,
        pin_memory=pinned,
    )


def evaluation_loader(
    pairs: SegmentationPairs,
    transform: EvaluationTransform,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    skip: Collection[int] = frozenset(),
    pinned: bool = False,
) -> ImageLoader:
    """Lists of up to ``batch_size`` :class:`EvaluationItem` s, of any sizes, in the data set's order.

    Over the ranks together each image comes exactly once.

    Args:
        rank, world_size: this process among those that evaluate together: indices with ``index % world_size == rank``.
        skip: indices to leave out, such as those that an interrupted run has done.

    The others are those of :func:`training_loader`.
    """
    return ImageLoader(
        _EvaluationDataset(pairs, transform),
        batch_size=batch_size,
        sampler=[index for index in range(rank, len(pairs), world_size) if index not in skip],
        collate_fn=_to_list,
        num_workers=workers,
        pin_memory=pinned,
    )


@dataclass
class _EvaluationDataset(Dataset):
    pairs: SegmentationPairs
    transform: EvaluationTransform

    def __getitem__(self, index: int) -> EvaluationItem:
        sample = self.pairs[index]
        height, width = sample.label.shape
        label = torch.from_numpy(sample.label).to(label_dtype(self.pairs.spec))
        return EvaluationItem(self.transform(sample.image), label, sample.image_path, index, (height, width))


def _to_batch(items: list[TrainingItem]) -> Batch:
    images, labels = (default_collate([item[part] for item in items]) for part in (0, 1))  # in shared memory
    damaged = tuple(problem for item in items for problem in item.damaged)
    return Batch(images, labels, [item.path for item in items], damaged)


def _to_list(items: list[EvaluationItem]) -> list[EvaluationItem]:
    if get_worker_info() is not None:  # now: where it does not suffice, the queue between the processes would lose them
        for item in items:
            item.image.share_memory_()
            item.label.share_memory_()
    return items
