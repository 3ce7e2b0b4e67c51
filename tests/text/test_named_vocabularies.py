"""Vocabularies by name, from files, and in lists; and the colours they bring."""

import json
import sys

import numpy as np
import pytest

import err_seg
from err_seg.text.prompts import Vocabulary, VocabularyError
from err_seg.text.vocabularies import load_vocabulary, read_vocabulary
from err_seg.visualization.colors import BASE_COLORS, class_colors

YAML = """
- cat
- name: sofa
  synonyms: [couch, settee]
  color: "#70a0ff"
- name: Sky
  color: [1, 2, 3]
- wall, brick wall
"""


def test_the_vocabularies_are_listed():
    assert err_seg.vocabularies() == {"ade150": 150, "ade847": 847, "coco": 171, "pc59": 59, "pc459": 459, "voc20": 20}
    assert read_vocabulary("ade150") == read_vocabulary(["ade150"]) == load_vocabulary("ade20k_150")


def test_files_of_every_kind(tmp_path):
    names = ("cat", "sofa, couch, settee", "Sky", "wall, brick wall")
    colors = {"sofa, couch, settee": (112, 160, 255), "sky": (1, 2, 3)}
    (tmp_path / "words.yaml").write_text(YAML, encoding="utf-8")
    listed = ["cat", {"name": "sofa", "synonyms": ["couch", "settee"], "color": "#70a0ff"}]
    listed += [{"name": "Sky", "color": [1, 2, 3]}, {"name": "wall, brick wall"}]
    (tmp_path / "words.json").write_text(json.dumps(listed), encoding="utf-8")
    (tmp_path / "words.txt").write_text("\n".join(names), encoding="utf-8")
    for file in ("words.yaml", "words.json", "words.txt"):
        for source in (tmp_path / file, str(tmp_path / file), [tmp_path / file]):
            vocabulary = read_vocabulary(source)
            assert vocabulary == names
            assert vocabulary.colors == ({} if file == "words.txt" else colors)


def test_lists_mix_vocabularies_files_and_words(tmp_path):
    (tmp_path / "words.yaml").write_text(YAML, encoding="utf-8")
    voc = load_vocabulary("voc20")
    assert read_vocabulary(["robot", "voc20", "Cat, pet", "cup", "coco "]) == ("robot", *voc, "cup", "coco ")
    assert read_vocabulary(["cat", "voc20"]) == ("cat", *(name for name in voc if name != "cat"))
    mixed = read_vocabulary(["voc20", tmp_path / "words.yaml", "couch"])
    assert mixed == (*voc, "Sky", "wall, brick wall", "couch")  # of the file's "sofa", the colour comes too late
    both = read_vocabulary(["ade847", "coco"])
    assert both[:847] == load_vocabulary("ade847")
    assert 0 < len(both) - 847 < 171
    with pytest.raises(VocabularyError, match="more than once: 'robot'"):
        read_vocabulary(["robot", "voc20", "robot"])
    read = Vocabulary(["coco"])  # as a file may have it
    assert read_vocabulary(read) == ("coco",)


@pytest.fixture
def usual_depth():
    """Let calls nest as deep as in a new process: torch.compile raises the limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("- cat\n- no", "class 1 is False; expected a name, in quotes if"),
        ("- cat\n- 7", "class 1 is 7"),
        ("cat: 1", "expected a list of class names, found dict"),
        ("", "found NoneType"),
        ("- [cat", "not YAML"),
        (3000 * "[", "not YAML .*recursion"),
        ('- "\\ud800"', "class 0 is '.*ud800', which holds characters that no text may hold"),
        ("- name: cat\n  colour: [1, 2, 3]", "class 0: unknown key 'colour'; did you mean 'color'"),
        ("- synonyms: [cat]", "class 0: name and synonyms must be texts"),
        ("- name: cat\n  synonyms: kitty", "synonyms must be a list, found 'kitty'"),
        ("- name: cat\n  synonyms: [no]", "must be texts that are not blank, in quotes if .* found .*False"),
        ("- name: cat\n  color: #70a0ff", 'color must be "#rrggbb", in quotes, .* found None'),
        ("- name: cat\n  color: [1, 2, 256]", "found .*256"),
        ("- name: cat\n  color: [1, 2]", r"found \[1, 2\]"),
        ("- name: cat\n  color: [1, 2, true]", "True"),
        ("- name: cat\n  color: '#70a0fg'", "#70a0fg"),
        ("- cat\n- name: cat", "more than once: 'cat'"),
    ],
)
def test_files_that_hold_something_else(tmp_path, content, complaint, usual_depth):
    (tmp_path / "a.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(VocabularyError, match=rf"a\.yaml: .*{complaint}"):
        read_vocabulary(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("ade15", "unknown vocabulary 'ade15'; did you mean 'ade150'"),
        ("cat, dog", r"known names: ade150, .* not one string, \['cat, dog'\]"),
        ("missing.yaml", "no vocabulary file at /.*missing.yaml"),
        (".json", "unknown vocabulary"),
    ],
)
def test_what_is_neither_name_nor_file(source, complaint):
    with pytest.raises(VocabularyError, match=complaint):
        read_vocabulary(source)


def test_json_that_is_too_deep(tmp_path):
    (tmp_path / "a.json").write_text(100_000 * "[")
    with pytest.raises(VocabularyError, match=r"a\.json: .*not JSON .*recursion"):
        read_vocabulary(tmp_path / "a.json")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(VocabularyError, match=r"a\.txt: cannot be read .*directory"):
        read_vocabulary(tmp_path / "a.txt")


def test_own_colours_win_and_no_other_comes_near():
    names = [f"name {number}" for number in range(24)]
    before = class_colors(names)
    blue = tuple(int(value) for value in BASE_COLORS[6])
    own = Vocabulary([*names, "Sea "], {"sea": blue, "elsewhere": (9, 9, 9)})
    colors = class_colors(own)
    assert tuple(colors[-1]) == blue
    assert not (colors[:-1] == blue).all(axis=1).any()
    assert (class_colors(tuple(own[:-1])) == before).all()  # what has no colours of its own is as ever
    assert (class_colors(Vocabulary(["a", "b"], {"a": (1, 1, 1), "b": (1, 1, 1)})) == 1).all()
    np.testing.assert_array_equal(class_colors(Vocabulary(names)), before)
