"""Data sets of a few images for the analyses."""

import numpy as np
import pytest
from PIL import Image

from err_seg.data import DatasetSpec, SegmentationPairs


@pytest.fixture
def write_pairs(tmp_path):
    """Return a function that writes images and label maps, and opens them as a data set."""

    def write(labels, vocabulary, images=None, label_ext=".png", name="toy", **values):
        images = [np.zeros((*label.shape, 3), np.uint8) for label in labels] if images is None else images
        for kind, arrays, ext in (("images", images, ".png"), ("labels", labels, label_ext)):
            (tmp_path / kind).mkdir(exist_ok=True)
            for index, array in enumerate(arrays):
                Image.fromarray(array).save(tmp_path / kind / f"{index:03}{ext}")
        folders = str(tmp_path / "images"), str(tmp_path / "labels")
        spec = DatasetSpec(name, *folders, vocabulary, image_ext=".png", label_ext=label_ext, **values)
        return SegmentationPairs(spec)

    return write
