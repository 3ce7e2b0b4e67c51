import csv
import json
import math

import pytest
import torch
from PIL import Image

from err_seg.data import load_vocabulary
from err_seg.lab.analysis.vocabulary_similarity import (
    build_embedder,
    draw_similarities,
    nearest_classes,
    resolve_vocabulary,
    save_similarities,
    similarity_table,
)
from err_seg.modeling.clip import CLIPConfigError
from err_seg.models.checkpoint import save_weights
from err_seg.visualization.plots import save_figure

ANGLES = {"cat": 0, "dog": 90, "kitten, cat": 10, "puppy": 85, "bird": 50}


def embed_by_angle(names):
    angles = torch.tensor([math.radians(ANGLES[name]) for name in names])
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.fixture
def vocabularies(tmp_path):
    """Files of an evaluation and a training vocabulary."""
    (tmp_path / "pets.txt").write_text("kitten, cat\ncat\npuppy\nbird\n")
    (tmp_path / "training.json").write_text('["dog", "cat"]')
    return str(tmp_path / "pets.txt"), str(tmp_path / "training.json")


def test_each_class_has_its_nearest_training_class(vocabularies):
    (result,) = nearest_classes(embed_by_angle, [vocabularies[0]], vocabularies[1])
    assert result.names == ("kitten, cat", "cat", "puppy", "bird")
    assert result.nearest == ("cat", "cat", "dog", "dog")
    cosines = [math.cos(math.radians(angle)) for angle in (10, 0, 5, 40)]
    assert result.similarity.tolist() == pytest.approx(cosines, abs=1e-6)
    assert result.share_same == 0.25
    assert (result.share(0.99), result.share(0.95), result.share(0.5)) == (0.5, 0.75, 1)


def test_rounding_hides_a_similarity_of_one_in_float32_only(vocabularies):
    def embed(names):
        return embed_by_angle(names) * (1 - 1e-7)

    (result,) = nearest_classes(embed, [vocabularies[0]], vocabularies[1])
    assert (result.share_same, result.share_one_float32) == (0.25, 0)


@pytest.mark.parametrize("name", ["ade20k_150", "ade20k_150_val", "ade20k_150_test_sem_seg"])
def test_a_vocabulary_goes_by_its_name_or_its_data_set(name):
    assert resolve_vocabulary(name) == load_vocabulary("ade20k_150")


def test_an_unknown_vocabulary_lists_what_there_is():
    with pytest.raises(ValueError, match=r"'ade' is neither a data set \(.*ade20k_150_val.*nor a vocabulary \(.*json"):
        resolve_vocabulary("ade")


def test_equal_prompts_are_the_same_even_to_a_random_clip(toy_cfg):
    """Which classes have a namesake does not depend on weights: the shares below are those of the tables alone."""
    embed = build_embedder(toy_cfg())
    names = ["pascal_voc_20", "pascal_context_59", "ade20k_150"]
    results = nearest_classes(embed, names, "coco_stuff")
    training = {name.split(", ")[0] for name in load_vocabulary("coco_stuff")}
    for result in results:
        namesakes = [name.split(", ")[0].strip() in training for name in result.names]
        assert result.share_same == pytest.approx(sum(namesakes) / len(namesakes))
    bed = results[2].names.index("bed ")  # the table's trailing space makes no other prompt
    assert results[2].nearest[bed] == "bed"


def test_weights_of_the_whole_network_bring_their_own_text_tower(toy_cfg, toy_model, tmp_path):
    model = toy_model()
    save_weights(model, tmp_path / "network.safetensors")
    embed = build_embedder(toy_cfg("MODEL.WEIGHTS", str(tmp_path / "network.safetensors")))
    names = ["cat", "traffic light"]
    torch.testing.assert_close(embed(names), model.embed_vocabulary(names))
    assert not torch.allclose(embed(names), build_embedder(toy_cfg())(names), atol=1e-2)


def test_clip_weights_that_are_not_there_are_named(toy_cfg):
    with pytest.raises(CLIPConfigError, match=r"PRETRAINED.*nowhere\.bin"):
        build_embedder(toy_cfg("MODEL.CLIP.PRETRAINED", "nowhere.bin"))


def test_table_files_and_image(vocabularies, tmp_path):
    results = nearest_classes(embed_by_angle, [vocabularies[0]], vocabularies[1])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in similarity_table(results, [0.95]).splitlines()]
    assert rows[0][-2:] == ["≥ 0.95", "paper"]
    assert [rows[2][index] for index in (1, 2, 4, 5)] == ["4", "0.25", "0.75", "-"]

    save_similarities(results, tmp_path / "all.json", tmp_path / "all.csv")
    entries = json.loads((tmp_path / "all.json").read_text())
    assert entries[2] == {"vocabulary": vocabularies[0], "class": "puppy", "nearest": "dog", "similarity": 0.996195}
    with open(tmp_path / "all.csv", newline="") as file:
        assert next(csv.DictReader(file))["class"] == "kitten, cat"

    figure = draw_similarities(results, [0.95])
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x) == pytest.approx([1, 1, *(math.cos(math.radians(angle)) for angle in (5, 10, 40))])
    assert list(y) == [0, 0.25, 0.5, 0.75, 1]
    save_figure(figure, tmp_path / "all.png")
    assert Image.open(tmp_path / "all.png").format == "PNG"


def test_paper_values_stand_beside_its_vocabularies_under_any_name():
    def embed(names):
        return torch.eye(len(names), 200)

    table = similarity_table(nearest_classes(embed, ["voc_2012_test_sem_seg", "coco_stuff"], "coco_stuff"))
    lines = table.splitlines()
    assert lines[2].rstrip("| ").endswith("0.45 0.90 1.00")
    assert lines[3].rstrip("| ").endswith("-")
