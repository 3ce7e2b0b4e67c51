"""The preparation command on real images, where the samples are at hand."""

import json
import shutil

import pytest

from err_seg.commands.prepare import main
from err_seg.data.preparation.conversions import CONVERSIONS
from tests.helpers.toy import SHARED

RAW = SHARED / "samples" / "raw"

pytestmark = pytest.mark.skipif(not RAW.is_dir(), reason="the real samples are not here")

CLASSES = {
    "coco-stuff": {"person", "skis", "snow", "bridge", "boat", "sea"},
    "ade150": {"sky", "building", "grass", "tree", "wall"},
    "ade847": {"sidewalk, pavement", "building, edifice", "tree", "van", "minibike, motorbike"},
    "pc59": {"bird", "grass", "ground", "water", "dog", "floor", "person", "diningtable", "wall", "cloth", "wood"},
    "pc459": {"bird", "grass", "ground", "water", "dog", "floor", "person", "table", "wall", "cloth", "wood"},
    "voc20": {"dog", "sheep"},
    "voc20b": {"dog", "sheep", "background"},
}
EXACT = {"pc59", "pc459", "voc20", "voc20b"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("samples") / "raw"
    shutil.copytree(RAW, root, copy_function=shutil.copyfile)
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    scenes = root / "ADE20K_2021_17_01/images/ADE"
    (scenes / "training").rename(scenes / "validation")  # the samples hold training images only
    assert main(["all", "--root", str(root), "--workers", "1"]) == 0
    return root


@pytest.mark.parametrize("name", CONVERSIONS)
def test_the_classes_are_those_in_the_images(root, name):
    assert main([name, "--root", str(root), "--workers", "1", "--check"]) == 0
    path = CONVERSIONS[name].splits[-1].spec.label_folder(root).parent / f"{name}_check.json"
    split = json.loads(path.read_text())["splits"][-1]
    found = {entry["name"] for entry in split["classes"] if entry["pixels"]}
    assert CLASSES[name] <= found
    assert found == CLASSES[name] or name not in EXACT
