"""What TIFF files say of their values: types, ranges, bands, and which pixels hold no data."""

import sys

import numpy as np
import pytest
from PIL import Image

from err_seg import data
from err_seg.data import ImageReadError, read_image, read_label
from err_seg.data.dataset import read_checked_label
from err_seg.data.spec import DatasetSpec

RANDOM = np.random.default_rng(0)
COLORS = RANDOM.integers(1, 255, (6, 7, 3), dtype=np.uint8)
NO_DATA, PHOTOMETRIC, SAMPLE_FORMAT, BITS, EXTRA = 42113, 262, 339, 258, 338


def read_masked_image(*arguments, **options):
    """The pixels, and (H, W) bool, which of them hold no data, or None."""
    image = data.read_masked_image(*arguments, **options)
    assert np.array_equal(image, read_image(*arguments, **options))
    assert type(read_image(*arguments, **options)) is np.ndarray
    return np.asarray(image), np.ma.getmask(image)[:, :, 0] if np.ma.is_masked(image) else None


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a GeoTIFF of bands (C, H, W) by rasterio."""
    rasterio = pytest.importorskip("rasterio")

    def write(bands, colors=None, mask=None, **options):
        bands = bands if bands.ndim == 3 else bands[None]
        facts = {"driver": "GTiff", "count": len(bands), "dtype": bands.dtype}
        path = tmp_path / "map.tif"
        facts |= {"height": bands.shape[1], "width": bands.shape[2], "transform": rasterio.Affine(1, 0, 9, 0, -1, 9)}
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **facts, **options) as file:
            if colors:
                file.colorinterp = [rasterio.enums.ColorInterp[color] for color in colors]
            file.write(bands)
            if mask is not None:
                file.write_mask(mask)
        return path

    return write


def save_tiff(path, image, **tags):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, tiffinfo=tags.get("tags", {}))
    return path


def test_the_value_for_no_data_is_white_and_masked(tmp_path):
    pixels = COLORS.copy()
    pixels[:2] = 0
    pixels[3, 3] = (0, 5, 0)  # one band has data
    image, empty = read_masked_image(save_tiff(tmp_path / "a.tif", pixels, tags={NO_DATA: "0"}))
    assert (image[:2] == 255).all()
    assert np.array_equal(image[2:], pixels[2:])
    assert np.array_equal(empty, np.arange(6)[:, None].repeat(7, 1) < 2)
    for value in ("-9999", "nan", "rubbish", "256"):
        image, empty = read_masked_image(save_tiff(tmp_path / "a.tif", pixels, tags={NO_DATA: value}))
        assert np.array_equal(image, pixels)
        assert empty is None or not empty.any()
    assert read_masked_image(save_tiff(tmp_path / "a.tif", pixels))[1] is None


def test_no_data_of_grey_images_and_what_pillow_has_opened(tmp_path):
    deep = np.array([[0, 257, 65535]], np.uint16)
    path = save_tiff(tmp_path / "a.tif", deep, tags={NO_DATA: "257"})
    image, empty = read_masked_image(path)
    assert (image[0, :, 0].tolist(), empty.tolist()) == ([0, 255, 255], [[False, True, False]])
    with Image.open(path) as opened:
        assert np.array_equal(read_image(opened), image)
    image, empty = read_masked_image(save_tiff(tmp_path / "a.tif", np.array([[7, 9]], np.uint8), tags={NO_DATA: "9"}))
    assert (image[0, :, 0].tolist(), empty.tolist()) == ([7, 255], [[False, True]])


def test_a_fourth_band_is_alpha_only_if_it_is_one(tmp_path):
    """GDAL calls the fourth of four bands alpha unless asked not to: colours faded to white where infrared was low."""
    infrared = RANDOM.integers(0, 256, (6, 7), dtype=np.uint8)
    infrared[0] = 0
    image, empty = read_masked_image(save_tiff(tmp_path / "a.tif", np.dstack([COLORS, infrared])))
    assert np.array_equal(image, COLORS)
    assert empty is None
    mask = np.full((6, 7), 255, np.uint8)
    mask[0], mask[1, :3] = 0, 128
    image, empty = read_masked_image(save_tiff(tmp_path / "a.tif", np.dstack([COLORS, mask])))
    assert (image[0] == 255).all()
    assert np.array_equal(image[2:], COLORS[2:])
    assert (image[1, :3] > COLORS[1, :3]).all(), "half transparent"
    assert np.array_equal(empty, mask == 0)
    Image.fromarray(np.dstack([COLORS, infrared])).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png")[0] == 255).all(), "a PNG's alpha is always alpha"


@pytest.mark.parametrize(
    ("values", "tags", "told"),
    [
        (np.array([[156, 0, 100]], np.uint8), {SAMPLE_FORMAT: 2}, "signed or 32-bit values, here from -100 to 100"),
        (np.array([[0, 255]], np.int32), {}, "signed or 32-bit values, here from 0 to 255"),
        (np.array([[0.0, 0.5]], np.float32), {}, "floating-point values, here from 0 to 0.5"),
    ],
)
def test_values_without_a_standard_range_are_refused_with_what_to_give(tmp_path, values, tags, told):
    """Signed ones wrapped, and 32 bits of 0 to 255 were read as black."""
    path = save_tiff(tmp_path / "a.tif", values, tags=tags)
    with pytest.raises(
        ImageReadError, match=rf"a\.tif: holds {told}, which have no standard .* --value-range .*value_r"
    ):
        read_image(path)


def test_white_is_zero_and_few_bits(tmp_path, write):
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        values = np.array([[0, white // 4, white]], dtype)
        path = save_tiff(tmp_path / "a.tif", values if dtype == np.uint16 else 255 - values, tags={PHOTOMETRIC: 0})
        assert read_image(path)[0, :, 0].tolist() in ([255, 191, 0], [255, 192, 0])
        with pytest.raises(ImageReadError, match="white-is-zero"):
            read_label(path)
    assert read_image(write(np.array([[0, 2048, 4095]], np.uint16), nbits=12))[0, :, 0].tolist() == [0, 128, 255]
    assert read_label(write(np.array([[0, 2048, 4095]], np.uint16), nbits=12)).tolist() == [[0, 2048, 4095]]
    assert read_image(write(np.array([[0, 7, 15]], np.uint8), nbits=4))[0, :, 0].tolist() == [0, 119, 255]


def test_bands_and_ranges_by_rasterio(write):
    bands = RANDOM.integers(0, 3001, (5, 6, 7)).astype(np.uint16)
    path = write(bands)
    with pytest.raises(
        ImageReadError, match=r"map\.tif: has 5 bands; say which are red, green and blue.*--bands 3,2,1"
    ):
        read_image(path)
    expected = np.round(bands[[3, 2, 1]].clip(0, 2000) * (255 / 2000)).transpose(1, 2, 0)
    image, empty = read_masked_image(path, bands=(4, 3, 2), value_range=(0, 2000))
    np.testing.assert_allclose(image, expected, atol=1)
    assert (empty, image.dtype, image.flags.c_contiguous) == (None, np.uint8, True)
    grey = read_image(path, bands=(5,), value_range=(0, 3000))
    np.testing.assert_allclose(grey, (bands[4] * (255 / 3000))[..., None].repeat(3, 2), atol=0.51)
    low, high = bands[:3].min(), bands[:3].max()
    stretched = read_image(path, bands=(1, 2, 3), value_range="file")
    np.testing.assert_allclose(stretched, (bands[:3].transpose(1, 2, 0) - low) / (high - low) * 255, atol=0.51)
    for wrong in ((1, 2), (0, 1, 2), (4, 5, 6)):
        with pytest.raises(ImageReadError, match="has 5 bands"):
            read_image(path, bands=wrong)


def test_sixteen_bits_of_three_and_four_bands(write):
    bands = RANDOM.integers(0, 65536, (4, 6, 7)).astype(np.uint16)
    expected = np.round(bands[:3] / 257).transpose(1, 2, 0)
    assert np.array_equal(read_image(write(bands[:3])), expected)
    assert np.array_equal(read_image(write(bands)), expected), "the fourth is no alpha"
    order = ["blue", "green", "red", "undefined"]
    assert np.array_equal(read_image(write(bands, order)), expected[..., ::-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int16, np.int32])
def test_any_type_with_a_range(write, dtype):
    values = np.array([[-100, 1, 27, 100]], dtype)
    path = write(np.stack([values] * 3))
    with pytest.raises(ImageReadError, match=r"here from -100 to 100.*--value-range -100,100"):
        read_image(path)
    assert read_image(path, value_range=(-100, 100))[0, :, 2].tolist() == [0, 129, 162, 255]
    assert read_image(path, value_range=(0, 54))[0, :, 0].tolist() in ([0, 5, 127, 255], [0, 5, 128, 255])
    assert np.array_equal(read_image(path, value_range="file"), read_image(path, value_range=(-100, 100)))
    assert np.array_equal(read_image(path, value_range=[0, 54]), read_image(path, value_range=(0, 54))), (
        "not the file's"
    )
    assert read_image(write(values), value_range=(-100, 100))[0, :, 2].tolist() == [0, 129, 162, 255]


def test_no_data_and_masks_by_rasterio(write):
    values = np.stack([np.array([[np.nan, -9999, 0, 1]], np.float32)] * 3)
    image, empty = read_masked_image(write(values, nodata=-9999), value_range="file")
    assert image[0, :, 0].tolist() == [255, 255, 0, 255]
    assert empty.tolist() == [[True, True, False, False]]
    deep = RANDOM.integers(1, 65536, (4, 6, 7)).astype(np.uint16)
    deep[3], deep[3, 0] = 65535, 0
    image, empty = read_masked_image(write(deep, ["red", "green", "blue", "alpha"]), bands=(1, 2, 3))
    assert np.array_equal(empty, deep[3] == 0)
    assert (image[0] == 255).all()
    mask = np.full((6, 7), 255, np.uint8)
    mask[2] = 0
    assert np.array_equal(read_masked_image(write(deep[:3], mask=mask))[1], mask == 0)
    everything = write(np.zeros((3, 4, 5), np.uint16), nodata=0)
    image, empty = read_masked_image(everything, value_range="file")
    assert empty.all()
    assert (image == 255).all()


def test_without_rasterio_it_is_named(write, monkeypatch):
    path = write(RANDOM.integers(0, 9, (5, 6, 7)).astype(np.uint16))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImageReadError, match=r'map\.tif: is a TIFF of .* pip install "err_seg\[geo\]"'):
        read_image(path)


def test_only_tiffs_have_bands_to_choose(tmp_path):
    pytest.importorskip("rasterio")
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    (tmp_path / "a.vrt").write_text("<VRTDataset/>")
    for name in ("a.png", "a.vrt"):
        with pytest.raises(ImageReadError, match=rf"{name}: "):
            read_image(tmp_path / name, bands=(3, 2, 1))


@pytest.mark.parametrize(
    ("values", "tags", "expected"),
    [
        (np.array([[255, 156, 5]], np.uint8), {SAMPLE_FORMAT: 2}, [[-1, -100, 5]]),
        (np.array([[0, 9, 5]], np.uint8), {NO_DATA: "9"}, [[0, 9, 5]]),
    ],
)
def test_label_maps_hold_what_is_stored(tmp_path, values, tags, expected):
    """Signed values wrapped: -1, which is nothing in many label maps, was class 255."""
    assert read_label(save_tiff(tmp_path / "a.tif", values, tags=tags)).tolist() == expected


def test_label_maps_of_two_bands_and_of_lossy_compression_are_refused(tmp_path, write):
    with pytest.raises(ImageReadError, match="one channel"):
        read_label(write(np.zeros((2, 3, 4), np.uint8)))
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.tif", compression="jpeg")
    with pytest.raises(ImageReadError, match="JPEG"):
        read_label(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match="beyond 2147483647"):
        read_label(write(np.array([[0, 2**32 - 1]], np.uint32)))


def test_labels_without_data_are_ignored_in_data_sets(tmp_path):
    """A label map may give class 0 to pixels of which it says that they hold no data."""
    spec = DatasetSpec("a", ".", ".", vocabulary=("cat", "dog"), label_ext=".tif")
    path = save_tiff(tmp_path / "a.tif", np.array([[0, 1, 255]], np.uint8), tags={NO_DATA: "0"})
    assert read_checked_label(spec, str(path)).tolist() == [[255, 1, 255]]
    path = save_tiff(tmp_path / "a.tif", np.array([[0, 1, 255]], np.uint8), tags={NO_DATA: "255"})
    assert read_checked_label(spec, str(path)).tolist() == [[0, 1, 255]]
