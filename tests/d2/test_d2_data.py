"""Catalogs, mapper and evaluators of detectron2 on our data sets."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import err_seg
from err_seg.data import DatasetError, SegmentationPairs, TrainingDataset, dataset_names, get_dataset, spec_from_dict
from err_seg.engine import evaluate
from err_seg.engine.run_setup import training_transform
from err_seg.evaluation.metrics import IMAGE_METRICS
from err_seg.evaluation.results import load_results
from err_seg.visualization.colors import class_colors
from tests.helpers.toy import VOCABULARY, liven
from tests.helpers.training import declaration

pytest.importorskip("err_seg.d2", exc_type=ImportError)  # the reason names what is lacking
pytestmark = pytest.mark.d2

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from detectron2.modeling import build_model

from err_seg.d2 import ERRSegEvaluator, ERRSegMapper, Trainer, register_datasets, to_detectron2
from err_seg.models.checkpoint import load_weights


@pytest.fixture
def catalogs():
    """Leave detectron2's catalogs as they were."""
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    for catalog, entries in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalog.data.clear()
        catalog.data.update(entries)


def test_all_names_are_in_both_catalogs(catalogs):
    assert "ade20k_sem_seg_val" in DatasetCatalog.list()  # detectron2's own
    for name in dataset_names():
        spec = get_dataset(name)
        for alias in (name, *spec.aliases):
            metadata = MetadataCatalog.get(alias)
            assert alias in DatasetCatalog.list()
            assert metadata.stuff_classes == list(spec.evaluated_classes)
            assert metadata.stuff_colors == class_colors(spec.evaluated_classes).tolist()
            assert (metadata.ignore_label, metadata.evaluator_type) == (spec.ignore_label, "sem_seg")
    with pytest.raises(DatasetError, match=r"datasets/prepare\.py"):
        DatasetCatalog.get("ade20k_150_test_sem_seg")
    size = len(DatasetCatalog)
    register_datasets()
    assert len(DatasetCatalog) == size


def test_data_sets_of_your_own_and_another_root(catalogs, toy_world, tmp_path):
    entry = {**toy_world[1], "name": "d2_toy", "aliases": ("d2_toy_alias",)}
    entry.update(image_dir="toy_val/images", label_dir="toy_val/labels")
    root = toy_world[1]["image_dir"].removesuffix("/toy_val/images")
    register_datasets("", [entry])
    with pytest.raises(DatasetError):
        DatasetCatalog.get("d2_toy")
    register_datasets(root, [entry])
    records = DatasetCatalog.get("d2_toy_alias")
    assert len(records) == 7
    assert MetadataCatalog.get("d2_toy").image_root == f"{root}/toy_val/images"
    assert records[0]["sem_seg_file_name"] == f"{root}/toy_val/labels/p0.png"


def test_names_of_others_stay_theirs(catalogs):
    DatasetCatalog.remove("context_59_test_sem_seg")
    MetadataCatalog.remove("context_59_test_sem_seg")
    DatasetCatalog.register("context_59_test_sem_seg", lambda: ["theirs"])
    register_datasets("elsewhere")
    assert DatasetCatalog.get("context_59_test_sem_seg") == ["theirs"]
    assert MetadataCatalog.get("context_59_test_sem_seg").get("stuff_classes") is None


def test_mapper_gives_the_plain_engines_images(catalogs, run_cfg, toy_data):
    cfg = run_cfg("INPUT.CROP_SIZE", 64)
    translated = to_detectron2(cfg)
    pairs = SegmentationPairs(get_dataset("toy_train"))
    plain = TrainingDataset(pairs, training_transform(cfg, 255), cfg.SEED)
    batches = iter(Trainer.build_train_loader(translated, start=8))
    expected = err_seg.data.training_loader(pairs, plain.transform, 4, cfg.SEED, 0, start=8)
    for batch in itertools.islice(expected, 4):
        found = next(batches)
        assert [x["file_name"] for x in found] == batch.paths
        assert torch.equal(torch.stack([x["image"] for x in found]), batch.images)
        assert torch.equal(torch.stack([x["sem_seg"] for x in found]), batch.labels)
    record = DatasetCatalog.get("toy_train")[0]
    torch.manual_seed(0)
    first, second = (ERRSegMapper(translated, True)(record)["image"] for _ in range(2))  # without a seed of its own
    assert not torch.equal(first, second)
    assert record.keys() == {"file_name", "sem_seg_file_name", "dataset_name"}


