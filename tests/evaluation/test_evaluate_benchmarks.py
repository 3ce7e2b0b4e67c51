import csv
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from err_seg.config import ConfigError
from err_seg.data import SegmentationPairs, get_dataset, read_image, register, spec_from_dict, unregister
from err_seg.data.images import read_label as load_label_png
from err_seg.engine import evaluate
from err_seg.evaluation import ConfusionMatrix, load_results
from err_seg.evaluation.state import EvaluationProgress, ImageRecord
from err_seg.evaluation.tta import View, evaluation_views, segment_views
from tests.helpers.rle import load_rle_json
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import declaration, write_images

FOREGROUND = 3


@pytest.fixture
def benchmarks(toy_data, tmp_path):
    """Two further benchmarks: other words with 16-bit labels, and one with a background class."""
    write_images(tmp_path, "other_val", 3, 4, seed=2)
    write_images(tmp_path, "background_val", 3, FOREGROUND + 1, seed=3)
    entries = [
        declaration(tmp_path, "other_val", ("road", "car", "a b", "house"), num_kept=2, ignore_label=255),
        declaration(tmp_path, "background_val", num_kept=5, variant="background", num_foreground=FOREGROUND),
    ]
    for entry in entries:
        register(spec_from_dict(entry))
    yield ["toy_val", "other_val", "background_val"]
    for entry in entries:
        unregister(entry["name"])


def confusion(cfg, model):
    """Count the pixels of every benchmark by hand, an image at a time, from the network's own predictions."""
    counts = {}
    for name in cfg.DATASETS.TEST:
        spec = get_dataset(name)
        pairs = SegmentationPairs(spec)
        matrix = np.zeros((spec.num_evaluated_classes,) * 2, dtype=int)
        for image, label, *_ in pairs:
            (result,) = model.predict([image], spec.vocabulary, num_kept=cfg.MODEL.CRM.NUM_KEPT or spec.num_kept)
            predicted = np.minimum(result.labels.numpy(), spec.num_evaluated_classes - 1)
            counted = label != spec.ignore_label
            np.add.at(matrix, (predicted[counted], label[counted]), 1)
        counts[name] = matrix
    return counts


def test_several_benchmarks_each_with_its_own_words_and_rules(run_cfg, toy_model, benchmarks, tmp_path):
    # without the resize before S×S, predict sees what evaluation sees
    cfg = run_cfg("DATASETS.TEST", benchmarks, "MODEL.CRM.NUM_KEPT", 0, "INPUT.MIN_SIZE_TEST", 0)
    model = toy_model("MODEL.CRM.NUM_KEPT", 0)
    results = evaluate(cfg, model)
    assert [result.benchmark for result in results] == benchmarks
    assert [result.settings["K"] for result in results] == [32, 2, 5]
    assert results[2].class_names == [*VOCABULARY[:FOREGROUND], "background"]
    for result in results:
        matrix = confusion(cfg, model)[result.benchmark]
        assert result.class_pixels == matrix.sum(axis=0).tolist()
        assert result.metrics["pACC"] == pytest.approx(100 * np.trace(matrix) / matrix.sum())
        rows = list(csv.reader((tmp_path / "out/inference" / result.benchmark / "classes.csv").open()))
        assert len(rows) == 1 + len(result.class_names)
    loaded = load_results(tmp_path / "out/results.json")
    assert [result.metrics for result in loaded] == [pytest.approx(r.metrics, nan_ok=True) for r in results]
    assert not list((tmp_path / "out").rglob("partial-*"))


def test_batch_size_and_workers_do_not_matter(run_cfg, toy_model):
    model = toy_model()
    expected = evaluate(run_cfg(), model)[0]
    for batch_size, workers in ((3, 0), (7, 2)):
        cfg = run_cfg("TEST.BATCH_SIZE", batch_size, "DATALOADER.NUM_WORKERS", workers)
        result = evaluate(cfg, model)[0]
        assert result.metrics == pytest.approx(expected.metrics, nan_ok=True, abs=0.05)  # ties at pixels
        assert (result.class_pixels, result.pictures) == (expected.class_pixels, 7)


def test_images_are_counted_while_the_network_works_and_its_share_is_logged(run_cfg, toy_model, monkeypatch, caplog):
    model, seen, counted = toy_model(), [], threading.Event()
    update = ConfusionMatrix.update

    def note(*arguments):
        counted.set()
        update(*arguments)

    def wait(*_):
        seen.append(None)
        assert len(seen) < 2 or counted.wait(10), "the first image's counting must not wait for the second"

    monkeypatch.setattr(ConfusionMatrix, "update", note)
    model.encoder.register_forward_pre_hook(wait)
    with caplog.at_level("INFO"):
        evaluate(run_cfg(), model)
    assert re.search(r"the network took \d+% of \d+\.\d s", caplog.text)


def count_seen(model, seen, stop_at=None):
    """Note every image that goes through the network; raise at one of them, as a kill would."""

    def note(module, inputs):
        seen.extend(range(len(inputs[0])))
        if stop_at is not None and len(seen) > stop_at:
            raise KeyboardInterrupt

    return model.encoder.register_forward_pre_hook(note)


