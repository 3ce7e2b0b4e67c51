"""err-seg predict --tile and --refine."""

import numpy as np
import pytest
from PIL import Image

from err_seg.data.images import read_label as load_label_png
from tests.helpers.predicting import save


def test_large_images_are_labelled_in_windows(toy, run_predict, tmp_path):
    large, small = save(tmp_path / "large.png", (200, 150)), save(tmp_path / "small.png", (60, 40))
    for tile, out in ((64, "tiled"), ("auto", "auto"), (None, "whole")):
        options = [] if tile is None else ["--tile", tile, "--batch-size", 2]
        status, _, errors = run_predict(large, small, "--format", "labels", *options, output=tmp_path / out)
        assert (status, "error" in errors) == (0, False)
        for file in (large, small):
            expected = toy.predict(np.asarray(Image.open(file)), ["cat", "dog", "grass"], tile=tile).labels.numpy()
            assert (load_label_png(tmp_path / out / f"{file.stem}_labels.png") == expected).mean() > 0.999
    tiled, auto, whole = (load_label_png(tmp_path / out / "large_labels.png") for out in ("tiled", "auto", "whole"))
    assert (tiled == auto).all()  # S is 64
    assert (tiled != whole).mean() > 0.1


def test_results_of_other_windows_are_not_taken_for_these(run_predict, tmp_path):
    image = save(tmp_path / "image.png", (100, 100))
    assert run_predict(image)[0] == 0
    status, _, errors = run_predict(image, "--tile", 64)
    assert (status, "tile is 64 now and was null" in errors) == (3, True)
    assert run_predict(image, "--tile", 64, "--force")[0] == 0
    assert "1 were done before" in run_predict(image, "--tile", 64)[1]
    assert run_predict(image)[0] == 3


def test_refined_borders(toy, run_predict, tmp_path):
    image = save(tmp_path / "image.png", (60, 40))
    expected = toy.predict(image, ["cat", "dog", "grass"], refine=True).labels.numpy()
    status, _, errors = run_predict(image, "--format", "labels,overlay,json,kept,attention", "--refine")
    assert (status, "error" in errors) == (0, False)
    assert (load_label_png(tmp_path / "out" / "image_labels.png") == expected).all()
    assert "refine is null now and was true" in run_predict(image, "--format", "labels,overlay,json,kept,attention")[2]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--tile", "0"], "'0' is not a number of at least 1"),
        (["--tile", "big"], "'big' is not a number of at least 1"),
        (["--tile", "1"], "tile must be at least 2 pixels, 1/32 of S = 64, not 1"),
        (["--tile", "auto", "--format", "overlay,attention"], "attention is shown for the image as a whole"),
        (["--names", "--format", "labels,html"], "it needs --format overlay or video"),
    ],
)
def test_unusable_options(run_predict, tmp_path, options, complaint):
    status, _, errors = run_predict(save(tmp_path / "image.png"), *options)
    assert status == 2
    assert complaint in errors
