"""TEST.TILE, TEST.REFINE and TEST.NUM_IMAGES: the labels are those of predict, and a part is always the same one."""

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.config import ConfigError
from err_seg.data import SegmentationPairs, get_dataset, register, spec_from_dict, unregister
from err_seg.data.images import read_label
from err_seg.engine import evaluate, train
from err_seg.engine.launch import join_processes, launch
from err_seg.evaluation import load_results
from err_seg.prediction import class_maps
from err_seg.utils.errors import EvaluationError
from err_seg.utils.validation import ArgumentError
from tests.helpers.toy import SHARED, VOCABULARY, liven
from tests.helpers.training import assert_same_weights, declaration

SIZES = ((37, 51), (64, 64), (101, 147), (64, 131), (203, 90))  # smaller and larger than windows of 40, 64 and 90
WINDOWS = [("TEST.TILE", tile, "TEST.REFINE", refine) for tile in (0, 40, 64, 90) for refine in (False, True)]


@pytest.fixture
def odd_sizes(tmp_path):
    """Register a benchmark of noisy patches, of sizes that no window divides."""
    rng = np.random.default_rng(4)
    for folder in ("images", "labels"):
        (tmp_path / "odd" / folder).mkdir(parents=True)
    for index, (height, width) in enumerate(SIZES):
        patches = rng.integers(0, len(VOCABULARY), (height // 20 + 1, width // 20 + 1))
        label = patches.repeat(20, axis=0).repeat(20, axis=1)[:height, :width].astype(np.uint8)
        pixels = (30 * label[..., None] + rng.integers(0, 70, (height, width, 3))).astype(np.uint8)
        for folder, array in (("images", pixels), ("labels", label)):
            Image.fromarray(array).save(tmp_path / "odd" / folder / f"{index}.png")
    register(spec_from_dict(declaration(tmp_path, "odd")))
    yield "odd"
    unregister("odd")


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("settings", WINDOWS[1:])
def test_labels_are_those_of_predict(run_cfg, toy_model, odd_sizes, tmp_path, settings, batch_size):
    """Bit by bit, though INPUT.MIN_SIZE_TEST would resize the images."""
    own = ("DATASETS.TEST", [odd_sizes], "TEST.SAVE", ["png"], "TEST.BATCH_SIZE", batch_size)
    cfg, model, pairs = run_cfg(*own, *settings), toy_model(), SegmentationPairs(get_dataset(odd_sizes))
    (result,) = evaluate(cfg, model)
    images = [pairs[index].image for index in range(len(pairs))]
    options = {"num_kept": 4, "tile": cfg.TEST.TILE or None, "refine": cfg.TEST.REFINE, "batch_size": batch_size}
    predicted = model.predict(images, VOCABULARY, **options)
    for name, one in zip(pairs.names, predicted, strict=True):
        written = read_label(tmp_path / f"out/inference/odd/labels/{name}.png")
        np.testing.assert_array_equal(written, one.labels.numpy(), err_msg=f"{name}, {settings}")
    plain = model.predict(images, VOCABULARY, num_kept=4, batch_size=batch_size)
    assert any(not torch.equal(one.labels, other.labels) for one, other in zip(predicted, plain, strict=True))
    assert (result.settings["tile"], result.settings["refine"]) == (settings[1], settings[3])
    assert result.settings["shortest_side"] == 0


def test_without_windows_the_shortest_side_still_counts(run_cfg, toy_model):
    result, refined = (evaluate(run_cfg("TEST.REFINE", on), toy_model())[0] for on in (False, True))
    assert (result.settings["shortest_side"], refined.settings["shortest_side"]) == (64, 0)
    assert (result.settings["tile"], result.settings["refine"]) == (0, False)


def test_averaged_views_can_be_refined(run_cfg, toy_model):
    views = ("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [1.0, 1.5], "INPUT.MIN_SIZE_TEST", 0)
    found = [evaluate(run_cfg(*views, "TEST.REFINE", on), toy_model())[0].metrics for on in (False, True)]
    assert found[0]["pACC"] != found[1]["pACC"]


@pytest.mark.parametrize(("size", "tile"), [(64, 1), (96, 2), (128, 3)])
def test_a_tile_is_refused_where_predict_refuses_it(toy_cfg, toy_model, size, tile):
    with pytest.raises(
        ConfigError, match=rf"TEST\.TILE must be 0 \(off\), or at least {size // 32} pixels.* not {tile}"
    ):
        toy_cfg("INPUT.SIZE", size, "TEST.TILE", tile)
    toy_cfg("INPUT.SIZE", size, "TEST.TILE", tile + 1)
    model, image = toy_model("INPUT.SIZE", size), torch.zeros(3, 5, 5, dtype=torch.uint8)
    with pytest.raises(ArgumentError, match=f"at least {size // 32} pixels"):
        model.predict(image, VOCABULARY, tile=tile)
    model.predict(image, VOCABULARY, tile=tile + 1)


def test_windows_of_several_views_are_refused(toy_cfg):
    with pytest.raises(ConfigError, match=r"TEST\.TILE must be 0 \(off\) where TEST\.AUG\.ENABLED is True, not 40"):
        toy_cfg("TEST.TILE", 40, "TEST.AUG.ENABLED", True)


def test_windows_that_memory_does_not_hold_end_with_one_sentence(run_cfg, toy_model, odd_sizes, monkeypatch):
    monkeypatch.setattr(class_maps, "free_memory", lambda device: 25_000)  # the first two images are one window each
    with pytest.raises(EvaluationError) as problem:
        evaluate(run_cfg("DATASETS.TEST", [odd_sizes], "TEST.TILE", 64), toy_model())
    words = (r"the maps of 4 classes in 8 windows", "larger tile (TEST.TILE)", "2 images of odd are done and kept")
    assert all(part in str(problem.value) for part in (*words, "With more memory, rerun the same command"))


def interrupted(cfg, model, after):
    """Evaluate until so many images have gone through the network, as a kill would leave it."""
    seen = []

    def note(module, inputs):
        seen.extend(range(len(inputs[0])))
        if len(seen) > after:
            raise KeyboardInterrupt

    hook = model.encoder.register_forward_pre_hook(note)
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, model)
    hook.remove()


def images_seen(cfg, model, monkeypatch):
    """Evaluate; return how many images were read for it, and the result."""
    read, getitem = [], SegmentationPairs.__getitem__
    with monkeypatch.context() as patch:
        patch.setattr(SegmentationPairs, "__getitem__", lambda pairs, i: read.append(i) or getitem(pairs, i))
        (result,) = evaluate(cfg, model)
    return len(read), result


@pytest.mark.parametrize(
    ("settings", "images"), [(("TEST.REFINE", True), 7), (("TEST.TILE", 1000), 7), (("TEST.NUM_IMAGES", 6), 6)]
)
def test_a_half_done_evaluation_goes_on_with_the_same_keys_only(run_cfg, toy_model, monkeypatch, settings, images):
    """Also where the other keys give the same labels: a tile that covers every image is the image as a whole."""
    model, own = toy_model(), ("TEST.PROGRESS_PERIOD", 1, "INPUT.MIN_SIZE_TEST", 0)
    for first, then, left in (
        (settings, settings, {images - 4, images - 3}),
        (settings, (), {7}),
        ((), settings, {images}),
    ):
        interrupted(run_cfg(*own, *first), model, after=4)  # the fourth image may not have been counted yet
        read, result = images_seen(run_cfg(*own, *then), model, monkeypatch)
        assert read in left
        assert result.pictures == (images if then else 7)


def test_a_part_is_spread_over_the_images_and_says_so(run_cfg, toy_model, tmp_path, caplog):
    model = toy_model()
    cfg = run_cfg("TEST.NUM_IMAGES", 3, "TEST.SAVE", ["png", "rle"])
    with caplog.at_level("INFO"):
        (result,) = evaluate(cfg, model)
    assert "evaluating 3 images of toy_val" in caplog.text
    chosen = ["p0", "p2", "p4"]  # 0, 7 // 3 and 14 // 3 of p0 to p6
    assert sorted(file.stem for file in (tmp_path / "out/inference/toy_val/labels").iterdir()) == chosen
    pairs = SegmentationPairs(get_dataset("toy_val"))
    labels = np.concatenate([pairs.load_label(pairs.names.index(name)).ravel() for name in chosen])
    assert result.class_pixels == [int((labels == index).sum()) for index in range(len(VOCABULARY))]
    assert (result.pictures, result.settings["num_images"]) == (3, 3)
    assert load_results(tmp_path / "out/results.json")[0].settings == result.settings


@pytest.mark.parametrize("count", [0, 7, 100])
def test_all_images_are_no_part(run_cfg, toy_model, count):
    (result,) = evaluate(run_cfg("TEST.NUM_IMAGES", count), toy_model())
    assert result.pictures == 7
    assert "num_images" not in result.settings


def test_a_part_counts_in_evaluations_during_training_and_leaves_the_training_alone(run_cfg, tmp_path, caplog):
    options = ("SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1)
    for name, more in (("whole", ()), ("part", ("TEST.NUM_IMAGES", 2))):
        cfg = run_cfg(*options, *more, "OUTPUT_DIR", str(tmp_path / name))
        with caplog.at_level("INFO"):
            train(cfg, err_seg.build_model(cfg))
    assert caplog.text.count("training on 10 images of toy_train") == 2
    assert_same_weights(*(tmp_path / name / "model_final.safetensors" for name in ("whole", "part")))
    files = sorted((tmp_path / "part").rglob("results.json"))
    assert [load_results(file)[0].pictures for file in files] == [2, 2]


def evaluate_in_processes(cfg):
    """Evaluate in one of several processes, or alone."""
    torch.set_num_threads(1)
    join_processes(cfg)
    for entry in cfg.DATASETS.CUSTOM:
        register(spec_from_dict(entry))
    model = err_seg.build_model(cfg)
    liven(model)
    evaluate(cfg, model)
    return 0


def test_two_processes_evaluate_the_same_part_in_windows(run_cfg, tmp_path):
    own = ("TEST.NUM_IMAGES", 3, "TEST.TILE", 40, "TEST.REFINE", True)
    folders = [tmp_path / "one", tmp_path / "two"]
    for processes, folder in enumerate(folders, start=1):
        assert launch(evaluate_in_processes, run_cfg(*own, "OUTPUT_DIR", str(folder)), processes=processes) == 0
    assert (folders[0] / "results.json").read_text() == (folders[1] / "results.json").read_text()


@pytest.mark.skipif(not (SHARED / "camvid").is_dir(), reason="needs the photographs of ../shared/camvid")
def test_photographs_in_windows_and_refined_are_labelled_as_predict_labels_them(run_cfg, toy_model, tmp_path):
    folder, model = SHARED / "camvid", toy_model()
    names = ["sky", "house", "pole", "road", "path", "tree", "sign", "fence", "car", "person", "cyclist"]
    entry = {"name": "camvid_part", "image_dir": str(folder / "val"), "label_dir": str(folder / "valannot")}
    register(spec_from_dict({**entry, "vocabulary": names, "image_ext": ".jpg", "ignore_label": 11}))
    options = ("DATASETS.TEST", ["camvid_part"], "TEST.NUM_IMAGES", 2, "TEST.TILE", 160, "TEST.REFINE", True)
    try:
        evaluate(run_cfg(*options, "TEST.SAVE", ["png"]), model)
    finally:
        unregister("camvid_part")
    files = sorted((folder / "val").glob("*.jpg"))
    written = sorted((tmp_path / "out/inference/camvid_part/labels").iterdir())
    for file, labels in zip((files[0], files[len(files) // 2]), written, strict=True):
        predicted = model.predict(file, names, num_kept=4, tile=160, refine=True)
        assert labels.stem == file.stem
        np.testing.assert_array_equal(read_label(labels), predicted.labels.numpy())
