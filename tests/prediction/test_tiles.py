"""Large images in windows: the same classes in all of them, no seams, and memory that does not grow."""

import itertools
import subprocess
import sys

import pytest
import torch

from err_seg import TooLargeError
from err_seg.modeling.crm import CRM, ClassScores
from err_seg.modeling.encoder import Features
from err_seg.modeling.layers import resize, resized_part
from err_seg.prediction import class_maps, tiles
from err_seg.prediction.tiles import joined, plan_windows, segment_windows
from tests.helpers.results import a_result
from tests.helpers.toy import VOCABULARY

SIDE = 64
ALL = len(VOCABULARY)


@pytest.fixture
def model(toy_model):
    return toy_model()


def noise(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(10, 10), (64, 64), (48, 79)])
def test_an_image_that_one_window_covers_is_seen_as_a_whole(model, size):
    whole = model.predict(noise(*size), VOCABULARY)
    for tile in ("auto", SIDE, max(size), 10_000):
        tiled = model.predict(noise(*size), VOCABULARY, tile=tile)
        assert torch.equal(tiled.probabilities, whole.probabilities)
        assert torch.equal(tiled.class_scores, whole.class_scores)
        assert torch.equal(tiled.labels, whole.labels)


@pytest.mark.parametrize("size", [(64, 300), (300, 64), (131, 97), (1000, 500), (30, 200)])
@pytest.mark.parametrize("tile", [40, 64, 90])
def test_windows_cover_the_image_and_overlap(size, tile):
    windows = plan_windows(size, tile, SIDE)
    for length, canvas, places in zip(size, windows.canvas, (windows.tops, windows.lefts), strict=True):
        assert canvas == max(SIDE, canvas // 32 * 32)
        assert abs(canvas - length * SIDE / tile) <= 16 or canvas == SIDE
        assert places[0] == 0
        assert places[-1] + SIDE == canvas
        assert all(0 < after - before <= 0.75 * SIDE for before, after in itertools.pairwise(places))
        assert all(place % 32 == 0 for place in places)


class Brightness:
    """A head that sees nothing but pixels: the probability of class k is the k-th channel's mean over 4×4 pixels."""

    crm = CRM()

    def score_classes(self, features, text):
        return ClassScores(torch.ones(1, 3), 1, torch.ones(1, 3))

    def segment(self, features, text, kept, *, has_padding):
        return torch.logit(features.embeddings[0], eps=1e-6)


def seen(head, image, tile, encode):
    windows = plan_windows(image.shape[1:], tile, SIDE)
    return segment_windows(encode, head, image, torch.zeros(3, 8), 3, windows, 4)[0]


def test_windows_that_agree_give_one_map():
    """What the windows show is put together again, wherever they overlap."""
    image = noise(160, 224).float()
    blended = seen(Brightness(), image, SIDE, lambda views: Features((pooled(torch.stack(views)),), (), ()))
    assert torch.allclose(blended[0], pooled(image), atol=1e-5)


def pooled(pixels):
    return torch.nn.functional.avg_pool2d(pixels, 4) / 255


def test_windows_that_contradict_each_other_leave_no_step():
    """Every window says 0 or 1 of all its pixels, at random; the change is spread over the overlap."""
    generator = torch.Generator().manual_seed(0)

    def encode(views):
        answers = torch.randint(0, 2, (len(views), 1, 1, 1), generator=generator).float()
        return Features((answers.expand(-1, 3, 16, 16),), (), ())

    blended = seen(Brightness(), noise(320, 512), SIDE, encode)[0]
    assert {0, 1} <= {round(value, 4) for value in blended.unique().tolist()}
    steps = [blended.diff(dim=axis).abs().max().item() for axis in (1, 2)]
    assert max(steps) <= 1 / 8 + 1e-4  # 8 = the overlap, 32 pixels, at a quarter of the resolution


def test_a_shift_of_the_image_shifts_the_result(model):
    """Away from its border, by the network's largest stride: windows see the same at other places."""
    image = noise(32, 32).repeat(1, 8, 8)
    image[:, 96:128, 96:160] = noise(32, 64, seed=1)
    options = {"tile": SIDE, "num_kept": ALL}
    first = model.predict(image, VOCABULARY, **options).probabilities
    second = model.predict(image.roll((32, 32), (1, 2)), VOCABULARY, **options).probabilities
    assert torch.allclose(first.roll((8, 8), (1, 2))[:, 16:-16, 16:-16], second[:, 16:-16, 16:-16], atol=1e-5)
    assert (first - second).abs().max() > 0.01


def test_all_windows_are_asked_for_the_classes_that_the_result_names(model, monkeypatch):
    asked = []
    segment = model.head.segment
    monkeypatch.setattr(
        model.head, "segment", lambda f, t, kept, **options: asked.append(kept) or segment(f, t, kept, **options)
    )
    result = model.predict(noise(200, 150), VOCABULARY, tile=SIDE, num_kept=3)
    assert len(asked) == 5 * 4
    assert all(torch.equal(kept, result.kept[None]) for kept in asked)
    assert result.probabilities.shape == (3, 48, 40)
    assert result.probabilities.min() >= 0
    assert result.probabilities.max() <= 1
    assert set(result.labels.unique().tolist()) <= set(result.kept.tolist())


def test_a_class_that_few_windows_need_is_kept():
    """Rather than one that is a little likely everywhere and nowhere the best."""
    everywhere, here = torch.tensor([[90.0, 10.0, 0.0]]), torch.tensor([[50.0, 10.0, 40.0]])
    views = [ClassScores(scores, 100, scores / 100) for scores in (*[everywhere] * 9, here)]
    tally = joined(views)
    kept, scores = CRM(num_kept=2).eval().keep(tally)
    assert kept.tolist() == [[0, 2]]
    assert torch.allclose(scores, torch.cat([view.scores for view in views]).square().mean(dim=0, keepdim=True).sqrt())
    assert CRM(min_score=0.2).eval().keep(tally)[0].tolist() == [[0]]
    together = ClassScores(torch.cat([view.scores for view in views]), 100, torch.cat([view.shares for view in views]))
    assert torch.equal(joined([together]).scores, tally.scores)


@pytest.mark.parametrize("overrides", [(), ("MODEL.CRM.MIN_SCORE", 0.05)])
def test_neither_batches_nor_forgotten_features_change_a_result(toy_model, monkeypatch, overrides):
    model, image = toy_model(*overrides), noise(200, 150)
    one = model.predict(image, VOCABULARY, tile=SIDE)
    for batch_size in (5, 100):
        many = model.predict(image, VOCABULARY, tile=SIDE, batch_size=batch_size)
        assert torch.equal(one.kept, many.kept)
        assert torch.allclose(one.probabilities, many.probabilities, atol=1e-5)
    encoded = []
    hook = model.encoder.register_forward_hook(lambda *_: encoded.append(1))
    for memory, runs in ((2**30, 21), (0, 41)):
        monkeypatch.setattr(tiles, "FEATURES_KEPT", memory)
        encoded.clear()
        assert torch.equal(model.predict(image, VOCABULARY, tile=SIDE).probabilities, one.probabilities)
        assert len(encoded) == runs
    hook.remove()


def test_several_images_some_of_them_small(model, images):
    images = [*images, noise(100, 200).permute(1, 2, 0).numpy()]
    results = model.predict(images, VOCABULARY, tile="auto", batch_size=2)
    for image, result in zip(images, results, strict=True):
        alone = model.predict(image, VOCABULARY, tile="auto")
        assert result.size == image.shape[:2] == tuple(result.labels.shape)
        assert torch.allclose(result.probabilities, alone.probabilities, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 5), (31, 80), (64, 64), (200, 11)])