def test_sixteen_bit_labels_stay_so(catalogs, run_cfg, tmp_path):
    names = [f"class {index}" for index in range(300)]
    for folder in ("images", "labels"):
        (tmp_path / "deep" / folder).mkdir(parents=True)
    labels = np.full((40, 40), 299, np.uint16)
    labels[0, :2] = 65535, 256
    Image.fromarray(labels).save(tmp_path / "deep/labels/a.tif")
    Image.new("RGB", (40, 40)).save(tmp_path / "deep/images/a.png")
    entry = declaration(tmp_path, "deep", names, label_ext=".tif", ignore_label=65535)
    cfg = to_detectron2(run_cfg("DATASETS.CUSTOM", [entry], "DATASETS.TRAIN", ["deep"], "INPUT.FLIP_PROB", 0.0))
    found = next(iter(Trainer.build_train_loader(cfg)))[0]["sem_seg"]
    assert set(found.unique().tolist()) <= {256, 299, 65535}
    assert (found == 299).any()


def evaluated(cfg):
    """Build a livened model and its plain twin."""
    plain = err_seg.build_model(cfg)
    liven(plain)
    translated = to_detectron2(cfg)
    model = build_model(translated)
    load_weights(model.network, plain.state_dict())
    return plain, model, translated


@pytest.mark.parametrize("variant", ["standard", "background"])
def test_detectron2s_evaluator_gives_the_figures_of_ours(catalogs, run_cfg, toy_world, tmp_path, variant):
    more = {"variant": "background", "num_foreground": 4} if variant == "background" else {}
    entry = {**toy_world[1], "name": f"toy_{variant}", "aliases": ("toy_alias",), **more}
    if more:  # labels of that variant end with "background"
        entry["label_dir"] = str(tmp_path / "labels")
        folder = tmp_path / "labels"
        folder.mkdir()
        for file in sorted(Path(toy_world[1]["label_dir"]).glob("*.png")):
            label = np.asarray(Image.open(file))
            Image.fromarray(np.where((label > 4) & (label != 255), 4, label).astype(np.uint8)).save(folder / file.name)
    cfg = run_cfg("DATASETS.CUSTOM", [entry], "DATASETS.TEST", [entry["name"]])
    plain, model, translated = evaluated(cfg)
    expected = evaluate(cfg, plain)[0].metrics
    assert 0 < expected["mIoU"] < 100
    loader = Trainer.build_test_loader(translated, entry["name"])
    theirs = inference_on_dataset(model, loader, SemSegEvaluator(entry["name"], distributed=False))["sem_seg"]
    assert {key for key in expected if "-v0.6" not in key and key not in IMAGE_METRICS} <= theirs.keys()
    for key in expected.keys() & theirs.keys():
        assert theirs[key] == expected[key] or (np.isnan(theirs[key]) and np.isnan(expected[key])), key
    own = ERRSegEvaluator("toy_alias", output_dir=tmp_path / "own")
    found = inference_on_dataset(model, loader, own)["sem_seg"]
    assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert load_results(tmp_path / "own/results.json")[0].metrics["mIoU-v0.6"] == expected["mIoU-v0.6"]
    for file in ("results.csv", f"inference/{entry['name']}/classes.csv"):
        assert (tmp_path / "own" / file).read_text() == (tmp_path / "out" / file).read_text()


def test_trainers_test_writes_all_benchmarks_together(catalogs, run_cfg, tmp_path):
    cfg = run_cfg("DATASETS.TEST", ["toy_val", "toy_train"])
    plain, model, translated = evaluated(cfg)
    expected = evaluate(cfg, plain)
    files = ("results.json", "results.csv", "inference/toy_train/classes.csv")
    texts = [(tmp_path / "out" / file).read_text() for file in files]
    figures = Trainer.test(translated, model)
    assert list(figures) == ["toy_val", "toy_train"]
    assert figures["toy_train"]["sem_seg"]["mIoU"] == expected[1].metrics["mIoU"]
    assert [(tmp_path / "out" / file).read_text() for file in files] == texts


def test_evaluator_of_nothing_says_so():
    with pytest.raises(DatasetError, match="unknown data set"):
        ERRSegEvaluator("no_such_data_set")


