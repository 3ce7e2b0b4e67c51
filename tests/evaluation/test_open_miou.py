import sys
from types import ModuleType

import numpy as np
import pytest

from err_seg.config import ConfigError
from err_seg.evaluation.metrics import segmentation_metrics
from err_seg.evaluation.open_miou import open_miou, wordnet_similarity
from err_seg.plugins import METRICS

TREE = {"cat": "animal/feline", "kitten": "animal/feline/young", "dog": "animal/canine", "window": "thing/window"}


class Sense:
    """A place in a small tree of words."""

    def __init__(self, path):
        self.path = path.split("/")

    def path_similarity(self, other):
        common = sum(a == b for a, b in zip(self.path, other.path, strict=False))
        return 1 / (1 + len(self.path) + len(other.path) - 2 * common) if common else None


@pytest.fixture
def wordnet(monkeypatch):
    corpus = ModuleType("nltk.corpus")
    corpus.wordnet = ModuleType("wordnet")
    corpus.wordnet.synsets = lambda word, pos: [Sense(TREE[word]), Sense("never/the/second")] if word in TREE else []
    monkeypatch.setitem(sys.modules, "nltk", ModuleType("nltk"))
    monkeypatch.setitem(sys.modules, "nltk.corpus", corpus)


def test_values_by_hand():
    confusion = np.array([[6, 2, 0], [1, 3, 4], [0, 0, 0]])  # [prediction, ground truth]
    similarity = np.array([[1, 0.5, 0], [0.5, 1, 0.25], [0, 0.25, 1]])
    first = (6 + 0.5) / (7 + 2 * 0.5)  # right and half right, over the ground truth and what it was taken for in vain
    second = (3 + 2 * 0.5) / (5 + 1 * 0.5 + 4 * 0.75)
    third = (4 * 0.25) / (4 + 0)
    assert open_miou(confusion, similarity) == pytest.approx(100 * (first + second + third) / 3)


@pytest.mark.parametrize("rows", [4, 5])
def test_without_similar_classes_it_is_miou_and_with_them_it_is_more(rows):
    rng = np.random.default_rng(rows)
    confusion = rng.integers(0, 50, (rows, 4))
    confusion[:, 2] = 0  # a class that is only predicted
    plain = segmentation_metrics(confusion, list("abcd"))["mIoU-v0.6"]
    assert open_miou(confusion, np.eye(4)) == pytest.approx(plain)
    assert open_miou(confusion, np.eye(4) * 0.5 + 0.5) > plain
    assert np.isnan(open_miou(0 * confusion, np.eye(4)))


@pytest.mark.usefixtures("wordnet")
def test_the_most_similar_synonyms_count_and_compounds_by_their_last_word():
    similarity = wordnet_similarity(["cat", "dog, kitten", "stained-window", "nothing known"])
    expected = np.eye(4)
    expected[0, 1] = expected[1, 0] = 1 / 2  # cat and kitten, one step apart
    np.testing.assert_allclose(similarity, expected)
    assert METRICS.get("open_mIoU")(np.diag([5, 5]), ["cat", "dog"]) == {"Open-mIoU": 100.0}


def test_without_wordnet_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setitem(sys.modules, "nltk.corpus", None)
    with pytest.raises(ConfigError, match=r"needs WordNet \(pip install 'err_seg\[wordnet\]', then python -m nltk"):
        wordnet_similarity(["cat", "dog"])
