"""MESS, of whose package a small one plays the part where it is not installed."""

import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from err_seg.config import get_cfg
from err_seg.data import (
    DatasetError,
    SegmentationPairs,
    dataset_names,
    get_dataset,
    register,
    spec_from_dict,
    unregister,
)
from err_seg.data.mess import DOMAINS, mess_means
from err_seg.evaluation.results import BenchmarkResult, summary_table
from tests.helpers.toy import REPOSITORY

NAMES = [name for data_sets in DOMAINS.values() for name in data_sets]


@pytest.fixture
def package(monkeypatch):
    """A package of MESS's name that has registered two data sets under the folder "data"."""
    facts = {
        "dark_zurich_sem_seg_val": ("data/Dark/rgb", "data/Dark/gt", ["unlabeled", "road"]),
        "deepcrack_sem_seg_test": ("data/Crack/images", "data/Crack/labels", ["concrete or asphalt", "crack"]),
    }
    metadata = {
        name: SimpleNamespace(image_root=images, sem_seg_root=labels, stuff_classes=names, ignore_label=255)
        for name, (images, labels, names) in facts.items()
    }
    register = ModuleType("mess.datasets.register_bdd100k")
    register.MetadataCatalog, register._root = metadata, "data"
    for module in (ModuleType("mess"), ModuleType("mess.datasets"), register):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def test_twenty_two_data_sets_of_five_domains():
    titles = [title for data_sets in DOMAINS.values() for title in dict.fromkeys(data_sets.values())]
    assert (len(DOMAINS), len(titles), len(set(titles)), len(NAMES)) == (5, 22, 22, 25)
    assert get_cfg(str(REPOSITORY / "configs/mess.yaml")).DATASETS.TEST == NAMES


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("name", "image", "label"),
    [
        ("dark_zurich_sem_seg_val", "Dark/rgb/1_rgb_anon.png", "Dark/gt/1_gt_labelIds.png"),
        ("deepcrack_sem_seg_test", "Crack/images/1.jpg", "Crack/labels/1.png"),
    ],
)
def test_a_data_set_is_read_as_the_package_prepares_it(tmp_path, name, image, label):
    for file, shape in ((image, (4, 6, 3)), (label, (4, 6))):
        (tmp_path / file).parent.mkdir(parents=True)
        Image.fromarray(np.ones(shape, np.uint8)).save(tmp_path / file)
    spec = get_dataset(name)
    (pair,) = SegmentationPairs(spec, tmp_path)
    assert (pair.label == 1).all()
    assert pair.image_path == str(tmp_path / image)
    assert spec.vocabulary[0] in ("unlabeled", "concrete or asphalt")


def test_without_the_package_its_data_sets_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mess", None)
    with pytest.raises(DatasetError, match=r"'uavid_sem_seg_val' is of MESS.*pip install 'err_seg\[mess\]'"):
        get_dataset("uavid_sem_seg_val")
    assert set(NAMES).isdisjoint(dataset_names())


def test_without_the_package_its_names_are_free(monkeypatch):
    monkeypatch.setitem(sys.modules, "mess", None)
    entry = {"name": "uavid_sem_seg_val", "image_dir": "a", "label_dir": "b", "vocabulary": ["road", "tree"]}
    own = register(spec_from_dict(entry))
    assert get_dataset("uavid_sem_seg_val") is own
    unregister("uavid_sem_seg_val")


def test_means_by_domain_count_the_four_parts_of_paxray_once():
    metrics = {name: float(i) for i, name in enumerate(NAMES)} | {"A-150": 1000.0}
    means = mess_means(metrics)
    assert means["MESS, General"] == np.mean([0, 1, 2, 3, 4, 5])
    assert means["MESS, Medical Sciences"] == np.mean([11, 12, 13, np.mean([14, 15, 16, 17])])
    rest = [*range(14), 15.5, *range(18, 25)]
    assert means["MESS"] == pytest.approx(np.mean(rest))
    assert len(means) == 6
    assert mess_means({"A-150": 1.0}) == {}
    del metrics["uavid_sem_seg_val"]
    assert [name for name, mean in mess_means(metrics).items() if math.isnan(mean)] == [
        "MESS, Earth Monitoring",
        "MESS",
    ]


def test_the_means_stand_below_the_data_sets():
    summary = {"mIoU": 40.0, "mIoU-v0.6": 30.0, "fwIoU": 1.0, "mACC": 1.0, "pACC": 1.0}
    results = [BenchmarkResult(name, summary, ["a"], [1], 7) for name in NAMES]
    lines = [[cell.strip() for cell in line.split("|")] for line in summary_table(results).splitlines()]
    assert lines[-1][1:] == ["MESS", "-", "30.00", "-", "-", "-", "", ""]
    assert lines[-6][1] == "MESS, General"
    assert "MESS" not in summary_table([BenchmarkResult("A-150", summary, ["a"], [1], 7)])
