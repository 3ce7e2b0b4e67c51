"""The miniature world: its vocabulary, its scenes and its crops."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from err_seg.mini import vocabulary
from err_seg.mini.canvas import LEVELS, Canvas
from err_seg.mini.crops import MiniCrops, render_crop
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.shapes import OBJECT_COLOURS, WALL_COLOURS
from err_seg.mini.vocabulary import (
    NEW_WORDS,
    PROMPTS,
    SEEN,
    UNSEEN,
    UNSEEN_COMBINATIONS,
    UNSEEN_WORDS,
    VOCABULARY,
)
from tests.helpers.toy import REPOSITORY

NUM_OBJECTS = 48


def digest(*arrays):
    return hashlib.sha256(b"".join(str(a.shape).encode() + a.tobytes() for a in arrays)).hexdigest()


def words(indices):
    return Counter(word for i in indices for word in VOCABULARY[i].split())


# Vocabulary


def test_counts_and_partition():
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 60
    assert (len(SEEN), len(UNSEEN), len(UNSEEN_COMBINATIONS), len(UNSEEN_WORDS)) == (24, 36, 20, 16)
    assert sorted((*SEEN, *UNSEEN_COMBINATIONS, *UNSEEN_WORDS)) == list(range(60))
    assert sorted((*UNSEEN_COMBINATIONS, *UNSEEN_WORDS)) == list(UNSEEN)
    assert sum(i < NUM_OBJECTS for i in SEEN) == 18
    assert [VOCABULARY[0], VOCABULARY[47], VOCABULARY[48], VOCABULARY[59]] == [
        "red circle",
        "purple ring",
        "pink striped wall",
        "brown dotted wall",
    ]


def test_unseen_combinations_consist_of_words_that_are_seen_at_least_twice():
    seen, combined = words(SEEN), words(UNSEEN_COMBINATIONS)
    assert set(combined) <= set(seen)
    assert min(seen.values()) >= 2
    assert set(seen) | set(NEW_WORDS) == words(range(60)).keys()


def test_new_words_are_in_no_seen_class_and_in_every_class_of_their_own():
    assert NEW_WORDS == ("purple", "ring", "dotted")
    assert not set(NEW_WORDS) & (words(SEEN).keys() | words(UNSEEN_COMBINATIONS).keys())
    assert all(set(NEW_WORDS) & set(VOCABULARY[i].split()) for i in UNSEEN_WORDS)


def test_words_cover_every_caption():
    spoken = {word for prompt in PROMPTS for name in VOCABULARY for word in prompt.format(name).lower().split()}
    assert vocabulary.words() == tuple(sorted(spoken))


# Scenes


@pytest.mark.parametrize("level", LEVELS)
def test_a_scene_is_a_image_with_a_dense_label(level):
    scenes = MiniScenes("val", level=level, length=40)
    sizes = set()
    for image, label, image_path, label_path in (scenes[i] for i in range(40)):
        assert image.dtype == np.uint8
        assert label.dtype == np.int64
        assert image.shape == (*label.shape, 3)
        assert 128 <= min(label.shape) <= max(label.shape) <= 192
        assert 0 <= label.min() <= label.max() < 60
        assert 2 <= len(np.unique(label)) <= 6
        assert image_path.startswith("mini_world/val/images/")
        assert label_path == image_path.replace("images", "labels")
        sizes.add(label.shape)
    assert len(sizes) > 30


def test_one_size_for_all():
    assert {MiniScenes("val", size=128, length=5)[i].label.shape for i in range(5)} == {(128, 128)}


def test_a_scene_depends_on_its_index_alone():
    scenes = MiniScenes("test", length=20)
    forwards = [digest(*scenes[i][:2]) for i in range(20)]
    assert [digest(*scenes[i][:2]) for i in reversed(range(20))] == forwards[::-1]
    assert [digest(*MiniScenes("test", length=500)[i][:2]) for i in range(20)] == forwards
    assert len(set(forwards)) == 20


def test_another_process_draws_the_same():
    code = (
        "import hashlib; from err_seg.mini.scenes import MiniScenes; from err_seg.mini.crops import MiniCrops;"
        "print(hashlib.sha256(MiniScenes('val')[7].image.tobytes() + MiniCrops('val')[7][0].tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    here = MiniScenes("val")[7].image.tobytes() + MiniCrops("val")[7][0].tobytes()
    assert run.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_splits_and_seeds_share_no_scene():
    sets = [MiniScenes(split, size=96, classes="all", length=60) for split in ("train", "val", "test")]
    sets.append(MiniScenes("train", size=96, classes="all", length=60, seed=1))
    labels = [digest(scenes[i].label) for scenes in sets for i in range(60)]
    assert len(set(labels)) == len(labels)


def test_training_scenes_hold_seen_classes_only():
    scenes = MiniScenes("train", length=72)
    assert scenes.vocabulary == tuple(VOCABULARY[i] for i in SEEN)
    counts = Counter(scenes.vocabulary[k] for i in range(72) for k in np.unique(scenes[i].label))
    assert set(counts) == {VOCABULARY[i] for i in SEEN}
    whole = MiniScenes("train", classes="all", length=2)
    assert whole.vocabulary == VOCABULARY


def test_classes_come_equally_often():
    scenes = MiniScenes("val", length=480)
    plans = [scenes.plan(i) for i in range(480)]
    objects = Counter(thing.class_index for plan in plans for thing in plan.things)
    walls = Counter(wall for plan in plans for wall in plan.walls)
    assert objects == dict.fromkeys(range(NUM_OBJECTS), 25)
    assert walls == dict.fromkeys(range(NUM_OBJECTS, 60), 60)
    assert Counter((len(plan.walls), len(plan.things)) for plan in plans) == {
        (walls, things): 60 for walls in (1, 2) for things in (1, 2, 3, 4)
    }
    assert all(len(set(plan.walls)) == len(plan.walls) for plan in plans)


@pytest.mark.parametrize(("level", "least"), [("easy", 0.9), ("hard", 0.8)])
def test_objects_keep_most_of_their_area(level, least):
    scenes = MiniScenes("val", level=level, length=120)
    for i in range(120):
        plan, label = scenes.plan(i), scenes[i].label
        if len({thing.class_index for thing in plan.things}) < len(plan.things):
            continue
        for thing in plan.things:
            assert 24 <= 2 * thing.radius <= 72
            alone = Canvas(160, 160, np.random.default_rng(0), "easy")
            alone.paint_object(scenes.full_vocabulary.looks[thing.class_index], 1, (80, 80), thing.radius)
            visible = (label == thing.class_index).sum() / alone.label.sum()
            assert least < visible < 1.1, (i, VOCABULARY[thing.class_index])


def test_pixels_have_the_colour_that_their_label_names():
    scenes = MiniScenes("val", length=120)
    names = list(OBJECT_COLOURS) + list(WALL_COLOURS)
    palette = np.array(list(OBJECT_COLOURS.values()) + [np.mean(tones, 0) for tones in WALL_COLOURS.values()])
    for i in range(120):
        image, label, *_ = scenes[i]
        for k in np.unique(label):
            mean = image[label == k].mean(0)
            colour = VOCABULARY[k].split()[0]
            scale = (palette @ mean) / (palette**2).sum(1)  # each colour under the light that suits it best
            scale = np.clip(scale, 0.7, 1.2)[:, None]
            assert names[np.linalg.norm(palette * scale - mean, axis=1).argmin()] == colour, (i, VOCABULARY[k])


def test_hard_scenes_are_noisier_and_tilted():
    easy, hard = MiniScenes("val", length=1)[0].image, MiniScenes("val", level="hard", length=1)[0].image

    def roughness(image):
        return np.abs(np.diff(image.astype(float)[..., 0], 2, axis=0)).mean()

    assert roughness(hard) > 2 * roughness(easy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split must be one of train, val, test; found 'dev'"),
        ({"classes": "unseen"}, "classes must be one of seen, all"),
        ({"level": "brutal"}, "level must be one of easy, hard"),
        ({"size": 32}, "size must be 64 or more; found 32"),
        ({"size": (192, 128)}, "must be 192 or more; found 128"),
        ({"length": 0}, "length must be 1 or more; found 0"),
        ({"seed": -1}, "seed must be 0 or more; found -1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MiniScenes(**arguments)


def test_indices_end():
    scenes = MiniScenes(length=2, size=64)
    assert len(list(scenes)) == len(scenes) == 2
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"scene {index} of 2"):
            scenes[index]
    with pytest.raises(IndexError, match="crop 5 of 5"):
        MiniCrops(length=5)[5]
    with pytest.raises(IndexError, match="class 60 of 60"):
        render_crop(60, np.random.default_rng(0))


# Crops


def test_crops_show_every_class_and_say_what_they_show():
    crops = MiniCrops("train", length=120)
    targets = []
    for image, target, caption in crops:
        assert image.shape == (64, 64, 3)
        assert image.dtype == np.uint8
        assert any(caption == prompt.format(VOCABULARY[target]) for prompt in PROMPTS)
        targets.append(target)
    assert sorted(targets[:60]) == sorted(targets[60:]) == list(range(60))
    assert targets[:60] != targets[60:]


def test_crops_depend_on_split_seed_and_index_alone():
    make = [
        lambda: MiniCrops("train"),
        lambda: MiniCrops("val"),
        lambda: MiniCrops("train", seed=1),
        lambda: MiniCrops("train", level="hard"),
    ]
    first = [digest(crops()[i][0]) for crops in make for i in range(10)]
    again = [digest(crops()[i][0]) for crops in make for i in reversed(range(10))]
    assert len(set(first)) == 40
    assert set(first) == set(again)
    assert MiniCrops()[3][1:] == MiniCrops()[3][1:]


def test_an_object_crop_is_centred_on_its_colour():
    rng = np.random.default_rng(0)
    for index in range(NUM_OBJECTS):
        colour, shape = VOCABULARY[index].split()
        crop = np.mean([render_crop(index, rng) for _ in range(20)], 0)
        if shape == "ring":
            continue  # nothing is in the middle of it
        middle = crop[30:34, 30:34].mean((0, 1))
        palette = np.array(list(OBJECT_COLOURS.values()))
        assert list(OBJECT_COLOURS)[np.linalg.norm(palette - middle, axis=1).argmin()] == colour
