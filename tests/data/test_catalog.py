import dataclasses
import json
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from err_seg.data import SegmentationPairs, catalog
from err_seg.data.catalog import CATALOG, Catalog, dataset_names, get_dataset, register, unregister
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.spec import DatasetError, DatasetSpec, datasets_root, spec_from_dict
from err_seg.jobs import split_names
from err_seg.text.prompts import VocabularyError
from err_seg.text.vocabularies import load_vocabulary, vocabulary_names

OWN = {"name": "own", "image_dir": "own/images", "label_dir": "own/labels", "vocabulary": ["road", "sky, heaven"]}

# name: classes of the vocabulary, evaluated classes, K, ignore label, ending of the label files, images
BENCHMARKS = {
    "ade20k_847_val": (847, 847, 48, 65535, ".tif", 2000),
    "pascal_context_459_val": (459, 459, 48, 65535, ".tif", 5104),
    "ade20k_150_val": (150, 150, 32, 255, ".png", 2000),
    "pascal_context_59_val": (59, 59, 24, 255, ".png", 5104),
    "pascal_voc_20_val": (20, 20, 16, 255, ".png", 1449),
    "pascal_voc_20b_val": (59, 21, 24, 255, ".png", 1449),
    "pascal_voc_21_val": (46, 21, 24, 255, ".png", 1449),
    "pascal_context_60_val": (60, 60, 24, 255, ".png", 5104),
    "coco_object_val": (105, 81, 32, 255, ".png", 5000),
    "cityscapes_val": (19, 19, 16, 255, "_gtFine_labelIds.png", 500),
    "coco_stuff_val": (171, 171, 32, 255, ".png", 5000),
    "coco_stuff_train": (171, 171, None, 255, ".png", 118287),
}
RELEASED_NAMES = {
    "coco_2017_train_stuff_all_sem_seg": "coco_stuff_train",
    "coco_2017_test_stuff_all_sem_seg": "coco_stuff_val",
    "ade20k_150_test_sem_seg": "ade20k_150_val",
    "ade20k_full_sem_seg_freq_val_all": "ade20k_847_val",
    "voc_2012_test_sem_seg": "pascal_voc_20_val",
    "voc_2012_test_background_sem_seg": "pascal_voc_20b_val",
    "context_59_test_sem_seg": "pascal_context_59_val",
    "context_459_test_sem_seg": "pascal_context_459_val",
}


@pytest.fixture
def own():
    """A registered data set that goes away again."""
    yield register(spec_from_dict(OWN))
    unregister("own")


def test_benchmarks_are_as_published():
    assert {name for name in dataset_names() if not name.startswith("mini_world_")} == set(BENCHMARKS)
    for name, facts in BENCHMARKS.items():
        spec = get_dataset(name)
        assert facts == (
            len(spec.vocabulary),
            spec.num_evaluated_classes,
            spec.num_kept,
            spec.ignore_label,
            spec.label_ext,
            spec.num_images,
        )
        assert len(spec.evaluated_classes) == spec.num_evaluated_classes
        assert spec.preparation in {*CONVERSIONS, None}


def test_released_names_are_aliases():
    for alias, name in RELEASED_NAMES.items():
        assert get_dataset(alias) is get_dataset(name)


def test_benchmarks_with_a_background_name_the_classes_of_those_without():
    for name, foreground in (("pascal_voc_21", "pascal_voc_20"), ("pascal_context_60", "pascal_context_59")):
        spec = get_dataset(f"{name}_val")
        assert spec.evaluated_classes == (*load_vocabulary(foreground), "background")
    assert get_dataset("coco_object_val").vocabulary[:80] == load_vocabulary("coco_stuff")[:80]
    assert len(set(get_dataset("coco_object_val").vocabulary)) == 105


def test_labels_of_the_benchmarks_that_share_or_need_no_conversion(tmp_path):
    raw = {
        "pascal_context_60_val": ([[0, 58, 255]], [[0, 58, 59]]),
        "coco_object_val": ([[0, 79, 80, 170, 255]], [[0, 79, 80, 80, 80]]),
        "pascal_voc_21_val": ([[0, 19, 20, 255]], [[0, 19, 20, 255]]),
        "cityscapes_val": ([[7, 33, 0, 29, 255]], [[0, 18, 255, 255, 255]]),
    }
    for name, (values, labels) in raw.items():
        spec = get_dataset(name)
        folders = (spec.image_folder(tmp_path) / "frankfurt", spec.label_folder(tmp_path) / "frankfurt")
        for folder in folders:
            folder.mkdir(parents=True)
        label = np.array(values, dtype=np.uint8)
        Image.fromarray(label).save(folders[1] / f"1{spec.label_ext}")
        Image.fromarray(np.stack([label] * 3, axis=2)).save(folders[0] / f"1{spec.image_endings[0]}")
        (pair,) = SegmentationPairs(spec, tmp_path)
        np.testing.assert_array_equal(pair.label, labels, err_msg=name)


