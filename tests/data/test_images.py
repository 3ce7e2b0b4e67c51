import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from err_seg.data import images
from err_seg.data.images import ImageReadError, read_image, read_label
from tests.helpers.toy import SHARED

SAMPLES = SHARED / "samples"

# corners: red, green / blue, white
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def test_a_transparent_grey_of_sixteen_bits_is_white(tmp_path):
    grey = np.array([[300, 301], [65535, 0]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=300)
    assert read_image(tmp_path / "a.png")[:, :, 0].tolist() == [[255, 1], [255, 0]]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, :, 2].tolist() == [[1, 1], [255, 0]]


def test_damaged_exif_data_make_no_image_unreadable(tmp_path):
    """A text where a width should be was enough; and the orientation still counts if it can be read."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "maker", 6
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "a.webp", exif=exif, lossless=True)
    upright = read_image(tmp_path / "a.jpg")
    assert upright.shape == (30, 20, 3)
    content = (tmp_path / "a.jpg").read_bytes()
    assert (read_image(content.replace(b"\x01\x0f\x00\x02", b"\x01\x00\x00\x02")) == upright).all()
    content = (tmp_path / "a.webp").read_bytes()
    assert (read_image(content.replace(b"MM\x00\x2a", b"MMMM")) == pixels).all()


def test_rgb_png_is_read_exactly_and_is_writable(tmp_path):
    Image.fromarray(CORNERS).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, CORNERS)
    image[0] = 0  # torch.from_numpy warns of arrays that cannot be written


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, 3)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, np.rot90),
        (9, lambda a: a),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, undo):
    stored = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), undo(stored))


def test_opened_image_is_read_and_left_unchanged(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert read_image(image).shape == (3, 2, 3)
        assert image.size == (3, 2)
        assert image.getexif()[0x0112] == 6


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.array([[[255, 0, 0, 0], [200, 100, 0, 255], [0, 0, 0, 128]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")[0].astype(int)
    np.testing.assert_array_equal(image[:2], [[255, 255, 255], [200, 100, 0]])
    np.testing.assert_allclose(image[2], 127, atol=1)


def test_grey_with_alpha_is_composited_on_white(tmp_path):
    Image.fromarray(np.array([[[0, 0], [90, 255]]], np.uint8), "LA").save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255] * 3, [90] * 3]])


def test_palette_gives_colours_and_its_transparent_entry_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "opaque.png")
    image.save(tmp_path / "transparent.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]])
    np.testing.assert_array_equal(read_image(tmp_path / "transparent.png")[0, 1], [255, 255, 255])
    np.testing.assert_array_equal(read_image(tmp_path / "transparent.png")[0, 2], [70, 80, 90])


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, ending):
    grey = np.array([[0, 128, 129, 257 * 77, 65535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / f"a.{ending}")
    image = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(image, np.repeat(np.array([[[0], [0], [1], [77], [255]]]), 3, axis=2))


def test_grey_and_one_bit(tmp_path):
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), [[[7] * 3, [200] * 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png"), [[[255] * 3, [0] * 3]])


def test_cmyk_jpeg_keeps_its_colours(tmp_path):
    image = Image.new("RGB", (16, 16), (200, 40, 90))
    image.convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").mean((0, 1)), [200, 40, 90], atol=4)


JPEGS = [
    {"quality": 95, "subsampling": 0},
    {"quality": 75, "subsampling": 1},
    {"quality": 30, "subsampling": 2},
    {"quality": 85, "progressive": True},
    {"quality": 85, "optimize": True},
    {"quality": 85, "keep_rgb": True},
    {"quality": 85, "restart_marker_rows": 1},
]


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_is_decoded_by_opencv_as_by_pillow(tmp_path, monkeypatch, options, orientation):
    smooth = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(smooth).resize((131, 97), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.jpg", exif=exif, **options)
    with Image.open(tmp_path / "a.jpg") as opened:
        expected = read_image(opened)
    decoded, decode = [], images.cv2.imdecode
    monkeypatch.setattr(images.cv2, "imdecode", lambda *args: decoded.append(None) or decode(*args))
    decoded_image = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decoded_image, expected)
    assert decoded_image.flags.writeable
    assert len(decoded) == (orientation == 1), "what is to be turned is left to Pillow"


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_jpeg_cut_short_is_refused(tmp_path, share, capfd):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ImageReadError, match="damaged or cut short"):
        read_image(tmp_path / "a.jpg")
    assert capfd.readouterr() == ("", "")


def test_values_without_a_defined_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.array([[70000]], np.int32)).save(tmp_path / "large.tif")
    with pytest.raises(ImageReadError, match=r"float\.tif.*floating-point"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(ImageReadError, match=r"large\.tif.*70000"):
        read_image(tmp_path / "large.tif")


@pytest.mark.parametrize("read", [read_image, read_label])
def test_what_is_wrong_with_a_file_is_said(tmp_path, read):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("<html>404</html>")
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:1000])
    (tmp_path / "folder.png").mkdir()
    wrong = {
        "missing": "no such file",
        "empty": "0 bytes",
        "text": "not an image",
        "cut": "damaged",
        "folder": "folder",
    }
    for name, complaint in wrong.items():
        with pytest.raises(ImageReadError, match=rf"{name}\.png: .*{complaint}"):
            read(tmp_path / f"{name}.png")


def test_image_without_pixels_is_refused():
    with pytest.raises(ImageReadError, match="no pixels"):
        read_image(Image.new("RGB", (0, 5)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what is damaged
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_an_image_read_error_or_harmless(tmp_path, data):
    buffer = io.BytesIO()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(buffer, data.draw(st.sampled_from(["PNG", "JPEG", "TIFF"])), exif=exif)
    content = bytearray(buffer.getvalue())
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "a").write_bytes(content[: data.draw(st.integers(1, len(content)))])
    for read in (read_image, read_label):
        with contextlib.suppress(ImageReadError):
            assert read(tmp_path / "a").size > 0


@pytest.mark.parametrize(
    ("dtype", "ending", "values"),
    [
        (np.uint8, "png", [0, 1, 254, 255]),
        (np.uint16, "png", [0, 255, 846, 65535]),
        (np.uint16, "tif", [0, 255, 846, 65535]),
        (np.int32, "tif", [-1, 0, 65536, 2**31 - 1]),
    ],
)
def test_labels_are_exact(tmp_path, dtype, ending, values):
    Image.fromarray(np.array([values], dtype)).save(tmp_path / f"a.{ending}")
    label = read_label(tmp_path / f"a.{ending}")
    assert label.dtype == dtype
    np.testing.assert_array_equal(label, [values])


def test_big_endian_label_comes_in_native_order(tmp_path):
    stored = np.array([[1, 300, 65535]], ">u2")
    Image.frombytes("I;16B", (3, 1), stored.tobytes()).save(tmp_path / "a.tif")
    label = read_label(tmp_path / "a.tif")
    assert label.dtype.isnative
    np.testing.assert_array_equal(label, [[1, 300, 65535]])


def test_palette_label_gives_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 15, 255]], np.uint8), "P")
    image.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), [[0, 15, 255]])


def write_grey_png(path, values, bits):
    """A one-row grey PNG of 1, 2 or 4 bits a pixel, which Pillow itself does not write."""
    row = "".join(format(value, f"0{bits}b") for value in values)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" + int(row, 2).to_bytes(len(row) // 8, "big"))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_shallow_grey_label_is_not_stretched(tmp_path, bits):
    values = [value % 2**bits for value in range(16)]
    write_grey_png(tmp_path / "a.png", values, bits)
    label = read_label(tmp_path / "a.png")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, [values])


def test_orientation_is_not_applied_to_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.array([[1, 2, 3]], np.uint8)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_label(tmp_path / "a.png"), [[1, 2, 3]])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_label_of_colours_is_refused(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ImageReadError, match=rf"a\.png.*one channel.*mode {mode}"):
        read_label(tmp_path / "a.png")


def test_jpeg_label_is_refused(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(ImageReadError, match="JPEG"):
        read_label(tmp_path / "a.jpg")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no real samples here")
def test_real_samples():
    voc = SAMPLES / "raw" / "VOCdevkit" / "VOC2012"
    assert set(np.unique(read_label(voc / "SegmentationClass" / "2007_000063.png"))) == {0, 9, 12, 255}
    assert read_image(voc / "JPEGImages" / "2007_000063.jpg").shape == (375, 500, 3)
    assert read_image(SAMPLES / "chelsea.png").shape[2] == 3
    ade = SAMPLES / "raw" / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "street"
    with pytest.raises(ImageReadError, match="mode RGB"):
        read_label(ade / "ADE_train_00016900_seg.png")


def test_an_image_of_more_pixels_than_pillow_reads_is_not_called_damaged(tmp_path, monkeypatch):
    Image.new("RGB", (60, 50)).save(tmp_path / "map.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageReadError, match=r"map\.png: has more pixels than Pillow reads.*MAX_IMAGE_PIXELS = None"):
        read_image(tmp_path / "map.png")
