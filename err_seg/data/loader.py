"""Batches for training and evaluation, the same whatever the number of processes that make them.

Training runs through one global stream of pictures: position p is picture ``permutation(epoch)[p % length]`` of epoch
``p // length``, transformed by random choices that depend on (seed, epoch, index) alone. With n ranks, position p goes
to rank ``p % n``, so that a global batch holds the same pictures on one process as on n, and a run resumes at any p.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from err_seg.data.dataset import SegmentationPairs
from err_seg.data.transforms import EvaluationTransform, TrainingTransform


class Batch(NamedTuple):
    """A batch for training.

    Attributes:
        images: (B, 3, S, S) uint8, RGB.
        labels: (B, S, S) int64, class indices and the ignore label.
        paths: the B picture files.
    """

    images: Tensor
    labels: Tensor
    paths: list[str]


@dataclass(frozen=True)
class EvaluationItem:
    """One picture for evaluation.

    Attributes:
        image: (3, h, w) uint8, RGB, resized.
        label: (H, W) int64, class indices and the ignore label, at the original size.
        image_path: the picture's file.
        index: its place in the data set.
        size: (H, W), the original size.
    """

    image: Tensor
    label: Tensor
    image_path: str
    index: int
    size: tuple[int, int]


def seed_of(*numbers: int) -> int:
    """One well-mixed 63-bit seed from several numbers, each 0 or more."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class TrainingDataset(Dataset):
    """Transformed pairs, addressed by (epoch, index).

    Args:
        pairs: what to read from.
        transform: what to do with each pair.
        seed: 0 or more.
    """

    def __init__(self, pairs: SegmentationPairs, transform: TrainingTransform, seed: int) -> None:
        self.pairs = pairs
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, position: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        """Picture (3, S, S) uint8, label map (S, S) int64 and picture file of one (epoch, index)."""
        epoch, index = position
        sample = self.pairs[index]
        image, label = self.transform(sample.image, sample.label, seed_of(self.seed, epoch, index))
        return image, label, sample.image_path


class TrainingSampler(Sampler):
    """Endless (epoch, index) pairs of one rank: its share of the global stream.

    Args:
        length: number of pictures.
        seed: 0 or more; each epoch's permutation depends on (seed, epoch).
        rank, world_size: which share; positions p of the global stream with ``p % world_size == rank``.
        start: global position to begin at: the number of pictures that all ranks together have consumed.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, length: int, seed: int, rank: int = 0, world_size: int = 1, start: int = 0) -> None:
        if length < 1 or seed < 0 or start < 0:
            raise ValueError(f"expected length >= 1, seed >= 0, start >= 0; found {length=}, {seed=}, {start=}")
        _check_rank(rank, world_size)
        self.length = length
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start = start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position = self.start + (self.rank - self.start) % self.world_size
        shuffled = -1
        while True:
            epoch, place = divmod(position, self.length)
            if epoch != shuffled:
                order, shuffled = self._permutation(epoch), epoch
            yield epoch, order[place]
            position += self.world_size

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        return torch.randperm(self.length, generator=generator).tolist()


def training_loader(
    pairs: SegmentationPairs,
    transform: TrainingTransform,
    batch_size: int,
    seed: int,
    workers: int,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Endless :class:`Batch` es for training.

    Args:
        pairs, transform: what to read and what to do with it.
        batch_size: B, pictures a batch on this rank.
        seed: 0 or more; decides order and random choices.
        workers: processes that read; 0 reads in this one. Does not change the batches.
        start: global position to begin at, B × world_size × batches done so far.
        rank, world_size: this process among those that train together.
    """
    return DataLoader(
        TrainingDataset(pairs, transform, seed),
        batch_size=batch_size,
        sampler=TrainingSampler(len(pairs), seed, rank, world_size, start),
        collate_fn=_to_batch,
        **_loader_arguments(workers),
    )


def evaluation_loader(
    pairs: SegmentationPairs,
    transform: EvaluationTransform,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    skip: Collection[int] = frozenset(),
) -> DataLoader:
    """Lists of up to ``batch_size`` :class:`EvaluationItem` s, of any sizes, in the data set's order.

    Over the ranks together each picture comes exactly once.

    Args:
        pairs, transform: what to read and what to do with the picture.
        batch_size: most pictures a list.
        workers: processes that read; 0 reads in this one.
        rank, world_size: this process among those that evaluate together: indices with ``index % world_size == rank``.
        skip: indices to leave out, such as those that an interrupted run has done.
    """
    _check_rank(rank, world_size)
    return DataLoader(
        _EvaluationDataset(pairs, transform),
        batch_size=batch_size,
        sampler=[index for index in range(rank, len(pairs), world_size) if index not in skip],
        collate_fn=list,
        **_loader_arguments(workers),
    )


class _EvaluationDataset(Dataset):
    def __init__(self, pairs: SegmentationPairs, transform: EvaluationTransform) -> None:
        self.pairs = pairs
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> EvaluationItem:
        sample = self.pairs[index]
        height, width = sample.label.shape
        label = torch.from_numpy(sample.label)
        return EvaluationItem(self.transform(sample.image), label, sample.image_path, index, (height, width))


def _to_batch(items: list[tuple[Tensor, Tensor, str]]) -> Batch:
    images, labels, paths = zip(*items, strict=True)
    return Batch(torch.stack(images), torch.stack(labels), list(paths))


def _loader_arguments(workers: int) -> dict:
    return {
        "num_workers": workers,
        "pin_memory": torch.cuda.is_available(),
        # the loader draws a seed for its workers: not from the caller's global state
        "generator": torch.Generator(),
    }


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"expected 0 <= rank < world_size; found {rank=}, {world_size=}")
