"""Ground truth that is plausible and holds next to nothing: said before any work, and refused where it is useless."""

import logging

import numpy as np
import pytest
from PIL import Image

import err_seg
from err_seg.commands import train as train_command
from err_seg.data import DatasetError, SegmentationPairs, register, spec_from_dict
from err_seg.data import ground_truth as module
from err_seg.data.ground_truth import check_ground_truth
from err_seg.engine import evaluate, train
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import declaration, write_images


@pytest.fixture
def data(tmp_path):
    """Return a function that writes a data set of label maps with some values, one map each, and declares it."""

    def write(*maps, name="own", vocabulary=("background", "thing"), **more):
        write_images(tmp_path, name, len(maps), 1)
        for index, values in enumerate(maps):
            file = tmp_path / name / f"labels/p{index}.png"
            with Image.open(file) as image:
                label = np.resize(np.array(values, dtype=np.uint8), image.size[::-1])
            Image.fromarray(label).save(file)
        return register(spec_from_dict(declaration(tmp_path, name, vocabulary, **more)))

    return write


def test_masks_of_0_and_255_are_refused_by_training_and_told_by_evaluation(data, run_cfg, caplog, tmp_path):
    """They trained, and gave 48.9 mIoU, which was of one class."""
    data((0, 255), (0,), (255, 255, 0))
    cfg = run_cfg("DATASETS.TRAIN", ["own"], "DATASETS.TEST", ["own"])
    model = err_seg.build_model(cfg)
    words = "data set 'own': 3 of 3 label maps hold no class but 'background'; nothing can be learnt"
    with pytest.raises(DatasetError, match=words) as refused:
        train(cfg, model)
    assert "Store masks of two classes as 0 and 1, not 0 and 255" in str(refused.value)
    assert not (tmp_path / "out/metrics.json").exists()
    evaluate(cfg, model.eval())
    (told,) = {record.getMessage() for record in caplog.records if "own" in record.getMessage()}
    assert told == "data set 'own': 3 of 3 label maps hold no class but 'background'"


def test_nothing_but_ignored_pixels_is_refused(data, run_cfg, tmp_path, capsys):
    """Both used to end with status 0, and metrics that are no numbers."""
    data((255,), (255,))
    cfg = run_cfg("DATASETS.TRAIN", ["own"], "DATASETS.TEST", ["toy_val"])
    model = err_seg.build_model(cfg)
    with pytest.raises(DatasetError, match="2 of 2 label maps hold nothing but ignored pixels; nothing can be lea"):
        train(cfg, model)
    cfg = run_cfg("DATASETS.TEST", ["own"])
    with pytest.raises(DatasetError, match="nothing but ignored pixels; nothing can be measured"):
        evaluate(cfg, model.eval())
    file = tmp_path / "run.yaml"
    cfg.DATASETS.CUSTOM = [*cfg.DATASETS.CUSTOM, declaration(tmp_path, "own", ("background", "thing"))]
    file.write_text(cfg.dump())
    assert train_command.main(["--config-file", str(file), "--engine", "plain"]) == 1, "before the training"
    assert "nothing can be measured" in capsys.readouterr().err
    assert not (tmp_path / "out/metrics.json").exists()


def test_one_class_alone_can_be_learnt_where_it_is_the_only_one(data, caplog):
    check_ground_truth(SegmentationPairs(data((0, 255), vocabulary=("road",))), trains=True)
    assert not caplog.records


@pytest.mark.parametrize("trains", [True, False])
def test_a_few_label_maps_are_read_and_more_only_before_an_error(data, monkeypatch, caplog, trains):
    monkeypatch.setattr(module, "SAMPLE", 3)
    pairs, seen = SegmentationPairs(data(*[(255,)] * 8, (0,), (1,), vocabulary=VOCABULARY)), []
    monkeypatch.setattr(
        pairs, "load_label", lambda index: seen.append(index) or SegmentationPairs.load_label(pairs, index)
    )
    with caplog.at_level(logging.INFO):
        check_ground_truth(pairs, trains=trains)
    assert seen == ([0, 4, 9, 1, 2, 3, 5, 6, 7, 8] if trains else [0, 4, 9])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        "10 of 10 label maps hold no pixel of 5 of 7 classes, such as sky, tree, dog, sofa, couch, traffic light"
        if trains
        else "3 of 10 label maps hold no class but 'grass'"
    )


def test_damaged_label_maps_do_not_count(data, tmp_path, caplog):
    spec = data((0, 1), (255,))
    (tmp_path / "own/labels/p0.png").write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="1 of 2 label maps hold nothing"):
        check_ground_truth(SegmentationPairs(spec))
    (tmp_path / "own/labels/p1.png").write_bytes(b"damaged")
    check_ground_truth(SegmentationPairs(spec))


def test_what_is_missing_in_a_sample_of_sound_label_maps_is_no_warning(data, monkeypatch, caplog):
    monkeypatch.setattr(module, "SAMPLE", 2)
    pairs = SegmentationPairs(data(*[(0, 1, 2)] * 4, vocabulary=VOCABULARY))
    with caplog.at_level(logging.INFO):
        check_ground_truth(pairs, trains=True)
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage().endswith(
        "2 of 4 label maps hold no pixel of 4 of 7 classes, such as tree, dog, sofa, couch, traffic light"
    )