@pytest.mark.parametrize("boundary", [False, True])
def test_interrupted_evaluation_goes_on_without_redoing_images(
    run_cfg, toy_model, benchmarks, tmp_path, caplog, boundary
):
    options = ("DATASETS.TEST", benchmarks, "TEST.PROGRESS_PERIOD", 2, "TEST.BOUNDARY_IOU", boundary)
    options += ("TEST.SAVE", ["png", "rle"])
    model = toy_model()
    expected = evaluate(run_cfg(*options, "OUTPUT_DIR", str(tmp_path / "straight")), model)
    cfg, seen = run_cfg(*options), []
    hook = count_seen(model, seen, stop_at=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, model)
    hook.remove()
    seen.clear()
    hook = count_seen(model, seen)
    results = evaluate(cfg, model)
    assert len(seen) == 13 - 4  # four of the thirteen images were written down
    for result, one in zip(results, expected, strict=True):
        assert result.metrics == pytest.approx(one.metrics, nan_ok=True)
    for name in benchmarks:
        folders = [tmp_path / kind / "inference" / name for kind in ("out", "straight")]
        assert len({(folder / "sem_seg_predictions.json").read_text() for folder in folders}) == 1
    seen.clear()
    evaluate(cfg, model)
    assert len(seen) == 13, "a finished evaluation must not be taken for an interrupted one"
    hook.remove()


def test_partial_evaluation_of_other_weights_or_settings_is_not_used(run_cfg, toy_model):
    model, seen = toy_model(), []
    hook = count_seen(model, seen, stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run_cfg("TEST.PROGRESS_PERIOD", 1), model)
    hook.remove()
    hook = count_seen(model, seen)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    seen.clear()
    evaluate(run_cfg("TEST.PROGRESS_PERIOD", 1), model)
    assert len(seen) == 7
    hook.remove()


@pytest.mark.parametrize("kind", [0, 1])
def test_partial_evaluation_of_a_image_or_label_since_replaced_is_not_used(run_cfg, toy_model, kind):
    model, seen = toy_model(), []
    cfg = run_cfg("TEST.PROGRESS_PERIOD", 1)
    hook = count_seen(model, seen, stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg, model)
    hook.remove()
    replaced = Path(SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0])).paths(0)[kind])
    content, times = replaced.read_bytes(), replaced.stat()
    time.sleep(0.02)
    replaced.unlink()
    replaced.write_bytes(content)  # its size and its time of writing are as before
    os.utime(replaced, ns=(times.st_atime_ns, times.st_mtime_ns))
    seen.clear()
    hook = count_seen(model, seen)
    evaluate(cfg, model)
    assert len(seen) == 7
    hook.remove()


def test_partial_counts_of_several_processes_are_merged_once(tmp_path):
    from err_seg.evaluation import ConfusionMatrix

    def counts_of(images):
        counts = ConfusionMatrix(3, 255)
        for image in images:
            counts.update(torch.full((1, 4), image % 3), torch.zeros(1, 4, dtype=torch.int64))
        return counts

    for rank, images in enumerate(([0, 2, 4], [1, 3])):
        progress = EvaluationProgress(tmp_path, "same")
        progress.rank = rank
        with progress.counting() as counted:
            counted |= {image: ImageRecord(image + 1, [[image % 3, image, 7, 9]]) for image in images}
        progress.save(counts_of(images))
    foreign = EvaluationProgress(tmp_path, "other")
    foreign.rank = 2
    with foreign.counting() as counted:
        counted[5] = ImageRecord(1, [])
    foreign.save(counts_of([5]))
    (tmp_path / "partial-3.json").write_text("{")
    kept_aside = (tmp_path / "partial-1.json").read_text()
    for _ in range(2):
        progress, counts = EvaluationProgress(tmp_path, "same"), counts_of([])
        progress.restore(counts)
        assert progress.done == {0, 1, 2, 3, 4}
        assert progress.mean_kept(torch.device("cpu")) == 3
        pixels = progress.image_counts(6, 3)
        assert pixels[4].tolist() == [[0, 4, 0], [0, 7, 0], [0, 9, 0]]
        assert not pixels[5].any()
        assert torch.equal(counts.matrix, counts_of([0, 1, 2, 3, 4]).matrix)
        assert [file.name for file in tmp_path.iterdir()] == ["partial-0.json"]
        # killed after the merge was written, before the merged file was removed
        (tmp_path / "partial-1.json").write_text(kept_aside)


