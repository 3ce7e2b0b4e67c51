"""Vocabularies of many names: what they contain, what scenes show of them, and how they are evaluated."""

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.data import DatasetError, SegmentationPairs, dataset_names, get_dataset
from err_seg.lab.mini.pretraining_data import PretrainingConfig, as_shares, batches
from err_seg.mini.canvas import Canvas
from err_seg.mini.clip import CLIPS, CONTEXT_LENGTH, tokenizer
from err_seg.mini.crops import MiniCrops
from err_seg.mini.files import mini_world_spec, named
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.shapes import COLOURS, PATTERNS, Look
from err_seg.mini.vocabulary import MOST_NAMES, NUM_SHOWN, PROMPTS, VOCABULARY, mini_vocabulary, words


def test_a_longer_vocabulary_only_adds_names():
    largest = mini_vocabulary(MOST_NAMES)
    assert len(set(largest.names)) == len(largest.names) == MOST_NAMES == 11_712
    assert len(set(largest.looks)) == MOST_NAMES, "no two names look alike"
    for names in (100, 1_000, 10_000):
        assert mini_vocabulary(names).names == largest.names[:names]
        assert mini_vocabulary(names).looks == largest.looks[:names]
    assert mini_vocabulary().names == VOCABULARY
    assert words(60) == words()


def test_unseen_names_combine_words_that_seen_names_have():
    for names in (1_000, 10_000):
        spoken = [set(name.split()) for name in mini_vocabulary(names).names]
        seen = set().union(*(spoken[i] for i in mini_vocabulary(names).seen))
        assert set().union(*spoken) == seen
        assert len(mini_vocabulary(names).seen) == names // 2


@pytest.mark.parametrize("names", [59, 99, MOST_NAMES + 1])
def test_a_number_of_names_that_does_not_exist_is_refused(names):
    with pytest.raises(ValueError, match=f"names must be 60, or 100 to 11712; found {names}"):
        MiniScenes(names=names)


@pytest.mark.parametrize("names", ["60", "99", str(MOST_NAMES + 1)])
def test_a_name_says_a_number_of_names_in_one_way(names):
    assert named(f"mini_world_{names}_test") is None


def test_scenes_show_the_first_names_whatever_the_vocabulary():
    few, many = (MiniScenes("test", 96, length=24, names=names) for names in (100, 10_000))
    assert many.vocabulary[:NUM_SHOWN] == few.vocabulary
    for index in range(24):
        assert np.array_equal(few[index].image, many[index].image)
        assert np.array_equal(few[index].label, many[index].label)
        assert few[index].label.max() < NUM_SHOWN


def test_training_scenes_and_crops_show_seen_names_alone():
    scenes = MiniScenes("train", 96, length=40, names=1_000)
    assert scenes.vocabulary == mini_vocabulary(1_000).names[::2]
    plans = [scenes.plan(i) for i in range(40)]
    shown = [*(wall for p in plans for wall in p.walls), *(t.class_index for p in plans for t in p.things)]
    assert all(index % 2 == 0 for index in shown)
    crops = MiniCrops(names=1_000, classes="seen", length=20)
    for _, index, caption in crops:
        assert index % 2 == 0
        assert any(caption == prompt.format(mini_vocabulary(1_000).names[index]) for prompt in PROMPTS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_covers_less_than_its_ground(pattern):
    canvas = Canvas(96, 96, np.random.default_rng(0), "easy")
    canvas.paint_object(Look("square", COLOURS["white"], pattern, COLOURS["black"]), 1, (48, 48), 40)
    dark = (canvas.image[canvas.label == 1].mean(1) < 128).mean()
    assert 0.2 < dark < 0.45


def test_distractors_count_as_one_class(tmp_path):
    assert {"mini_world_100_test", "mini_world_1000_test", "mini_world_10000_test"} <= set(dataset_names())
    spec = get_dataset("mini_world_10000_test_4")
    assert (len(spec.vocabulary), spec.num_evaluated_classes, spec.num_foreground) == (10_000, 101, 100)
    assert get_dataset("mini_world_100_test").variant == "standard"
    pairs = SegmentationPairs(spec, tmp_path)
    assert np.array_equal(pairs[3].label, spec.scenes[3].label)
    assert pairs[3].image.shape == (96, 96, 3)
    for name in ("mini_world_61_test", "mini_world_11713_test", "mini_world_0_test"):
        with pytest.raises(DatasetError, match=f"unknown data set {name!r}"):
            get_dataset(name)


def test_labels_beyond_eight_bits_are_kept(tmp_path):
    spec = mini_world_spec(MiniScenes("train", 96, length=8, names=1_000))
    assert (spec.num_evaluated_classes, spec.ignore_label) == (500, 65535)
    pairs = SegmentationPairs(spec, tmp_path)
    labels = [pairs[i].label for i in range(8)]
    assert max(label.max() for label in labels) > 255
    assert all(np.array_equal(label, spec.scenes[i].label) for i, label in enumerate(labels))
    with Image.open(next(spec.label_folder(tmp_path).glob("*.png"))) as label:
        assert label.mode == "I;16"


def test_every_caption_fits():
    tokens = tokenizer("mini_large")([PROMPTS[0].format(name) for name in mini_vocabulary(MOST_NAMES).names])
    assert len(tokens.unique(dim=0)) == MOST_NAMES
    assert tokens.shape[1] == CONTEXT_LENGTH
    assert (tokens.max(dim=1).values == tokenizer("mini_large").end).all()
    assert CLIPS["mini_large"].names == MOST_NAMES


def test_a_step_of_pre_training_compares_a_part_of_the_seen_names():
    config = PretrainingConfig(
        steps=3, crops=30, scenes=20, crop_batch=6, scene_batch=5, names=10_000, captions=40, scene_sides=(96,)
    )
    for batch in batches(config):
        assert 40 <= len(batch.classes) == len(batch.prompts) <= 40 + 5 * 6
        assert (batch.classes % 2 == 0).all()
        assert torch.allclose(batch.shares.sum(dim=1), torch.ones(len(batch.images)))
    all_sixty = next(iter(batches(PretrainingConfig(steps=1, crops=60, scenes=8, crop_batch=6, scene_batch=5))))
    assert all_sixty.classes.tolist() == list(range(60))


def test_shares_are_equal_parts_of_what_an_image_shows():
    shares = as_shares(torch.tensor([[4, 7, -1], [7, 7, 9]]), torch.tensor([4, 7, 9]))
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
