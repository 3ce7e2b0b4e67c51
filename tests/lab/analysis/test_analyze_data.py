from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from err_seg.commands.analyze import main
from err_seg.data import dataset_names, unregister
from tests.helpers.toy import SHARED, TOY

TOY_OPTS = ["--opts", *map(str, TOY)]


def written(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def own_dataset(tmp_path):
    """A configuration that declares a data set of two images; forgotten afterwards."""
    for kind in ("images", "labels"):
        (tmp_path / "own" / kind).mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (40, 30), (90, 20 * index, 30)).save(tmp_path / "own" / "images" / f"{index}.jpg")
        Image.fromarray(np.full((30, 40), index, np.uint8)).save(tmp_path / "own" / "labels" / f"{index}.png")
    entry = {"name": "own_val", "image_dir": "own/images", "label_dir": "own/labels", "vocabulary": ["cat", "dog"]}
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"DATASETS": {"CUSTOM": [entry]}}))
    yield ["--datasets", "own_val", "--root", str(tmp_path), "--config-file", str(config)]
    if "own_val" in dataset_names():
        unregister("own_val")


def test_classes_of_an_own_data_set(own_dataset, tmp_path, capsys):
    assert main(["classes", *own_dataset, "--output", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "own_val" in capsys.readouterr().out
    assert written(tmp_path / "out") == ["classes_per_picture.json", "classes_per_picture.png"]


def test_recall_warns_of_random_weights(own_dataset, tmp_path, capsys):
    arguments = ["recall", *own_dataset, "--output", str(tmp_path / "out"), "--num-kept", "1", "2", *TOY_OPTS]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "K = 2" in output
    assert "These numbers mean nothing: CLIP has random weights" in output
    assert written(tmp_path / "out") == ["class_recall.json", "class_recall.png"]


def test_vocabularies_warn_of_random_weights_but_for_equal_prompts(tmp_path, capsys):
    arguments = ["vocabularies", "--vocabularies", "pascal_voc_20", "--thresholds", "0.5", "--output", str(tmp_path)]
    assert main([*arguments, *TOY_OPTS]) == 0
    output = capsys.readouterr().out
    assert "| pascal_voc_20 |      20 | 0.70 |" in output
    assert "mean nothing but for the equal prompts (same)" in output
    assert written(tmp_path) == ["vocabularies.csv", "vocabularies.json", "vocabularies.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classes", "--datasets", "ade20k"], "unknown data set 'ade20k'"),
        (["classes", "--root", "nowhere"], "no folder of images at"),
        (["vocabularies", "--train", "coco"], "'coco' is neither a data set"),
        (["classes", "--config-file", "no.yaml"], "no configuration file no.yaml"),
    ],
)
def test_errors_are_one_line_that_names_the_cause(arguments, message, capsys, tmp_path):
    assert main([*arguments, "--output", str(tmp_path / "out"), *TOY_OPTS]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real samples")
def test_real_label_maps(tmp_path, capsys):
    from err_seg.commands.prepare import main as prepare

    source = SHARED / "samples" / "raw" / "ADEChallengeData2016"
    for file in source.glob("*/validation/*"):
        target = tmp_path / "ADEChallengeData2016" / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    assert prepare(["ade150", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    output = Path(tmp_path / "out")
    assert main(["classes", "--datasets", "ade20k_150_val", "--root", str(tmp_path), "--output", str(output)]) == 0
    assert "|      2 |              6.50 |  8.50 |" in capsys.readouterr().out
