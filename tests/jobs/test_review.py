"""The page of the regions most worth a look: which they are, their order, and what is said of them."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.jobs import job_outputs, review
from err_seg.prediction.calibration import Calibration
from err_seg.prediction.segmentation import Segmentation
from tests.helpers.predicting import save

NAMES = ("cat", "dog, hound", "grass")
SIZE = (40, 60)


def page_of(folder):
    """Return the facts of the page and its thumbnails."""
    page = (folder / "review.html").read_text(encoding="utf-8")
    facts = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))
    return facts, re.findall(r'class="thumbnail">(.*?)</script>', page)


@pytest.fixture
def scene():
    """Cat on the left, grass on the right, and of each a doubtful part: the larger one of the cat."""
    probabilities = torch.full((3, *SIZE), 0.01)
    probabilities[0, :, :30], probabilities[2, :, 30:] = 0.9, 0.9
    probabilities[1, 10:20, 5:25] = 0.6  # a lead of 0.6 over 200 pixels
    probabilities[1, 4:9, 50:55] = 0.85  # of 0.514 over 25
    return Segmentation(probabilities, torch.arange(3), NAMES, SIZE, torch.ones(3))


def test_doubtful_parts_of_a_class_by_the_errors_expected_in_them(scene):
    labels = scene.labels.numpy().astype(int)
    first, second = review.doubtful_regions(scene.lead.numpy(), labels, NAMES)
    assert (first.label, first.area, first.box) == (0, 200, (5, 10, 20, 10))
    assert (second.label, second.area, second.box) == (2, 25, (50, 4, 5, 5))
    assert review.expected_errors(first) == pytest.approx(200 * 0.4)
    assert review.expected_errors(second) == pytest.approx(25 * (1 - 0.9 / 1.75))
    labels[:, 30:] = -1  # of no class: nobody looks there
    assert len(review.doubtful_regions(scene.lead.numpy(), labels, NAMES)) == 1


def test_the_next_best_class_is_named(scene):
    regions = review.doubtful_regions(scene.lead.numpy(), scene.labels.numpy().astype(int), NAMES)
    assert [review.next_best(scene, region) for region in regions] == ["dog", "dog"]
    alone = replace(scene, probabilities=scene.probabilities[:1], kept=torch.tensor([0]))
    assert review.next_best(alone, regions[0]) == "none of the words"


def test_a_thumbnail_shows_the_region_in_full_light(scene):
    region = review.doubtful_regions(scene.lead.numpy(), scene.labels.numpy().astype(int), NAMES)[0]
    drawn = base64.b64decode(review.thumbnail(np.full((*SIZE, 3), 200, np.uint8), region))
    pixels = np.asarray(Image.open(io.BytesIO(drawn)).convert("L"), int)
    height, width = pixels.shape
    assert max(height, width) == review.THUMBNAIL
    assert abs(pixels[height * 15 // 40, width * 15 // 48] - 200) < 10  # the part of 48×40 pixels begins at 0, 0
    assert abs(pixels[height * 35 // 40, width * 40 // 48] - 90) < 10


def test_calibrated_results_say_how_many_errors_to_expect(scene):
    image, labels = np.zeros((*SIZE, 3), np.uint8), scene.labels.numpy().astype(int)
    plain = review.review_part(scene, image, labels, NAMES)
    assert plain["calibrated"] is False
    assert plain["cards"][0]["about"] == "or dog? 200 pixels at 5, 10"
    assert plain["cards"][0]["classes"] == [{"name": "cat", "share": pytest.approx(0.6)}]
    calibrated = review.review_part(replace(scene, calibration=Calibration(1.0, -0.5)), image, labels, NAMES)
    confidence = 1 / (1 + np.exp(-(np.log(0.6 / 0.4) - 0.5)))
    assert calibrated["cards"][0]["classes"][0]["share"] == pytest.approx(confidence, abs=1e-4)
    assert calibrated["cards"][0]["about"] == f"or dog? 200 pixels at 5, 10; about {200 * (1 - confidence):.0f} wrong"


def test_only_the_first_regions_of_an_image_have_cards(scene, monkeypatch):
    monkeypatch.setattr(review, "OF_AN_IMAGE", 1)
    part = review.review_part(scene, np.zeros((*SIZE, 3), np.uint8), scene.labels.numpy().astype(int), NAMES)
    assert (len(part["cards"]), part["found"]) == (1, 2)


def test_one_page_for_all_images_the_most_doubtful_first(run_predict, tmp_path, monkeypatch):
    for number in range(3):
        save(tmp_path / f"in/{'abc'[number]}.png", size=(50 + 20 * number, 40), seed=number)
    status, out, _ = run_predict(tmp_path / "in", "--format", "review")
    assert status == 0
    assert "all results together" in out
    facts, thumbnails = page_of(tmp_path / "out")
    cards = facts["images"]
    parts = [json.loads(file.read_text()) for file in sorted((tmp_path / "out").glob("*_review.json"))]
    assert sum(part["found"] for part in parts) >= len(cards) == len(thumbnails) > 3
    errors = [card["errors"] for card in cards]
    assert errors == sorted(errors, reverse=True)
    assert {card["title"] for card in cards} == {"a.png", "b.png", "c.png"}
    assert [card["thumbnail"] for part in parts for card in part["cards"] if card["errors"] == errors[0]] == thumbnails[
        :1
    ]
    assert facts["note"].startswith(f"{len(cards)} of {sum(part['found'] for part in parts)} doubtful regions")
    assert "The model is not calibrated" in facts["note"]
    monkeypatch.setattr(job_outputs, "LISTED", 3)
    assert run_predict(tmp_path / "in", "--format", "review")[0] == 0
    assert [card["errors"] for card in page_of(tmp_path / "out")[0]["images"]] == errors[:3]


def test_results_of_another_calibration_are_not_taken_for_these(run_predict, toy, tmp_path, monkeypatch):
    image = save(tmp_path / "a.png")
    assert run_predict(image, "--format", "review")[0] == 0
    monkeypatch.setattr(toy, "calibration", Calibration(0.8, 0.1, "somewhere", 9))
    status, _, err = run_predict(image, "--format", "review")
    assert (status, "results of other settings (calibration is" in err) == (3, True)
    assert run_predict(image, "--format", "review", "--force")[0] == 0
    assert "A percentage is the probability that the label is right" in page_of(tmp_path / "out")[0]["note"]


def test_a_page_without_doubt_says_so(run_predict, tmp_path, monkeypatch):
    monkeypatch.setattr(review, "DOUBTFUL", 0.0)
    assert run_predict(save(tmp_path / "a.png"), "--format", "review,html")[0] == 0
    facts, thumbnails = page_of(tmp_path / "out")
    assert (facts["images"], thumbnails) == ([], [])
    assert facts["note"].startswith("0 of 0 doubtful regions")