def test_background_variant():
    spec = get_dataset("pascal_voc_20b_val")
    assert spec.evaluated_classes == (*load_vocabulary("pascal_voc_20"), "background")
    assert spec.vocabulary[:20] == load_vocabulary("pascal_voc_20")


def test_root_is_argument_then_environment_then_default(monkeypatch, tmp_path):
    spec = spec_from_dict(OWN)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    assert datasets_root() == Path("datasets")
    assert spec.image_folder() == Path("datasets/own/images")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    assert spec.label_folder("") == Path("/elsewhere/own/labels")
    assert spec.label_folder(tmp_path) == tmp_path / "own/labels"
    absolute = dataclasses.replace(spec, image_dir=str(tmp_path))
    assert absolute.image_folder("/elsewhere") == tmp_path


def test_documented_example_works_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_streets").mkdir()
    (tmp_path / "my_streets" / "classes.txt").write_text("road\nbuilding, house\nsky\n")
    call, entry = (textwrap.dedent(block) for block in _indented_blocks(catalog.__doc__))
    try:
        exec(call)
        from_call = get_dataset("my_streets_val")
        (mapping,) = yaml.safe_load(entry)["DATASETS"]["CUSTOM"]
        assert register(spec_from_dict(mapping)) == from_call
        assert from_call.vocabulary == ("road", "building, house", "sky")
    finally:
        unregister("my_streets_val")


def _indented_blocks(text):
    blocks = [[]]
    for line in text.splitlines():
        if line.startswith("    ") or (not line and blocks[-1]):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    return ["\n".join(block) for block in blocks if block]


def test_same_declaration_twice_is_fine_and_another_is_not(own):
    assert register(spec_from_dict(OWN)) == own
    with pytest.raises(DatasetError, match=r"'own' is taken.*label_dir"):
        register(dataclasses.replace(own, label_dir="other"))
    with pytest.raises(DatasetError, match="'ade20k_150_test_sem_seg' is taken by 'ade20k_150_val'"):
        register(dataclasses.replace(own, name="fresh", aliases=("ade20k_150_test_sem_seg",)))
    assert "fresh" not in dataset_names()  # nothing of it was added
    assert CATALOG.get("own") == own


def test_unregister_removes_all_names():
    own_catalog = Catalog([spec_from_dict({**OWN, "aliases": ["mine"]})])
    own_catalog.unregister("mine")
    assert own_catalog.names() == ()
    with pytest.raises(DatasetError, match="unknown data set 'own'"):
        own_catalog.get("own")


def test_unknown_name_is_answered_with_a_suggestion():
    with pytest.raises(DatasetError, match=r"'ade20k_150'; did you mean 'ade20k_150_val'\?"):
        get_dataset("ade20k_150")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"image_dirs": "x"}, r"unknown key 'image_dirs'; did you mean 'image_dir'\?"),
        ({"colour": "x"}, "unknown key 'colour'; known keys: name, image_dir"),
        ({"vocabulary": 5}, "vocabulary is 5"),
        ({"vocabulary": []}, "no class names"),
        ({"vocabulary": ["road", 3]}, "class 1 is 3"),
        ({"vocabulary": "ade20k_15"}, r"did you mean 'ade20k_150'\?"),
        ({"vocabulary": "absent.txt"}, r"no vocabulary file at /.*absent\.txt"),
        ({"image_dir": ""}, "image_dir is ''"),
        ({"label_dir": None}, "label_dir is None"),
        ({"ignore_label": "255"}, "ignore_label is '255'"),
        ({"ignore_label": 1}, r"ignore_label is 1, expected no class index \(0\.\.1\)"),
        ({"num_kept": 0}, "num_kept is 0"),
        ({"image_ext": [".jpg", 3]}, "image_ext"),
        ({"variant": "other"}, "one of standard, background"),
        ({"variant": "background"}, "num_foreground is None"),
        ({"num_foreground": 1}, "num_foreground is 1"),
        ({"variant": "background", "num_foreground": 2}, "num_foreground is 2, expected an integer from 1 to 1"),
    ],
)
def test_wrong_entries_are_refused(change, complaint):
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        spec_from_dict({**OWN, **change})


