import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from err_seg.data.transforms import (
    GREY,
    EvaluationTransform,
    SSDColorJitter,
    TrainingTransform,
    shortest_edge_size,
)


def coordinates(height, width):
    """An image whose red is its row and green its column, and a label map that tells both."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)
    return image, rows * 1000 + columns


def plain(crop_size, **changes):
    """A transform that neither scales images whose shortest side is ``min_sizes``, nor changes colours."""
    return TrainingTransform(crop_size, **{"color_jitter": "none", "ignore_label": -1, **changes})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (640, 853)),
        ((640, 480), (853, 640)),
        ((375, 500), (640, 853)),
        ((500, 500), (640, 640)),
        ((200, 1000), (267, 1333)),  # the longest side decides
        ((1000, 200), (1333, 267)),
        ((1, 5000), (1, 1333)),  # at least one pixel
    ],
)
def test_shortest_edge_size(size, expected):
    assert shortest_edge_size(*size, 640, 1333) == expected


def test_shortest_edge_size_zero_leaves_the_size():
    assert shortest_edge_size(5000, 3, 0, 1333) == (5000, 3)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 1000))
def test_shortest_edge_size_stays_within_limits(height, width, min_size):
    new_height, new_width = shortest_edge_size(height, width, min_size, 1333)
    assert 1 <= min(new_height, new_width) <= min_size
    assert max(new_height, new_width) <= 1333
    assert min(new_height, new_width) == min_size or max(new_height, new_width) == 1333
    assert (new_height < new_width) <= (height < width)


def test_evaluation_transform_resizes_smoothly():
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, ::4] = 200  # finer than the result can show: antialiasing leaves the mean
    out = EvaluationTransform(min_size=10, max_size=1333)(image)
    assert out.shape == (3, 10, 15)
    assert out.dtype == torch.uint8
    assert out.is_contiguous()
    assert (out.float() - 50).abs().max() < 20


def test_evaluation_transform_zero_leaves_the_image():
    image, _ = coordinates(7, 2000)
    np.testing.assert_array_equal(EvaluationTransform(min_size=0)(image).permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match=r"\(H, W, 3\)"):
        EvaluationTransform()(image)


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 10**9))
def test_image_and_label_stay_together(height, width, seed):
    image, label = coordinates(height, width)
    pixels, target = plain(32, min_sizes=(min(height, width),))(image, label, seed)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == torch.uint8
    assert target.shape == (32, 32)
    assert target.dtype == torch.int64
    inside = target != -1
    assert torch.equal(pixels[0][inside].long(), target[inside] // 1000)
    assert torch.equal(pixels[1][inside].long(), target[inside] % 1000)
    assert (pixels[:, ~inside] == GREY).all()
    assert inside.sum() == min(height, 32) * min(width, 32)


def test_padding_is_on_the_right_and_at_the_bottom():
    image, label = coordinates(20, 25)
    pixels, target = plain(32, min_sizes=(20,), flip_prob=0)(image, label, 0)
    assert (target[:20, :25] == torch.from_numpy(label)).all()
    assert (target[20:] == -1).all()
    assert (target[:, 25:] == -1).all()
    assert (pixels[:, 20:] == GREY).all()


def test_labels_are_sampled_at_pixel_centres():
    image, label = coordinates(40, 40)
    _, target = plain(10, min_sizes=(10,), flip_prob=0)(image, label, 0)
    assert (target[0] % 1000).tolist() == list(range(2, 40, 4))
    assert (target[:, 0] // 1000).tolist() == list(range(2, 40, 4))


def test_labels_are_resized_to_existing_values():
    label = np.zeros((10, 10), np.int64)
    label[:, 5:] = 65535
    image = np.repeat((label[:, :, None] > 0) * np.uint8(255), 3, axis=2)
    pixels, target = plain(40, min_sizes=(40,), flip_prob=0)(image, label, 0)
    assert set(target.unique().tolist()) == {0, 65535}
    assert (target[:, :20] == 0).all()  # the edge is where the image has it
    assert (pixels[0, :, :20] < 128).all()
    assert (pixels[0, :, 20:] >= 127).all()


def test_crops_reach_every_place_and_flips_happen_half_the_time():
    image, label = coordinates(4, 4)
    transform = plain(2, min_sizes=(4,))
    targets = [transform(image, label, seed)[1] for seed in range(300)]
    corners = {int(target.min()) for target in targets}
    assert corners == {row * 1000 + column for row in range(3) for column in range(3)}
    flipped = sum(bool(target[0, 0] > target[0, 1]) for target in targets)
    assert 110 < flipped < 190
    always = plain(2, min_sizes=(4,), flip_prob=1)
    assert all(t[0, 0] > t[0, 1] for t in (always(image, label, seed)[1] for seed in range(20)))


def test_one_of_several_sizes_is_drawn():
    image, label = coordinates(10, 10)
    transform = plain(30, min_sizes=(10, 20, 30))
    sides = {int((transform(image, label, seed)[1] != -1).sum() ** 0.5) for seed in range(40)}
    assert sides == {10, 20, 30}


def test_result_depends_on_the_seed_alone():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    label = np.random.default_rng(1).integers(0, 5, (50, 70))
    transform = TrainingTransform(32, min_sizes=(40, 50))
    before = torch.random.get_rng_state()
    first = transform(image, label, 7)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the state that must not matter
    again = transform(image, label, torch.Generator().manual_seed(7))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], transform(image, label, 8)[0])


def test_arguments_are_left_unchanged():
    image, label = coordinates(40, 40)
    kept = image.copy(), label.copy()
    pixels, target = TrainingTransform(32, min_sizes=(40,))(image, label, 3)
    pixels.zero_()
    target.zero_()
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(label, kept[1])


def test_crop_is_redrawn_until_no_class_dominates():
    label = np.zeros((64, 64), np.int64)
    label[:, 56:] = 1  # few crops see class 1, none of them mostly
    image = np.zeros((64, 64, 3), np.uint8)

    def share_with_both(**changes):
        transform = plain(16, min_sizes=(64,), **changes)
        return np.mean([len(transform(image, label, seed)[1].unique()) == 2 for seed in range(100)])

    assert share_with_both() < 0.35
    assert share_with_both(single_category_max_area=0.95) > 0.75


def test_a_class_may_cover_just_the_largest_share():
    image, places = coordinates(64, 64)
    label = places % 2  # stripes: in every crop of an even width each class covers exactly a half
    first, redrawn = (plain(16, min_sizes=(64,), single_category_max_area=share) for share in (1.0, 0.5))
    below = plain(16, min_sizes=(64,), single_category_max_area=0.49)
    pixels = [[transform(image, label, seed)[0] for seed in range(10)] for transform in (first, redrawn, below)]
    assert all(map(torch.equal, pixels[0], pixels[1]))
    assert not any(map(torch.equal, pixels[0], pixels[2]))  # drawn again, in vain


def test_ignored_pixels_do_not_count_as_a_class():
    label = np.full((64, 64), -1)
    label[0, :2] = [0, 1]
    image = np.zeros((64, 64, 3), np.uint8)
    transform = plain(62, min_sizes=(64,), flip_prob=0, single_category_max_area=0.6)
    counts = [int((transform(image, label, seed)[1] != -1).sum()) for seed in range(30)]
    assert np.mean(np.array(counts) == 2) > 0.5  # the only crop with both classes is one of nine


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"crop_size": 0}, "crop_size: 0"),
        ({"min_sizes": ()}, "min_sizes"),
        ({"min_sizes": (640, 0)}, "min_sizes: 0"),
        ({"max_size": -1}, "max_size: -1"),
        ({"color_jitter": "strong"}, "color_jitter: 'strong'"),
        ({"flip_prob": 1.5}, "flip_prob: 1.5"),
        ({"single_category_max_area": 0}, "single_category_max_area: 0"),
    ],
)
def test_wrong_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        TrainingTransform(**{"crop_size": 32, **changes})


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in size"):
        plain(32)(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.int64), 0)


def test_ssd_jitter_of_a_colour_stays_within_its_ranges():
    image = torch.tensor([100, 60, 40], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    hue, _, value = colorsys.rgb_to_hsv(100, 60, 40)
    results = []
    for seed in range(400):
        out = SSDColorJitter()(image, torch.Generator().manual_seed(seed))
        assert out.dtype == torch.uint8
        assert (out == out[:, :1, :1]).all()
        results.append(tuple(out[:, 0, 0].tolist()))
    turned = [(colorsys.rgb_to_hsv(*c)[0] - hue + 0.5) % 1 - 0.5 for c in results]
    values = np.array([max(c) for c in results])
    assert max(map(abs, turned)) < 0.13  # 0.1, and the rounding of dark colours
    assert min(turned) < -0.07
    assert max(turned) > 0.07
    assert values.min() >= (value - 32) * 0.5 - 2
    assert values.max() <= (value + 32) * 1.5 + 2
    assert values.min() < 60
    assert values.max() > 150
    unchanged = sum(c == (100, 60, 40) for c in results)
    assert 8 < unchanged < 50  # one in sixteen


def test_ssd_jitter_leaves_grey_grey():
    image = torch.full((3, 4, 4), 90, dtype=torch.uint8)
    for seed in range(50):
        out = SSDColorJitter()(image, torch.Generator().manual_seed(seed))
        assert torch.equal(out[0], out[1])
        assert torch.equal(out[0], out[2])
