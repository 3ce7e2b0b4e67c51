"""Large scenes, and the measurement of what windows gain on them."""

import json

import numpy as np
import pytest

import err_seg
from err_seg.mini.scenes import LargeScenes, MiniScenes
from tools.studies import tiles
from tools.studies.tiles import Way, WindowResult, cells, chosen, markdown, predict, ways


def radii(scenes, count):
    return np.array([thing.radius for index in range(count) for thing in scenes.plan(index).things])


def test_small_things_are_as_large_as_in_usual_scenes_and_many():
    scenes = LargeScenes("val")
    small = radii(scenes, 4)
    assert len(small) > 300
    assert abs(np.median(small) / np.median(radii(MiniScenes("val"), 200)) - 1) < 0.2
    sample = scenes[0]
    height, width = sample.label.shape
    assert 900 <= min(height, width) <= max(height, width) <= 1200
    assert sample.image.shape == (height, width, 3)
    classes = np.unique(sample.label)
    assert 8 < len(classes) <= 10
    assert (classes < len(scenes.vocabulary)).all()


def test_zoom_enlarges_everything_and_dealing_is_fair():
    near, far = LargeScenes("val", zoom=6.0), LargeScenes("val")
    assert 4 < np.median(radii(near, 8)) / np.median(radii(far, 8)) < 8
    assert {len(near.plan(index).things) for index in range(8)} <= {2, 3, 4}
    shown = [{thing.class_index for thing in far.plan(index).things} for index in range(6)]
    assert set().union(*shown) == set(range(48))
    assert (near[0].image == LargeScenes("val", zoom=6.0)[0].image).all()
    assert LargeScenes("val", seed=1).plan(0) != far.plan(0)
    with pytest.raises(ValueError, match="size must be 64 or more"):
        LargeScenes("val", size=20)


def test_ways_of_predicting():
    assert [str(way) for way in ways(192)][:3] == ["whole image", "whole image, antialiased", "whole image, refined"]
    model, scenes = err_seg.load("mini", device="cpu"), LargeScenes("val", zoom=6.0)
    image = scenes[0].image
    results = [predict(model, image, scenes.vocabulary, way) for way in (Way(None), Way(600), Way(600, True))]
    assert all(result.size == image.shape[:2] for result in results)
    assert [result.probabilities.shape[1:] == (48, 48) for result in results] == [True, False, False]
    assert results[1].probabilities.shape == results[2].probabilities.shape
    assert (results[1].labels == results[2].labels).float().mean() > 0.8


def test_what_is_best_on_validation_scenes_is_chosen(monkeypatch):
    monkeypatch.setattr(tiles, "KINDS", {"small": 1.0})
    tests = [{"mIoU": 50.0, "mBoundaryIoU": 30.0, "classes kept": 100.0, "seconds": 1.0}] * 2
    rows = [WindowResult("small", "a", 60.0, tests), WindowResult("small", "b", 61.0, tests)]
    assert chosen(rows) == {"small": "b"}
    assert cells(rows[0]) == ["small", "a", "60.0", "50.0 ± 0.0", "30.0 ± 0.0", "100.0", "1.00"]
    assert markdown(rows).endswith("|\n\nChosen on validation scenes, small: b\n")


def test_the_command_measures_that_windows_see_small_things(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tiles, "KINDS", {"many small things": 1.0})
    monkeypatch.setattr(tiles, "ways", lambda side: [Way(None), Way(2 * side)])
    tiles.main(["--scenes", "1", "--seeds", "0", "--output", str(tmp_path)])
    written = json.loads((tmp_path / "results.json").read_text())
    whole, windows = written["rows"]
    assert windows["test"][0]["mIoU"] > whole["test"][0]["mIoU"] + 5
    assert written["chosen"] == {"many small things": "tile=384"}
    assert (tmp_path / "results.md").read_text() in capsys.readouterr().out
