"""An image, a model and a folder for the web page, and the page itself."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo(tmp_path):
    """An image of coloured noise, 90 wide and 60 high."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def model(toy_model):
    return toy_model().eval()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the page has to itself."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # put back afterwards, whatever the page sets
    path = tmp_path / "page"
    path.mkdir()
    return path


@pytest.fixture
def site(model, folder, photo):
    from err_seg.web import create_app
    from tests.helpers.serving import serving

    with serving(create_app(model, "cat, dog", folder, [photo])) as site:
        yield site
