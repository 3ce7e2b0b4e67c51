"""Label maps that say where they lie on the earth."""

import json

import numpy as np
import pytest

from err_seg.commands import predict
from err_seg.data.images import read_label as load_label_png
from err_seg.visualization.label_files import save_geotiff
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


def test_more_classes_than_16_bits_hold_are_refused(map_file, tmp_path):
    """Labels from 65536 on became other classes."""
    names = [str(number) for number in range(65536)]
    with pytest.raises(ValueError, match="at most 65535 classes, found 65536"):
        save_geotiff(np.full((30, 40), 65535), names, str(map_file), tmp_path / "labels.tif")
    assert not (tmp_path / "labels.tif").exists()


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


def test_pixels_without_data_belong_to_no_class(run_predict, rasterio, tmp_path):
    """They became whatever class black looks like, in every format."""
    pixels = np.random.default_rng(0).integers(1, 256, (3, 30, 40), dtype=np.uint8)
    pixels[:, :10] = 0
    profile = {"driver": "GTiff", "height": 30, "width": 40, "count": 3, "dtype": "uint8", "nodata": 0}
    place = rasterio.transform.from_origin(500_000, 5_400_000, 0.5, 0.5)
    with rasterio.open(tmp_path / "map.tif", "w", crs="EPSG:32632", transform=place, **profile) as file:
        file.write(pixels)
    formats = "geotiff,labels,json,coco,polygons,rle,overlay,masks"
    status, out, _ = run_predict(tmp_path / "map.tif", "--format", formats)
    assert status == 0
    assert "33.3%" in out or "33.33" in out
    for labels in (load_label_png(tmp_path / "out/map_labels.png"), read(rasterio, tmp_path / "out/map_labels.tif")):
        assert (labels[:10] == 255).all()
        assert (labels[10:] != 255).all()
    facts = json.loads((tmp_path / "out/map.json").read_text())
    assert facts["nothing"]["pixels"] == 400
    assert sum(row["pixels"] for row in facts["classes"]) == 800
    features = json.loads((tmp_path / "out/map.geojson").read_text())["features"]
    assert sum(feature["properties"]["area"] for feature in features) == 800
    assert min(y for f in features for ring in f["geometry"]["coordinates"] for _, y in ring) == 10


def test_bands_and_values_are_chosen_and_are_settings(run_predict, rasterio, tmp_path, toy):
    bands = np.random.default_rng(0).integers(0, 3000, (6, 30, 40)).astype(np.uint16)
    profile = {"driver": "GTiff", "height": 30, "width": 40, "count": 6, "dtype": "uint16"}
    place = rasterio.transform.from_origin(0, 0, 1, 1)
    with rasterio.open(tmp_path / "map.tif", "w", transform=place, **profile) as file:
        file.write(bands)
    status, _, err = run_predict(tmp_path / "map.tif", "--format", "labels")
    assert (status, "has 6 bands; say which" in err) == (1, True)
    chosen = ("--bands", "4,3,2", "--value-range", "0,3000", "--format", "labels")
    assert run_predict(tmp_path / "map.tif", *chosen, output=tmp_path / "rgb")[0] == 0
    image = np.round(bands[[3, 2, 1]] * (255 / 3000)).astype(np.uint8).transpose(1, 2, 0)
    expected = toy.predict(image, ["cat", "dog", "grass"]).labels.numpy()
    assert np.mean(load_label_png(tmp_path / "rgb/map_labels.png") == expected) > 0.99
    assert run_predict(tmp_path / "map.tif", *chosen, output=tmp_path / "rgb")[1].count("1 were done before") == 1
    status, _, err = run_predict(tmp_path / "map.tif", *chosen[:2], "--format", "labels", output=tmp_path / "rgb")
    assert (status, "value_range is null now and was [0.0, 3000.0]" in err) == (3, True)
    assert run_predict(tmp_path / "map.tif", *chosen[:2], "--value-range", "file", output=tmp_path / "file")[0] == 0
    for wrong in (("--bands", "0,1,2"), ("--bands", "a"), ("--value-range", "3,3"), ("--value-range", "all")):
        assert run_predict(tmp_path / "map.tif", *wrong)[0] == 2


def read(rasterio, path):
    with rasterio.open(path) as file:
        return file.read(1)