def test_a_part_of_a_resized_image(size):
    maps = torch.rand(3, 31, 40, generator=torch.Generator().manual_seed(0))
    whole = resize(maps[None], size)[0]
    for rows, columns in (
        (slice(0, size[0]), slice(0, size[1])),
        (slice(2, 5), slice(1, 4)),
        (slice(6, 7), slice(4, 5)),
    ):
        assert torch.allclose(resized_part(maps, size, rows, columns), whole[:, rows, columns], atol=1e-5)


def test_a_part_far_from_the_origin():
    """Places beyond 2²⁴, which float32 does not tell apart."""
    maps = (torch.arange(2**24 + 40) % 251).to(torch.uint8).view(1, 1, -1)
    start = 2 * (2**24 + 8)
    part = resized_part(maps, (1, 2 * maps.shape[2]), slice(0, 1), slice(start, start + 32))
    expected = resized_part(maps[:, :, 2**24 :].clone(), (1, 80), slice(0, 1), slice(16, 48))
    torch.testing.assert_close(part, expected, rtol=0, atol=0)


def test_labels_and_scores_in_strips(monkeypatch):
    result, again = a_result(20, num_kept=11, size=(150, 97)), a_result(20, num_kept=11, size=(150, 97))
    labels, scores = result.labels, result.scores
    monkeypatch.setattr(class_maps, "PIXELS_AT_A_TIME", 3000)
    assert len(list(again._best())) == 22
    assert torch.allclose(again.scores, scores, atol=1e-5)
    assert again.labels.dtype == labels.dtype
    assert (again.labels == labels).float().mean() > 0.999


MEMORY = """
import resource, sys
import numpy as np
import torch
import err_seg

torch.set_num_threads(1)
image = np.random.default_rng(0).integers(0, 256, (10_000, 10_000, 3), dtype=np.uint8)
model = err_seg.load("mini", device="cpu")
result = model.predict(image, err_seg.mini.vocabulary.VOCABULARY, tile=int(sys.argv[1]))
assert result.labels.shape == (10_000, 10_000)
print(len(result.kept), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_hundred_megapixels_within_four_gigabytes():
    """Of which a third of one is the image; windows of 800 pixels, since those of 192 take minutes."""
    run = subprocess.run([sys.executable, "-c", MEMORY, "800"], capture_output=True, text=True, check=True)
    kept, kilobytes = map(int, run.stdout.split())
    assert kept == 12
    assert kilobytes < 4e9 / 1024


def test_a_tile_that_is_far_too_small_is_refused_before_hours_have_passed(model, monkeypatch):
    """With tile=2, in the belief that these are windows a side, say."""
    monkeypatch.setattr(class_maps, "free_memory", lambda device: 10**9)
    image = noise(1, 1).expand(3, 3000, 4000)
    with pytest.raises(TooLargeError, match=r"maps of 3 classes in \d+,\d+,\d+ windows .* choose a larger tile"):
        model.predict(image, VOCABULARY, tile=2, num_kept=3)
