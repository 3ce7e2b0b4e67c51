import itertools
import json
import math

import numpy as np
import pytest
import torch

from err_seg.commands import diagnose as command
from err_seg.config import ConfigError
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import evaluate
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.loop import evaluation_batches
from err_seg.lab.diagnosis import oracles
from err_seg.lab.diagnosis.counting import SIZES, Asking, bands, confusions, diagnose
from err_seg.lab.diagnosis.page import save
from err_seg.mini.clip import ERR_SEG_WEIGHTS

CLASSES = ("cat", "grass", "sky", "tree", "dog")
IGNORE = 255


def draw(seed, height=24, width=30):
    """Return two label maps of blocks, of which some pixels are ignored in the second."""
    rng = np.random.default_rng(seed)
    labels, truth = (np.kron(rng.integers(0, 5, (height // 6, width // 6)), np.ones((6, 6), int)) for _ in range(2))
    labels = np.where(rng.random(labels.shape) < 0.7, truth, labels)
    truth[rng.random(truth.shape) < 0.05] = IGNORE
    return labels, truth


def miou(labels, truth):
    counts = ConfusionMatrix(5, IGNORE)
    counts.update(torch.from_numpy(labels), torch.from_numpy(truth))
    return counts.metrics(CLASSES)["mIoU"]


@pytest.mark.parametrize("seed", range(5))
def test_correcting_pixels_never_lowers_miou_whichever_they_are(seed):
    labels, truth = draw(seed)
    rng = np.random.default_rng(seed)
    before = miou(labels, truth)
    for share in (0.01, 0.3, 1.0):
        labels = oracles.corrected(labels, truth, (rng.random(labels.shape) < share) & (truth != IGNORE))
        after = miou(labels, truth)
        assert after >= before
        before = after
    assert before == 100


def test_regions_are_connected_and_of_one_label():
    labels = np.array([[1, 1, 0, 1], [0, 0, 0, 1], [2, 0, 1, 1]])
    numbered = oracles.regions(labels)
    same = {number: set(zip(*np.nonzero(numbered == number), strict=True)) for number in range(numbered.max() + 1)}
    found = sorted((int(labels[min(places)]), len(places)) for places in same.values())
    assert found == [(0, 5), (1, 2), (1, 4), (2, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_the_majority_of_a_region_by_a_plain_loop(seed):
    labels, truth = draw(seed)
    numbered, expected = oracles.regions(labels), np.zeros(labels.shape, bool)
    for number in np.unique(numbered):
        values = truth[(numbered == number) & (truth != IGNORE)]
        if len(values):
            best = np.bincount(values).max()
            right = oracles.majority_is(labels, truth, IGNORE)[numbered == number].sum()
            assert right == best
            expected |= (numbered == number) & (truth != IGNORE)
    assert not oracles.majority_is(labels, truth, IGNORE)[~expected].any()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_pixels_near_a_border_by_a_plain_loop(width):
    _, truth = draw(1)
    found = oracles.near_border(truth, width)
    for y, x in np.ndindex(truth.shape):
        part = truth[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        assert found[y, x] == (part != truth[y, x]).any()


def test_similar_names_count_from_a_similarity_on():
    labels, truth = np.array([[0, 0, 1, 2]]), np.array([[0, 1, 2, IGNORE]])
    similarity = np.array([[1, 0.9, 0], [0.9, 1, 0.5], [0, 0.5, 1]])
    assert oracles.similar_pairs(labels, truth, similarity, 0.9, IGNORE).tolist() == [[True, True, False, False]]


def test_bands_and_confusions_by_hand():
    ious = np.array([50.0, 60.0, 70.0, np.nan, 10.0])
    assert bands(np.array([1.0, 0.97, 0.93, 0.99, 0.2]), ious, [0.9, 0.95]) == [
        *(("same", 1, 50.0), ("≥ 0.95", 1, 60.0), ("≥ 0.9", 1, 70.0), ("< 0.9", 1, 10.0)),
    ]
    matrix = np.array([[9, 4, 0], [0, 9, 7], [1, 0, 9]])  # [prediction, ground truth]
    assert confusions(matrix, "abc", np.eye(3)) == [("c", "b", 7, 0.0), ("b", "a", 4, 0.0), ("a", "c", 1, 0.0)]


@pytest.fixture
def pairs(write_pairs, images):
    labels = [np.arange(image.shape[0] * image.shape[1]).reshape(image.shape[:2]) // 40 % 4 for image in images]
    labels[0][:3] = IGNORE
    return write_pairs([label.astype(np.uint8) for label in labels], CLASSES, images, num_kept=3)


def test_the_chain_begins_with_the_evaluation_and_ends_with_100(toy_cfg, toy_model, pairs, tmp_path):
    cfg, model = toy_cfg(), toy_model()
    found = diagnose(cfg, model, pairs, training=CLASSES, borders=(1, 3), worst=2)
    titles, values = zip(*found.chain, strict=True)
    assert titles[-3:] == ("right within 1 px of a border", "right within 3 px of a border", "all pixels right")
    assert list(values) == sorted(values)
    assert values[-1] == 100
    counted = sum(int((pairs[i].label != IGNORE).sum()) for i in range(len(pairs)))
    assert sum(pixels for pixels, _ in found.sizes) == counted
    assert len(found.sizes) == len(SIZES)
    wrong = sum(errors for _, errors in found.sizes)
    assert wrong == sum(pixels for *_, pixels, _ in found.confusions), "of few classes all pairs are listed"
    assert found.similar[0][1] >= values[0]
    assert found.bands[0][:2] == ("same", 4), "the fifth class is in no ground truth"
    assert found.worst[0].wrong >= found.worst[1].wrong
    page = save(found, "weights", pairs, tmp_path / "out").read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert 'src="http' not in page
    document = json.loads((tmp_path / "out" / f"{pairs.spec.name}.json").read_text())
    assert document["chain"][-1] == ["all pixels right", 100.0]
    assert [image["image"] for image in document["worst"]] == [pairs.names[image.number] for image in found.worst]


def test_the_first_row_is_what_evaluation_measures(run_cfg, toy_model):
    cfg, model = run_cfg(), toy_model()
    (result,) = evaluate(cfg, model)
    found = diagnose(cfg, model, SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT))
    assert found.chain[0][1] == pytest.approx(result.metrics["mIoU"])


def test_an_oracle_keeps_all_classes_that_it_is_given_whatever_their_scores(toy_cfg, toy_model, pairs):
    cfg = toy_cfg("MODEL.CRM.MIN_SCORE", 0.9)
    model = toy_model("MODEL.CRM.MIN_SCORE", 0.9)
    ask = Asking(cfg, model, pairs)
    (item, *_), *_ = evaluation_batches(cfg, pairs)
    with model.evaluating(), torch.no_grad():
        assert len(ask(item)[1]) < 3
        assert sorted(ask(item, [0, 2, 4])[1]) == [0, 2, 4]
        assert len(ask(item)[1]) < 3


def test_a_background_class_is_refused(toy_cfg, toy_model, write_pairs, images):
    labels = [np.zeros(image.shape[:2], np.uint8) for image in images]
    pairs = write_pairs(labels, CLASSES, images, variant="background", num_foreground=2)
    with pytest.raises(ConfigError, match="has a background class"):
        diagnose(toy_cfg(), toy_model(), pairs)


def test_the_command_explains_all_points_of_the_miniature_world(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--config-file", "mini/err_seg", "--datasets", "mini_world_test_4", "--images", "1"]
    assert command.main([*arguments, "--opts", "MODEL.WEIGHTS", str(ERR_SEG_WEIGHTS), "MODEL.DEVICE", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "| all pixels right                | 100.00 |" in printed
    document = json.loads((tmp_path / "output/diagnosis/mini_world_test_4.json").read_text())
    values = [value for _, value in document["chain"]]
    assert math.isclose(values[0] + sum(b - a for a, b in itertools.pairwise(values)), 100)
    assert document["bands"][0][0] == "same"