def test_prediction_files_hold_what_was_counted(run_cfg, toy_model, benchmarks, tmp_path):
    cfg = run_cfg("DATASETS.TEST", ["background_val"], "TEST.SAVE", ["png", "rle", "overlay"])
    (result,) = evaluate(cfg, toy_model())
    folder = tmp_path / "out/inference/background_val"
    pairs = SegmentationPairs(get_dataset("background_val"))
    right = total = 0
    segments = load_rle_json(folder / "sem_seg_predictions.json")
    for index, name in enumerate(pairs.names):
        predicted, label = load_label_png(folder / "labels" / f"{name}.png"), pairs.load_label(index)
        assert predicted.shape == label.shape
        right += (predicted == label).sum()
        total += (label != 255).sum()
        own = [s for s in segments if s["file_name"] == pairs.paths(index)[0]]
        assert {s["category_id"]: s["area"] for s in own} == dict(
            zip(*(values.tolist() for values in np.unique(predicted, return_counts=True)), strict=True)
        )
        assert read_image(folder / "overlays" / f"{name}.png").shape[1] >= label.shape[1]
    assert result.metrics["pACC"] == pytest.approx(100 * right / total)
    assert not (folder / "segments").exists()


def test_views_change_scale_and_mirror(toy_cfg):
    assert evaluation_views(toy_cfg()) == [View(64, False)]
    cfg = toy_cfg("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [0.5, 1, 1.4, 1.5], "TEST.AUG.FLIP", False)
    assert evaluation_views(cfg) == [View(64, False), View(32, False), View(96, False)]
    # with SSR by 4 the grid's side, a sixteenth, must be a multiple of 4
    cfg = toy_cfg("TEST.AUG.ENABLED", True, "INPUT.SIZE", 128, "MODEL.ESCF.SSR_RATIO", 4, "TEST.AUG.SCALES", [1, 1.4])
    assert evaluation_views(cfg) == [View(128, False), View(128, True), View(192, False), View(192, True)]


def test_views_keep_the_classes_of_the_first_and_average_their_probabilities(toy_model, monkeypatch):
    model = toy_model().eval()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, 50, 70), generator=generator, dtype=torch.uint8) for _ in range(2)]
    sizes, seen = [(50, 70)] * 2, []
    with torch.no_grad():
        text = model.embed_vocabulary(VOCABULARY)
        plain = segment_views(model, images, text, 3, VOCABULARY, sizes, [View(64, False)])
        model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        segment, outputs = model.head.segment, []

        def note(features, text, kept):
            outputs.append((kept, segment(features, text, kept)))
            return outputs[-1][1]

        monkeypatch.setattr(model.head, "segment", note)
        views = [View(64, False), View(64, True), View(96, False)]
        results = segment_views(model, images, text, 3, VOCABULARY, sizes, views)
    assert [tuple(pixels.shape[-2:]) for pixels in seen] == [(64, 64), (64, 64), (96, 96)]
    assert torch.equal(seen[1], seen[0].flip(-1))
    assert all(torch.equal(kept, outputs[0][0]) for kept, _ in outputs)
    first, mirrored, larger = (logits.sigmoid() for _, logits in outputs)
    maps = [first, mirrored.flip(-1), larger]
    maps = [torch.nn.functional.interpolate(m, size=(24, 24), mode="bilinear") for m in maps]
    for index, (result, alone) in enumerate(zip(results, plain, strict=True)):
        assert torch.equal(result.kept, alone.kept)
        torch.testing.assert_close(result.probabilities, sum(m[index] for m in maps) / 3)
    assert alone.probabilities.shape == (3, 16, 16)


def test_views_reach_the_figures(run_cfg, toy_model):
    model, seen = toy_model(), []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[-1]))
    (result,) = evaluate(run_cfg("TEST.AUG.ENABLED", True, "TEST.AUG.SCALES", [1.0, 1.5]), model)
    assert seen[:4] == [64, 64, 96, 96]
    assert {"size": 96, "mirrored": True} in result.settings["views"]
    assert result.metrics["pACC"] != evaluate(run_cfg(), model)[0].metrics["pACC"]


def test_benchmark_named_twice_is_refused(run_cfg, toy_model):
    with pytest.raises(ConfigError, match=r"DATASETS\.TEST names toy_val more than once"):
        evaluate(run_cfg("DATASETS.TEST", ["toy_val", "toy_val"]), toy_model())


@pytest.mark.parametrize("scales", [[0.5], [1, -1], ["a", 1]])
def test_scales_are_checked(toy_cfg, scales):
    with pytest.raises(ConfigError, match=r"TEST\.AUG\.SCALES"):
        toy_cfg("TEST.AUG.SCALES", scales)


def test_a_minimum_score_keeps_fewer_classes_and_says_how_many(run_cfg, toy_model):
    (fixed,) = evaluate(run_cfg("MODEL.CRM.NUM_KEPT", 4), toy_model("MODEL.CRM.NUM_KEPT", 4))
    assert fixed.mean_kept == 4
    options = ("MODEL.CRM.NUM_KEPT", 4, "MODEL.CRM.MIN_SCORE", 0.3)
    results = [
        evaluate(run_cfg(*options, "TEST.BATCH_SIZE", batch, "OUTPUT_DIR", run_cfg().OUTPUT_DIR + str(batch)), model)[0]
        for batch, model in ((1, toy_model(*options)), (3, toy_model(*options)))
    ]
    assert 1 <= results[0].mean_kept < 4
    assert results[0].mean_kept == results[1].mean_kept
    assert results[0].metrics == pytest.approx(results[1].metrics, nan_ok=True)