def test_interrupted_evaluation_leaves_no_results(catalogs, run_cfg, tmp_path, monkeypatch):
    cfg = to_detectron2(run_cfg("DATASETS.TEST", ["toy_val", "toy_train"]))
    model, evaluate_one = build_model(cfg), ERRSegEvaluator.evaluate

    def interrupted(evaluator):
        if evaluator.spec.name == "toy_train":
            raise KeyboardInterrupt
        return evaluate_one(evaluator)

    with monkeypatch.context() as patch:
        patch.setattr(ERRSegEvaluator, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Trainer.test(cfg, model)
    assert not (tmp_path / "out/results.json").exists()
    Trainer.test(cfg, model)
    assert [result.benchmark for result in load_results(tmp_path / "out/results.json")] == ["toy_val", "toy_train"]


def test_one_evaluator_and_the_registered_root(catalogs, run_cfg, toy_world, tmp_path):
    entry = {**toy_world[1], "name": "d2_toy", "image_dir": "toy_val/images", "label_dir": "toy_val/labels"}
    root = toy_world[1]["image_dir"].removesuffix("/toy_val/images")
    own = ("DATASETS.CUSTOM", [entry], "DATASETS.ROOT", root, "DATASETS.TEST", ["d2_toy"])
    cfg = to_detectron2(run_cfg("DATASETS.TRAIN", ["d2_toy"], *own))
    model = build_model(cfg)
    evaluator = ERRSegEvaluator("d2_toy")
    figures = Trainer.test(cfg, model, evaluator)
    assert figures["sem_seg"]["mIoU"] == evaluator.result.metrics["mIoU"]
    assert load_results(tmp_path / "out/results.json")[0].pictures == 7


@pytest.fixture
def users_own(catalogs, toy_world):
    """Register a data set with detectron2 alone, as its users do."""
    pairs = SegmentationPairs(spec_from_dict(toy_world[1]))
    records = [dict(zip(("file_name", "sem_seg_file_name"), pairs.paths(i), strict=True)) for i in range(len(pairs))]
    DatasetCatalog.register("users_own", lambda: records)
    MetadataCatalog.get("users_own").set(stuff_classes=list(VOCABULARY), ignore_label=255)
    return "users_own"


def test_data_sets_that_users_registered_with_detectron2(users_own, run_cfg, tmp_path):
    cfg = run_cfg("DATASETS.TEST", ["toy_val"], "DATASETS.TRAIN", ["toy_val"], "SOLVER.MAX_ITER", 2)
    found = {}
    for name in ("toy_val", users_own):
        translated = to_detectron2(cfg)
        translated.DATASETS.TRAIN, translated.DATASETS.TEST = (name,), (name,)
        translated.OUTPUT_DIR = str(tmp_path / name)
        translated.TEST.SAVE = ["png"]
        trainer = Trainer(translated)
        trainer.train()
        found[name] = Trainer.test(translated, trainer.model)["sem_seg"]
        assert (tmp_path / name / "inference" / name / "labels/p0.png").is_file()
    assert found[users_own] == pytest.approx(found["toy_val"], nan_ok=True)
    MetadataCatalog.get("users_own").stuff_classes.clear()
    with pytest.raises(DatasetError, match="stuff_classes"):
        ERRSegEvaluator(users_own)


@pytest.mark.parametrize("order", [1, -1])
def test_a_part_of_users_own_records_follows_their_names_not_their_order(users_own, run_cfg, tmp_path, order):
    records = DatasetCatalog.get(users_own)[::order]
    DatasetCatalog.remove(users_own)
    DatasetCatalog.register(users_own, lambda: records)
    cfg = to_detectron2(run_cfg("TEST.NUM_IMAGES", 3, "TEST.SAVE", ["png"], "DATASETS.TEST", []))
    cfg.DATASETS.TEST = (users_own,)
    Trainer.test(cfg, build_model(cfg))
    labels = tmp_path / "out/inference" / users_own / "labels"
    assert sorted(file.stem for file in labels.iterdir()) == ["p0", "p2", "p4"]
    (result,) = load_results(tmp_path / "out/results.json")
    assert (result.pictures, result.settings["num_images"]) == (3, 3)


def test_a_part_with_an_evaluator_of_detectron2(catalogs, run_cfg, toy_data):
    """It counts what the loader reads, and the loader reads the part."""
    cfg = run_cfg("TEST.NUM_IMAGES", 2)
    plain, model, translated = evaluated(cfg)
    expected = evaluate(cfg, plain)[0].metrics
    loader = Trainer.build_test_loader(translated, "toy_val")
    found = inference_on_dataset(model, loader, SemSegEvaluator("toy_val", distributed=False))["sem_seg"]
    assert found["pACC"] == expected["pACC"]
    assert len(list(loader)) == 2


def test_detectron2s_own_trainer_and_mapper(users_own, run_cfg, tmp_path):
    cfg = to_detectron2(run_cfg("DATASETS.TEST", [], "SOLVER.MAX_ITER", 2))
    cfg.DATASETS.TRAIN = (users_own,)
    (tmp_path / "out").mkdir()
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    assert trainer.iter == 2
    assert (tmp_path / "out/model_final.pth").is_file()
    assert (cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.SIZE) == (True, [32, 32])


def test_confidence_needs_results_and_not_only_probabilities(toy_data):
    """Those of other models hold no scores that could be trusted."""
    evaluator = ERRSegEvaluator("toy_val", confidence=True)
    given = {"file_name": SegmentationPairs(get_dataset("toy_val")).paths(0)[0]}
    with pytest.raises(ValueError, match=r'TEST\.CALIBRATION needs outputs with "segmentation"'):
        evaluator.process([given], [{"sem_seg": torch.rand(len(VOCABULARY), 4, 4)}])