def test_missing_keys_and_non_mappings_are_refused():
    with pytest.raises(DatasetError, match="'own': missing label_dir, vocabulary"):
        spec_from_dict({"name": "own", "image_dir": "x"})
    with pytest.raises(DatasetError, match="mapping"):
        spec_from_dict("own")
    with pytest.raises(DatasetError, match="load_vocabulary"):
        DatasetSpec("own", "a", "b", "coco_stuff")


def test_package_vocabularies():
    sizes = {name: len(load_vocabulary(name)) for name in vocabulary_names()}
    assert sizes == {
        "coco_stuff": 171,
        "ade20k_847": 847,
        "ade20k_150": 150,
        "pascal_context_459": 459,
        "pascal_context_59": 59,
        "pascal_voc_20": 20,
        "pascal_voc_20b": 59,
    }
    assert load_vocabulary("ade20k_150")[7] == "bed "
    assert load_vocabulary("ade20k_847")[1] == "building, edifice"


def test_vocabulary_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffcafé\r\nwall, brick wall\r\n\r\nbed \r\n".encode())
    (tmp_path / "a.json").write_text(json.dumps(["café", "wall, brick wall", "bed "]), encoding="utf-8")
    assert load_vocabulary(tmp_path / "a.txt") == ("café", "wall, brick wall", "bed ")
    assert load_vocabulary(str(tmp_path / "a.json")) == ("café", "wall, brick wall", "bed ")


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("a.txt", b"\n \n", "no class names"),
        ("a.json", b"[]", "no class names"),
        ("a.json", b'{"road": 1}', "found dict"),
        ("a.json", b'["road", null]', "class 1 is None"),
        ("a.json", b'["road", " "]', "class 1 is ' '"),
        ("a.json", b"road", "not JSON"),
        ("a.txt", b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_vocabulary_files_that_hold_something_else(tmp_path, file, content, complaint):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        load_vocabulary(tmp_path / file)


@pytest.mark.parametrize(
    ("lines", "number"),
    [
        (["0:unlabeled", "1:person", "2:bicycle"], 1),
        (["0: unlabeled", "1: person"], 1),
        (["0 person", "1 car"], 1),
        (["person 0", "traffic light 1"], 1),
        (["1. person", "2. car"], 1),
        (["# label:color_rgb:parts:actions", "road:128,64,128::"], 1),
        (["road", "# the next is rare", "tram"], 2),
        (["Idx\tRatio\tName", "1\t0.1\twall"], 1),
        (["id,name", "0,road"], 2),
        (["name;r;g;b", "road;128;64;128"], 2),
        (["road 128 64 128", "sky 70 130 180"], 1),
        (["road, 128, 64, 128"], 1),
        (["cat,0", "dog,1"], 1),
        (["__ignore__", "_background_", "cat"], 1),
        (["- cat", "- dog"], 1),
        (['["cat", "dog"]'], 1),
        (['"cat",', '"dog"'], 1),
    ],
)
def test_class_lists_of_other_programs_are_not_taken_for_names(tmp_path, lines, number):
    """Each line became a class as it was: a header shifted all indices, and "0:unlabeled" was a name."""
    (tmp_path / "a.txt").write_text("\n".join(["", *lines]), encoding="utf-8")
    told = rf"a\.txt, line {number + 1}: {re.escape(repr(lines[number - 1]))} is not a class name alone; expected one"
    with pytest.raises(VocabularyError, match=told):
        load_vocabulary(tmp_path / "a.txt")
    if len(lines) > 1:
        with pytest.raises(VocabularyError, match="the list of classes, line"):
            split_names("\n".join(lines))


def test_names_with_numbers_are_names(tmp_path):
    names = (
        "3D printer",
        "boeing 747",
        "route 66",
        "2-seater sofa, couch",
        "7 up",
        "no. 5",
        "C# book",
        "a: b",
        "24/7 shop",
    )
    (tmp_path / "a.txt").write_text("\n".join(names), encoding="utf-8")
    assert load_vocabulary(tmp_path / "a.txt") == names
    for vocabulary in vocabulary_names():
        (tmp_path / "a.txt").write_text("\n".join(load_vocabulary(vocabulary)), encoding="utf-8")
        assert load_vocabulary(tmp_path / "a.txt") == load_vocabulary(vocabulary)
