import dataclasses
import errno
import itertools
import shutil
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.data.dataset import Sample, SegmentationPairs
from err_seg.data.images import ImageReadError
from err_seg.data.loader import (
    TrainingDataset,
    TrainingSampler,
    evaluation_loader,
    label_dtype,
    seed_of,
    training_loader,
)
from err_seg.data.spec import DatasetSpec
from err_seg.data.transforms import EvaluationTransform, TrainingTransform
from err_seg.evaluation import ConfusionMatrix

NUM_PAIRS = 5
TRANSFORM = TrainingTransform(16, min_sizes=(16, 20))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for index in range(NUM_PAIRS):
        shape = (20 + index, 30)
        Image.fromarray(generator.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(generator.integers(0, 3, shape, dtype=np.uint8)).save(root / f"labels/{index}.png")
    spec = DatasetSpec("own", "images", "labels", ("a", "b", "c"), image_ext=".png")
    return SegmentationPairs(spec, root)


def batches(pairs, count, batch_size=2, workers=0, **changes):
    return list(islice(training_loader(pairs, TRANSFORM, batch_size, 3, workers, **changes), count))


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.paths == b.paths
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_batches_have_the_documented_shapes(pairs):
    (batch,) = batches(pairs, 1)
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.shape == (2, 16, 16)
    assert batch.labels.dtype == torch.uint8
    assert len(batch.paths) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_number_of_workers_does_not_matter(pairs, workers):
    assert_same(batches(pairs, 6), batches(pairs, 6, workers=workers))


def test_global_random_state_is_neither_used_nor_changed(pairs):
    torch.manual_seed(1)
    first = batches(pairs, 4)
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert_same(first, batches(pairs, 4))


def test_resuming_continues_the_stream(pairs):
    assert_same(batches(pairs, 7)[3:], batches(pairs, 4, start=6))


def test_two_ranks_together_are_one(pairs):
    whole = batches(pairs, 5, batch_size=4)
    shares = [batches(pairs, 5, batch_size=2, rank=rank, world_size=2) for rank in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert batch.paths[0::2] == first.paths
        assert batch.paths[1::2] == second.paths
        assert torch.equal(batch.images[0::2], first.images)
        assert torch.equal(batch.labels[1::2], second.labels)


def test_each_epoch_is_a_permutation_and_epochs_differ():
    stream = list(islice(TrainingSampler(50, seed=0), 150))
    epochs = [[index for epoch, index in stream if epoch == wanted] for wanted in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(islice(TrainingSampler(50, seed=1), 50)) != stream[:50]


@pytest.mark.parametrize("start", [0, 1, 2, 3, 49])
@pytest.mark.parametrize("world_size", [1, 3])
def test_ranks_share_the_stream_from_any_start(start, world_size):
    stream = list(islice(TrainingSampler(7, seed=0), 100))
    for rank in range(world_size):
        sampler = TrainingSampler(7, 0, rank, world_size, start)
        expected = [stream[p] for p in range(start, 100) if p % world_size == rank]
        assert list(islice(sampler, len(expected))) == expected


def test_same_image_is_transformed_anew_each_epoch(pairs):
    seen = {}
    for batch in batches(pairs, 2 * NUM_PAIRS, batch_size=1):
        seen.setdefault(batch.paths[0], []).append(batch.images)
    assert all(not torch.equal(first, second) for first, second in seen.values())


def test_a_transform_is_drawn_anew_for_every_seed_epoch_and_index(pairs, monkeypatch):
    sample = pairs[0]
    monkeypatch.setattr(SegmentationPairs, "__getitem__", lambda self, index: sample)
    places = list(itertools.product((0, 3), range(3), range(NUM_PAIRS)))
    seen = [TrainingDataset(pairs, TRANSFORM, seed)[epoch, index].image for seed, epoch, index in places]
    assert len({image.numpy().tobytes() for image in seen}) == len(places)
    again = [TrainingDataset(pairs, TRANSFORM, seed)[epoch, index].image for seed, epoch, index in places]
    assert all(map(torch.equal, seen, again))


def test_seeds_do_not_collide():
    assert len({seed_of(s, e, i) for s in range(3) for e in range(10) for i in range(100)}) == 3000
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3) < 2**63


@pytest.mark.parametrize(
    "arguments", [{"length": 0}, {"seed": -1}, {"start": -1}, {"rank": 2, "world_size": 2}, {"world_size": 0}]
)
def test_wrong_sampler_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        TrainingSampler(**{"length": 5, "seed": 0, **arguments})


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_gives_every_image_once_at_its_own_size(pairs, workers):
    loader = evaluation_loader(pairs, EvaluationTransform(min_size=10), 2, workers)
    lists = list(loader)
    assert [len(items) for items in lists] == [2, 2, 1]
    items = [item for items in lists for item in items]
    assert [item.index for item in items] == list(range(NUM_PAIRS))
    for item in items:
        assert item.size == (20 + item.index, 30) == tuple(item.label.shape)
        assert item.image.shape[1] == 10
        assert item.image_path == pairs.paths(item.index)[0]
        np.testing.assert_array_equal(item.label.numpy(), pairs.load_label(item.index))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_is_shared_among_ranks_and_skips_what_is_done(pairs, world_size):
    seen = Counter(
        item.index
        for rank in range(world_size)
        for items in evaluation_loader(pairs, EvaluationTransform(0), 2, 0, rank, world_size, skip={1, 3})
        for item in items
    )
    assert seen == {0: 1, 2: 1, 4: 1}


@pytest.mark.parametrize(
    ("classes", "ignore_label", "dtype"),
    [
        (171, 255, torch.uint8),
        (255, 255, torch.uint8),
        (256, 65535, torch.uint16),
        (847, 65535, torch.uint16),
        (3, -1, torch.int16),
        (847, -1, torch.int16),
        (3, 70_000, torch.int32),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_labels_travel_in_the_smallest_integers_that_hold_them(
    pairs, monkeypatch, classes, ignore_label, dtype, workers
):
    names = tuple(f"class {index}" for index in range(classes))
    spec = dataclasses.replace(pairs.spec, vocabulary=names, ignore_label=ignore_label)
    assert label_dtype(spec) == dtype

    class Given:
        """One pair with the lowest label, the highest, and the ignore label."""

        def __init__(self):
            self.spec = spec

        def __len__(self):
            return 1

        def __getitem__(self, index):
            label = np.array([[0, classes - 1, ignore_label]])
            return Sample(np.zeros((1, 3, 3), np.uint8), label, "picture", "label")

    transform = TrainingTransform(3, min_sizes=(1,), max_size=3, flip_prob=0, ignore_label=ignore_label)
    batch = next(iter(training_loader(Given(), transform, 2, 0, workers)))
    assert batch.labels.dtype == dtype
    assert batch.labels[:, 0].tolist() == 2 * [[0, classes - 1, ignore_label]]
    assert set(batch.labels[:, 1:].long().unique().tolist()) == {ignore_label}
    ((item,),) = evaluation_loader(Given(), EvaluationTransform(0), 1, workers)
    assert item.label.dtype == dtype
    assert item.label.tolist() == [[0, classes - 1, ignore_label]]
    confusion = ConfusionMatrix(classes, ignore_label)
    confusion.update(item.label.long().where(item.label.long() != ignore_label, 0), item.label)
    assert confusion.matrix.trace() == 2


def damage(pairs, root, *indices):
    """Copy a data set and cut some of its images or label maps short."""
    for folder in ("images", "labels"):
        shutil.copytree(Path(pairs.paths(0)[0]).parent.with_name(folder), root / folder)
    for place, index in enumerate(indices):
        file = root / ("images", "labels")[place % 2] / f"{index}.png"
        file.write_bytes(file.read_bytes()[:60])
    return SegmentationPairs(pairs.spec, root)


def test_damaged_pairs_are_replaced_by_the_next_and_told_of(pairs, tmp_path):
    damaged = damage(pairs, tmp_path, 1, 2, 4)
    whole = batches(pairs, 2 * NUM_PAIRS, batch_size=1)
    found = batches(damaged, 2 * NUM_PAIRS, batch_size=1, skip_damaged=True)
    instead = {1: 3, 2: 3, 4: 0}
    for batch, given in zip(found, whole, strict=True):
        index = int(Path(given.paths[0]).stem)
        assert Path(batch.paths[0]).stem == str(instead.get(index, index))
        assert len(batch.damaged) == {1: 2, 2: 1, 4: 1}.get(index, 0)
        if index not in instead:
            assert torch.equal(batch.images, given.images), "the others are as they were"
    problems = {problem for batch in found for problem in batch.damaged}
    assert sorted(problem.split(": ")[0] for problem in problems) == [
        str(tmp_path / "images/1.png"),
        str(tmp_path / "images/4.png"),
        str(tmp_path / "labels/2.png"),
    ]


def test_stream_without_damaged_pairs_is_the_same_for_all_workers_and_ranks_and_from_any_place(pairs, tmp_path):
    damaged = damage(pairs, tmp_path, 1, 2, 4)
    expected = batches(damaged, 8, skip_damaged=True)
    for workers in (1, 2):
        found = batches(damaged, 8, workers=workers, skip_damaged=True)
        assert_same(found, expected)
        assert [batch.damaged for batch in found] == [batch.damaged for batch in expected]
    assert_same(batches(damaged, 5, start=6, skip_damaged=True), expected[3:])
    first, second = (batches(damaged, 8, 1, rank=rank, world_size=2, skip_damaged=True) for rank in range(2))
    assert [batch.paths for batch in expected] == [[*a.paths, *b.paths] for a, b in zip(first, second, strict=True)]


def test_a_data_set_that_cannot_be_read_at_all_ends_the_training_all_the_same(pairs, tmp_path):
    damaged = damage(pairs, tmp_path, *range(NUM_PAIRS))
    with pytest.raises(ImageReadError, match=rf"{NUM_PAIRS} pairs in a row cannot be read; the last: .*\.png: "):
        batches(damaged, 1, skip_damaged=True)


def test_what_is_the_systems_fault_is_not_skipped(pairs, tmp_path, monkeypatch):
    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", broken)
    with pytest.raises(ImageReadError, match="Input/output error"):
        batches(pairs, 1, skip_damaged=True)

    def too_large(path):
        raise MemoryError

    monkeypatch.setattr("pathlib.Path.read_bytes", too_large)
    with pytest.raises(MemoryError):
        batches(pairs, 1, skip_damaged=True)


def test_evaluation_skips_nothing(pairs, tmp_path):
    damaged = damage(pairs, tmp_path, 1)
    with pytest.raises(ImageReadError, match=r"1\.png"):
        list(evaluation_loader(damaged, EvaluationTransform(0), 1, 0))


def test_error_in_a_worker_names_the_file(tmp_path, pairs):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bad.png").write_bytes(b"no image")
    bad = SegmentationPairs(pairs.spec, tmp_path)
    with pytest.raises(ImageReadError, match=r"^[^\n]*bad\.png: [^\n]*$"):
        next(iter(training_loader(bad, TRANSFORM, 1, 0, workers=1)))


def test_memory_is_pinned_where_asked_for_alone(pairs, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # the network may lie elsewhere all the same
    for pinned in (False, True):
        training = training_loader(pairs, TRANSFORM, 1, 0, 0, pinned=pinned)
        evaluation = evaluation_loader(pairs, EvaluationTransform(0), 1, 0, pinned=pinned)
        assert training.pin_memory == evaluation.pin_memory == pinned
        assert evaluation_loader(pairs, EvaluationTransform(0), 1, 0).pin_memory is False
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    item = next(iter(evaluation_loader(pairs, EvaluationTransform(0), 1, 0)))[0]
    pinned_item = item.pin_memory()  # which loaders look for
    assert torch.equal(pinned_item.image, item.image + 1)
    assert torch.equal(pinned_item.label, item.label + 1)
    assert (pinned_item.image_path, pinned_item.size) == (item.image_path, item.size)
