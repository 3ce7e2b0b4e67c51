import json
import re
import textwrap

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.commands import evaluate as command
from err_seg.config import ConfigError
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import evaluate
from err_seg.evaluation import BoundaryConfusion, ConfusionMatrix, load_results
from err_seg.evaluation.predictors import FunctionPredictor, NetworkPredictor, WithDistractors, as_labels
from err_seg.evaluation.results import load_image_counts, save_image_counts
from err_seg.utils.errors import EvaluationError
from tests.helpers.toy import REPOSITORY

CODE = """
import numpy as np

def bright(image, names):
    assert image.dtype == np.uint8 and image.shape[2] == 3 and isinstance(names, list)
    grey = image.astype(float).mean(axis=2)
    return np.where(grey < 110, -1, grey // 15 % len(names)).astype(int)

class Maps:
    settings = {"weights": "none"}
    def __call__(self, image, names):
        return np.stack([image[::2, ::2, i % 3] / 255.0 for i in range(len(names))])

def fails(image, names):
    raise KeyError("no such word")

value = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(textwrap.dedent(CODE))
    return path


def test_a_function_is_evaluated_as_a_count_by_hand_says(run_cfg, file):
    cfg = run_cfg("TEST.BOUNDARY_IOU", True)
    (result,) = evaluate(cfg, FunctionPredictor(cfg, f"{file}:bright"))
    spec = get_dataset("toy_val")
    n = len(spec.vocabulary)
    tp, gt, predicted = np.zeros((3, n))
    for image, label, *_ in SegmentationPairs(spec):
        grey = np.asarray(image, dtype=float).mean(axis=2)
        labels = np.where(grey < 110, -1, grey // 15 % n)
        counted = label != spec.ignore_label
        assert (labels[counted] == -1).any()
        for c in range(n):
            tp[c] += ((labels == c) & (label == c) & counted).sum()
            gt[c] += ((label == c) & counted).sum()
            predicted[c] += ((labels == c) & counted).sum()
    present = gt > 0
    iou = tp[present] / (gt + predicted - tp)[present]
    assert result.metrics["mIoU"] == pytest.approx(100 * iou.mean())
    assert result.metrics["pACC"] == pytest.approx(100 * tp.sum() / gt.sum())
    assert 0 <= result.metrics["mBoundaryIoU"] <= 100
    assert result.settings["predictor"] == f"{file}:bright"
    assert "K" not in result.settings

    names, counts = load_image_counts(file.parent / "out/inference/toy_val")
    assert list(names) == SegmentationPairs(spec).names
    assert np.array_equal(counts.sum(axis=0), [tp, gt, predicted])


def test_maps_of_classes_and_settings_of_ones_own(run_cfg, file):
    cfg = run_cfg()
    predictor = FunctionPredictor(cfg, f"{file}:Maps")
    (result,) = evaluate(cfg, predictor)
    assert result.settings["weights"] == "none"
    maps = torch.rand(3, 4, 5)
    assert as_labels(maps, (8, 10), 3).shape == (8, 10)
    assert torch.equal(as_labels(maps, (4, 5), 3), maps.argmax(0))


def test_the_network_writes_the_pixels_of_each_image(run_cfg, toy_model, file):
    (result,) = evaluate(run_cfg(), toy_model())
    counts = load_image_counts(file.parent / "out/inference/toy_val").counts.sum(axis=0).astype(float)
    tp, gt, predicted = counts[:, counts[1] > 0]
    assert result.metrics["mIoU"] == pytest.approx(100 * (tp / (gt + predicted - tp)).mean())


def test_it_continues_after_a_kill_but_not_with_other_code(run_cfg, file):
    calls = file.parent / "calls.txt"
    count = f"    open({str(calls)!r}, 'a').write('x')\n"
    file.write_text(file.read_text().replace("    grey", count + "    grey", 1))
    cfg = run_cfg("TEST.PROGRESS_PERIOD", 1, "TEST.BATCH_SIZE", 1)
    images = len(SegmentationPairs(get_dataset("toy_val")))
    expected = evaluate(cfg, FunctionPredictor(cfg, f"{file}:bright"))
    assert len(calls.read_text()) == images
    stopping = FunctionPredictor(cfg, f"{file}:bright")
    function = stopping.function
    left = iter(range(2))

    def stops(image, names):
        if next(left, None) is None:
            raise ValueError("stopped")
        return function(image, names)

    stopping.function = stops
    with pytest.raises(EvaluationError, match="stopped"):
        evaluate(cfg, stopping)
    calls.write_text("")
    assert evaluate(cfg, FunctionPredictor(cfg, f"{file}:bright")) == expected
    assert 0 < len(calls.read_text()) < images

    stopping = FunctionPredictor(cfg, f"{file}:bright")
    stopping.function, left = stops, iter(range(2))
    with pytest.raises(EvaluationError, match="stopped"):
        evaluate(cfg, stopping)
    file.write_text(file.read_text() + "# mended\n")
    calls.write_text("")
    evaluate(cfg, FunctionPredictor(cfg, f"{file}:bright"))
    assert len(calls.read_text()) == images


@pytest.mark.parametrize(
    ("output", "says"),
    [
        (np.zeros((4, 5)), "returned shape (4, 5), torch.float64; expected a label map of integers (4, 5), or"),
        (np.zeros((5, 4), int), "returned shape (5, 4)"),
        (np.zeros((2, 4, 5)), "floating-point maps (3, h, w), one for each name"),
        (np.full((4, 5), 3), "returned labels 3..3, expected -1..2 for 3 names"),
        (np.full((3, 4, 5), np.nan), "its maps hold NaN"),
    ],
)
def test_what_a_function_may_not_return(output, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        as_labels(output, (4, 5), 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own.py", "expected module:function or file.py:function"),
        ("own.py:absent", "has no attribute 'absent'"),
        ("other.py:bright", "No such file"),
        ("own.py:value", "is 3, expected a function"),
    ],
)
def test_a_predictor_that_is_not_there(run_cfg, file, monkeypatch, name, says):
    monkeypatch.chdir(file.parent)
    with pytest.raises(ConfigError, match=says):
        FunctionPredictor(run_cfg(), name)


def test_settings_of_the_network_are_refused(run_cfg, file):
    with pytest.raises(ConfigError, match=r"TEST\.TILE, TEST\.REFINE: a setting of the network"):
        FunctionPredictor(run_cfg("TEST.TILE", 64, "TEST.REFINE", True), f"{file}:bright")


def test_command(run_cfg, file, tmp_path, capsys):
    run = tmp_path / "run.yaml"
    run.write_text(run_cfg().dump())
    assert command.main(["--config-file", str(run), "--predictor", f"{file}:bright"]) == 0
    assert "mIoU" in capsys.readouterr().out
    assert load_results(tmp_path / "out/results.json")[0].settings["predictor"].endswith("own.py:bright")
    assert command.main(["--config-file", str(run), "--predictor", f"{file}:fails"]) == 1
    error = capsys.readouterr().err
    assert "own.py:fails failed for" in error
    assert "KeyError: 'no such word'" in error
    with pytest.raises(SystemExit):
        command.main(["DATASETS.TEST", "[]"])


def test_labels_of_none_count_as_wrong_and_as_the_background():
    prediction, label = torch.tensor([[-1, 0, 1, 5]]), torch.tensor([[0, 0, 1, 1]])
    for counter in (ConfusionMatrix, BoundaryConfusion):
        counts = counter(2, 255, others=True)
        counts.update(prediction, label)
        assert counts.matrix.tolist() == [[1, 0], [0, 1], [1, 1]]
        assert counts.class_pixels.tolist() == [[1, 1], [2, 2], [1, 1]]
        assert counts.metrics(["a", "b"])["mIoU"] == 50
        again = counter.from_state(json.loads(json.dumps(counts.state())))
        assert torch.equal(again.matrix, counts.matrix)
        background = counter(2, 255, background=1, others=True)
        background.update(prediction, label)
        assert background.matrix.tolist() == [[1, 0], [1, 2]]
    with pytest.raises(ValueError, match=r"prediction holds -2, expected -1 and above"):
        ConfusionMatrix(2, 255, others=True).update(prediction - 1, label)
    with pytest.raises(ValueError, match=r"prediction holds -1, expected 0\.\.1"):
        ConfusionMatrix(2, 255).update(prediction, label)


def test_image_counts_of_a_damaged_file(tmp_path):
    save_image_counts(tmp_path, ["a"], np.zeros((1, 3, 2), np.int32))
    assert load_image_counts(tmp_path).names.tolist() == ["a"]
    (tmp_path / "images.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"images\.npz is not of an evaluation"):
        load_image_counts(tmp_path)


EXAMPLES = REPOSITORY / "examples/predictors"


def test_one_word_at_a_time(tmp_path):
    where = f"{EXAMPLES}/one_word_at_a_time.py:OneWordAtATime"
    options = ["DATASETS.TEST", "['mini_world_test_24']", "TEST.NUM_IMAGES", "2", "DATALOADER.NUM_WORKERS", "0"]
    assert command.main(["--predictor", where, *options, "OUTPUT_DIR", str(tmp_path)]) == 0
    (result,) = load_results(tmp_path / "results.json")
    assert result.pictures == 2
    assert result.metrics["pACC"] > 30  # of 12 classes; the network that sees all words at once has more


def test_clipseg(run_cfg, tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    from transformers.models.clip.tokenization_clip import CLIPTokenizer

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPSegConfig(
        text_config={**small, "vocab_size": 99, "bos_token_id": 97, "eos_token_id": 98},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=32,
        extract_layers=[1],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{x}</w>" for x in "abcdefghijklmnopqrstuvwxyz")]
    tokens = {token: i for i, token in enumerate(letters)}
    tokens |= {"<|startoftext|>": 97, "<|endoftext|>": 98}
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    images = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    transformers.CLIPSegProcessor(images, tokenizer).save_pretrained(tmp_path / "clipseg")
    transformers.CLIPSegForImageSegmentation(config).save_pretrained(tmp_path / "clipseg")
    monkeypatch.setenv("CLIPSEG_WEIGHTS", str(tmp_path / "clipseg"))
    cfg = run_cfg()
    predictor = FunctionPredictor(cfg, f"{EXAMPLES}/clipseg.py:CLIPSeg")
    (result,) = evaluate(cfg, predictor)
    assert result.settings["weights"] == str(tmp_path / "clipseg")
    maps = predictor.function(np.zeros((40, 50, 3), np.uint8), ["a b", "car", "car"])
    assert maps.shape == (3, 64, 64)
    assert torch.equal(maps[1], maps[2])
    assert not torch.equal(maps[0], maps[1])


def test_yoloe(run_cfg, monkeypatch):
    pytest.importorskip("ultralytics")
    monkeypatch.setenv("YOLOE_WEIGHTS", "yoloe-11s-seg.yaml")
    predictor = FunctionPredictor(run_cfg(), f"{EXAMPLES}/yoloe.py:YOLOESeg")
    labels = predictor.function(np.zeros((64, 96, 3), np.uint8), ["cat", "dog, hound", "cat"])
    assert labels.shape == (64, 96)
    one_map = predictor.function.__call__.__globals__["one_map"]
    masks = np.array([[[1, 1, 0]], [[0, 1, 1]]], dtype=bool)
    assert one_map(masks, np.array([0.9, 0.2]), np.array([4, 7]), (1, 3)).tolist() == [[4, 4, 7]]
    assert one_map(masks[:1], np.array([0.9]), np.array([4]), (1, 3)).tolist() == [[4, 4, -1]]


def test_distractors_take_pixels_and_are_wrong(run_cfg, file, tmp_path):
    """A function that gives every second pixel to the last of the names it is asked for."""
    asked = []
    file.write_text(
        "import numpy as np\n\n\ndef half(image, names):\n    seen.append(names)\n"
        "    labels = np.zeros(image.shape[:2], int)\n    labels[:, ::2] = len(names) - 1\n    return labels\n"
    )
    own = get_dataset("toy_val").vocabulary
    results = {}
    for count in (0, 3, 5):
        folder = tmp_path / f"out{count}"
        cfg = run_cfg("TEST.DISTRACTORS", count, "TEST.SAVE", ["png", "rle"], "OUTPUT_DIR", str(folder))
        predictor = FunctionPredictor(cfg, f"{file}:half")
        predictor.function.__globals__["seen"] = asked
        (results[count],) = evaluate(cfg, predictor)
        assert asked[-1][: len(own)] == list(own)
        assert len(set(asked[-1])) == len(own) + count
    assert asked[-1][: len(own) + 3] in asked, "more distractors are added to the others"
    assert "distractors" not in results[0].settings
    assert results[3].settings["distractors"] == 3
    assert results[3].metrics == results[5].metrics
    pairs = SegmentationPairs(get_dataset("toy_val"))
    right = counted = 0
    for pair in pairs:
        labelled = pair.label != pairs.spec.ignore_label
        right += ((pair.label == 0) & labelled)[:, 1::2].sum()
        counted += labelled.sum()
    assert results[3].metrics["pACC"] == pytest.approx(100 * right / counted)
    saved = np.array(Image.open(next((tmp_path / "out3/inference/toy_val/labels").glob("*.png"))))
    assert set(np.unique(saved)) == {0, 255}, "pixels of none of the classes"


def test_the_network_competes_with_its_own_common_names(run_cfg, toy_model):
    model = toy_model()
    (plain,) = evaluate(run_cfg(), model)
    predictor = WithDistractors(NetworkPredictor(run_cfg(), model), 4)
    assert predictor.asked.common_names == model.vocabulary_encoder.common_names
    cfg = run_cfg("TEST.DISTRACTORS", 4, "OUTPUT_DIR", f"{run_cfg().OUTPUT_DIR}_more")
    (result,) = evaluate(cfg, model)
    assert result.settings["K"] == plain.settings["K"]
    with pytest.raises(ConfigError, match=r"TEST\.DISTRACTORS is 9999, but toy_val can have at most \d+"):
        evaluate(run_cfg("TEST.DISTRACTORS", 9999), model)
