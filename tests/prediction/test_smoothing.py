"""Smoothed videos: the average over frames, at the ends, of changing classes and sizes, and what it does to flicker."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import err_seg
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.prediction.smoothing import smoothed, windows


@given(st.lists(st.integers()), st.integers(0, 5))
def test_windows(items, reach):
    found = list(windows(items, reach))
    assert [window[reach] for window in found] == items
    for middle, window in enumerate(found):
        places = range(middle - reach, middle + reach + 1)
        assert window == [items[place] if 0 <= place < len(items) else None for place in places]


def result(seed, kept=(0, 2), size=(12, 20), vocabulary=("a", "b", "c")):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(len(kept), 4, 4, generator=generator)
    scores = torch.rand(len(vocabulary), generator=generator)
    return err_seg.Segmentation(maps, torch.tensor(kept), vocabulary, size, scores)


def test_every_frame_is_averaged_with_those_around_it():
    """Whatever classes each of them kept."""
    frames = [result(seed, kept) for seed, kept in enumerate([(0, 2), (0, 1), (1, 2), (0, 2), (0, 1)])]
    found = list(smoothed(frames, 1))
    weights = [[2, 1, 0, 0, 0], [1, 2, 1, 0, 0], [0, 1, 2, 1, 0], [0, 0, 1, 2, 1], [0, 0, 0, 1, 2]]
    for shares, one, frame in zip(weights, found, frames, strict=True):
        dense = sum(share / sum(shares) * other.dense() for share, other in zip(shares, frames, strict=True))
        scores = sum(share / sum(shares) * other.class_scores for share, other in zip(shares, frames, strict=True))
        torch.testing.assert_close(one.dense(), dense)
        torch.testing.assert_close(one.class_scores, scores)
        assert torch.equal(one.labels.long(), one.dense().argmax(dim=0))
        assert (one.size, one.vocabulary) == (frame.size, frame.vocabulary)
    assert [one.kept.tolist() for one in found] == [[0, 1, 2]] * 5


def test_frames_of_another_size_or_vocabulary_are_not_mixed_in():
    frames = [result(0), result(1, size=(20, 12)), result(2, vocabulary=("a", "b", "d")), result(3)]
    for one, frame in zip(smoothed(frames, 1), frames, strict=True):
        assert torch.equal(one.probabilities, frame.probabilities)


def test_a_stream_may_be_endless_and_is_read_only_as_far_as_needed():
    asked = []

    def frames():
        for number in itertools.count():
            asked.append(number)
            yield result(number)

    stream = smoothed(frames(), 2)
    assert not asked
    next(stream)
    assert asked == [0, 1, 2]
    next(stream)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("reach", [0, -1, 1.5, "2", None, True])
def test_the_reach_is_a_number_of_frames(reach):
    with pytest.raises(err_seg.ArgumentError, match="reach must be a whole number of frames"):
        smoothed([], reach)


def flicker(results):
    return np.mean([(one.labels != other.labels).float().mean().item() for one, other in itertools.pairwise(results)])


def accuracy(results, truth):
    return np.mean([(one.labels.numpy() == truth).mean() for one in results])


@pytest.mark.parametrize("refine", [False, True])
def test_labels_flicker_less_and_are_not_worse(refine):
    """Of scenes that do not move, with the noise of a camera in the dark."""
    model, found = err_seg.load("mini", device="cpu"), []
    for scene in map(MiniScenes("test").__getitem__, range(4)):
        noise = np.random.default_rng(0).normal(0, 20, (6, *scene.image.shape))
        frames = [np.clip(scene.image + one, 0, 255).astype(np.uint8) for one in noise]
        single = model.predict(frames, VOCABULARY, refine=refine)
        together = list(err_seg.smoothed(single, 2))
        assert all(type(one) is type(other) for one, other in zip(together, single, strict=True))
        assert together[3].plot().size == single[3].plot().size
        found.append([(flicker(results), accuracy(results, scene.label)) for results in (single, together)])
    before, after = np.mean(found, axis=0)
    assert after[0] < 0.6 * before[0]
    assert after[1] > before[1]
