"""Data sets whose entries map label values or leave classes out, with detectron2."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.config import ConfigError
from err_seg.data import DatasetError, get_dataset
from err_seg.evaluation.results import load_results
from tests.helpers.toy import VOCABULARY
from tests.helpers.training import assert_same_weights, declaration, lines
from tests.helpers.training import run as plain_train

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from detectron2.modeling import build_model

from err_seg.d2 import ERRSegEvaluator, ERRSegMapper, Trainer, to_detectron2
from err_seg.data import CATALOG

LEFT_OUT = {"left_out": ["sky", "dog"], "left_out_as": "background"}


@pytest.fixture
def shifted(toy_world, tmp_path):
    """Toy images whose label files hold 0 for unlabelled and 1 to T for the classes."""
    folder = tmp_path / "d2_shifted"
    shutil.copytree(Path(toy_world[1]["image_dir"]).parent, folder)
    for file in (folder / "labels").iterdir():
        label = np.array(Image.open(file))
        Image.fromarray(np.where(label == 255, 0, label + 1).astype(np.uint8)).save(file)
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data), dict(CATALOG._specs)
    yield {**declaration(tmp_path, "d2_shifted"), "reduce_zero_label": True}
    for catalog, entries in zip((DatasetCatalog.data, MetadataCatalog.data, CATALOG._specs), before, strict=True):
        catalog.clear()
        catalog.update(entries)


@pytest.fixture
def cfg_of(run_cfg):
    """Return a function from an entry to a configuration that trains and evaluates on it."""
    return lambda entry, *more: run_cfg(
        *("DATASETS.CUSTOM", [entry], "DATASETS.TRAIN", [entry["name"]], "DATASETS.TEST", [entry["name"]]),
        *("DATASETS.VAL", [entry["name"]], "SOLVER.MAX_ITER", 2, *more),
    )


def test_labels_are_mapped_in_training_and_evaluation(shifted, toy_world, cfg_of, toy_data):
    as_they_are, mapped = (to_detectron2(cfg_of(entry)) for entry in (toy_world[1], shifted))
    batches = [next(iter(Trainer.build_train_loader(cfg))) for cfg in (as_they_are, mapped)]
    for first, second in zip(*batches, strict=True):
        assert torch.equal(first["sem_seg"], second["sem_seg"])
    images = []
    for cfg in (as_they_are, mapped):
        torch.manual_seed(0)
        record = next(r for r in DatasetCatalog.get(cfg.DATASETS.TRAIN[0]) if r["file_name"].endswith("p1.png"))
        images.append(ERRSegMapper(cfg, True)(record)["sem_seg"])
    assert torch.equal(*images)
    model = build_model(as_they_are)
    found = [
        inference_on_dataset(model, Trainer.build_test_loader(cfg, name), ERRSegEvaluator(name, distributed=False))
        for cfg, name in ((as_they_are, "toy_val"), (mapped, "d2_shifted"))
    ]
    assert found[0]["sem_seg"] == pytest.approx(found[1]["sem_seg"], nan_ok=True, rel=0, abs=0)


@pytest.mark.parametrize("keys", [{}, {"reduce_zero_label": False, **LEFT_OUT}], ids=["mapped", "left out"])
def test_detectron2s_own_mapper_and_evaluator_are_refused(shifted, cfg_of, keys):
    cfg = to_detectron2(cfg_of({**shifted, **keys}))
    model = build_model(cfg).train()
    refusal = r"'d2_shifted'.*detectron2's own mapper and evaluator.*use ERRSegMapper and ERRSegEvaluator"
    (record, *_) = DatasetCatalog.get("d2_shifted")
    assert record.keys() == {"file_name", "label_file_name", "dataset_name"}
    mapped = DatasetMapper(cfg, is_train=True)(record)
    with pytest.raises(DatasetError, match=refusal):
        model([mapped])
    with pytest.raises(DatasetError, match=refusal):
        SemSegEvaluator("d2_shifted", distributed=False)
    with pytest.raises(KeyError, match="annotations"):
        record["annotations"]


@pytest.mark.parametrize("apart", [False, True])
def test_training_without_some_classes_is_as_in_the_plain_engine(shifted, cfg_of, tmp_path, apart):
    entry = {**shifted, **LEFT_OUT}
    options = ("MODEL.LOSS.IGNORED_ARE_NEGATIVES", not apart, "TEST.EVAL_PERIOD", 2, "VIS_PERIOD", 2)
    cfg = cfg_of(entry, *options, "OUTPUT_DIR", str(tmp_path / "detectron2"))
    trainer = Trainer(cfg)
    assert trainer.meta_arch.train_dataset.vocabulary == tuple(x for x in VOCABULARY if x not in LEFT_OUT["left_out"])
    assert trainer.meta_arch.test_dataset == get_dataset("d2_shifted")
    trainer.train()
    plain_train(cfg_of(entry, *options, "OUTPUT_DIR", str(tmp_path / "plain")))
    found = [lines(tmp_path / engine) for engine in ("detectron2", "plain")]
    losses = [[line["total_loss"] for line in of_engine if "total_loss" in line] for of_engine in found]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    files = [tmp_path / engine / "model_final.safetensors" for engine in ("detectron2", "plain")]
    assert_same_weights(*files, rtol=1e-5, atol=1e-7)
    (result,) = load_results(next((tmp_path / "detectron2").rglob("results.json")))
    assert {"mIoU-seen", "mIoU-unseen", "hIoU"} <= result.metrics.keys()


def test_ignored_classes_that_would_be_negatives_are_refused(shifted, cfg_of):
    cfg = cfg_of({**shifted, "left_out": ["sky"]})
    with pytest.raises(ConfigError, match="IGNORED_ARE_NEGATIVES is True"):
        Trainer(cfg)
    with pytest.raises(ConfigError, match="IGNORED_ARE_NEGATIVES is True"):
        ERRSegMapper(to_detectron2(cfg), True)
    build_model(to_detectron2(cfg))  # evaluation needs no such thing
