"""Label maps that say where they lie on the earth."""

import numpy as np
import pytest

from err_seg.commands import predict
from err_seg.evaluation import load_label_png
from tests.helpers.predicting import save


@pytest.fixture
def rasterio():
    return pytest.importorskip("rasterio")


@pytest.fixture
def map_file(rasterio, tmp_path):
    """Write a map of three bands in UTM, a pixel half a metre wide."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 30, 40), dtype=np.uint8)
    place = rasterio.transform.from_origin(500_000, 5_400_000, 0.5, 0.5)
    profile = {"driver": "GTiff", "height": 30, "width": 40, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "map.tif", "w", crs="EPSG:32632", transform=place, **profile) as file:
        file.write(pixels)
    return tmp_path / "map.tif"


def test_labels_lie_where_the_map_lies(run_predict, map_file, rasterio, tmp_path):
    assert run_predict(map_file, "--format", "geotiff,labels", "--background", "grass")[0] == 0
    with rasterio.open(map_file) as image, rasterio.open(tmp_path / "out/map_labels.tif") as found:
        assert found.crs == image.crs
        assert found.transform == image.transform
        assert found.bounds == image.bounds
        assert found.nodata == 255
        assert found.tags(1)["CLASS_1"] == "dog"
        assert np.array_equal(found.read(1), load_label_png(tmp_path / "out/map_labels.png"))
        assert found.colormap(1)[0][:3] != found.colormap(1)[1][:3]


def test_many_classes_take_16_bits(run_predict, map_file, rasterio, tmp_path):
    names = "; ".join(f"{thing} {number}" for number in range(100) for thing in ("cat", "dog", "sky"))
    assert run_predict(map_file, "--format", "geotiff", classes=names)[0] == 0
    with rasterio.open(tmp_path / "out/map_labels.tif") as found:
        assert found.dtypes == ("uint16",)
        assert found.nodata == 65535


def test_what_does_not_say_where_it_lies_is_reported(run_predict, map_file, rasterio, tmp_path):
    save(tmp_path / "photo.png")
    status, _, errors = run_predict(map_file, tmp_path / "photo.png", "--format", "geotiff")
    assert status == 1
    assert "photo.png: is not georeferenced; write --format labels instead" in errors
    assert (tmp_path / "out/map_labels.tif").is_file()


def test_without_rasterio(run_predict, tmp_path, monkeypatch):
    save(tmp_path / "photo.png")
    monkeypatch.setattr(predict, "find_spec", lambda name: None)
    status, _, errors = run_predict(tmp_path / "photo.png", "--format", "geotiff")
    assert status == 2
    assert 'pip install "err_seg[geo]"' in errors
