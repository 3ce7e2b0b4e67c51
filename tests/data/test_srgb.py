"""Colours of images that come with a profile or an exponent."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from err_seg.data import images, read_image
from err_seg.data.image_sources import image_to_tensor
from tests.helpers.toy import SHARED

RED_MATRIX = [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]  # sRGB's, by D50
# Display P3's, which telephones write, and Adobe RGB's, which cameras write
WIDE = {
    "P3": ([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]], 2.2),
    "Adobe": ([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]], 2.2),
}


def profile(matrix, gamma):
    """Write the smallest ICC profile of three primaries and an exponent."""

    def number(value):
        return round(value * 65536).to_bytes(4, "big", signed=True)

    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(number, (0.9642, 1.0, 0.8249)))}
    for column, name in enumerate((b"r", b"g", b"b")):
        tags[name + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(number(row[column]) for row in matrix)
        curve = b"curv\0\0\0\0\0\0\0\1" + round(gamma * 256).to_bytes(2, "big") + b"\0\0"
        tags[name + b"TRC"] = curve
    tags[b"desc"] = b"desc\0\0\0\0\0\0\0\2a\0" + bytes(78)
    tags[b"cprt"] = b"text\0\0\0\0none"
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + (place + len(body)).to_bytes(4, "big") + len(content).to_bytes(4, "big")
        body += content
    size = (place + len(body)).to_bytes(4, "big")
    header = size + bytes(4) + b"\2\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    header += b"".join(map(number, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + len(tags).to_bytes(4, "big") + table + body


def by_hand(pixels, matrix, gamma):
    """From a profile's primaries to sRGB, by the definitions."""
    linear = (pixels / 255) ** gamma @ np.array(matrix).T @ np.linalg.inv(RED_MATRIX).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.fixture
def colors():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_colours_of_a_wide_profile_are_those_that_a_viewer_shows(tmp_path, colors, name, ending):
    path, options = tmp_path / f"a.{ending}", {"lossless": True} if ending == "webp" else {}
    Image.fromarray(colors).save(path, icc_profile=profile(*WIDE[name]), **options)
    found, expected = read_image(path), by_hand(colors, *WIDE[name])
    np.testing.assert_allclose(found, expected, atol=3)
    assert np.abs(found.astype(int) - colors).max() > 20
    assert np.array_equal(read_image(path, as_stored=True), colors), "data sets are read as published numbers were"
    with Image.open(path) as opened:
        assert np.array_equal(read_image(opened), found)
    assert np.array_equal(image_to_tensor(path.read_bytes()).permute(1, 2, 0).numpy(), found)


def test_jpegs(tmp_path, colors, monkeypatch):
    """Without a profile, with sRGB's own, or with a damaged one, they are read as before, by OpenCV."""
    smooth = Image.fromarray(colors).resize((60, 40), Image.Resampling.BICUBIC)
    decoded, decode = [], images.cv2.imdecode
    monkeypatch.setattr(images.cv2, "imdecode", lambda *args: decoded.append(None) or decode(*args))
    smooth.save(tmp_path / "plain.jpg")
    plain = read_image(tmp_path / "plain.jpg")
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for count, icc in enumerate((own, profile(*WIDE["P3"])[:150], b"no profile"), start=2):
        smooth.save(tmp_path / "a.jpg", icc_profile=icc)
        assert np.array_equal(read_image(tmp_path / "a.jpg"), plain)
        assert len(decoded) == count
    smooth.save(tmp_path / "wide.jpg", icc_profile=profile(*WIDE["P3"]))
    np.testing.assert_allclose(read_image(tmp_path / "wide.jpg"), by_hand(plain, *WIDE["P3"]), atol=3)
    assert np.array_equal(read_image(tmp_path / "wide.jpg", as_stored=True), plain)


def test_alpha_grey_palettes_and_profiles_of_another_mode(tmp_path, colors):
    wide = profile(*WIDE["Adobe"])
    rgba = np.dstack([colors, np.full((20, 30), 255, np.uint8)])
    rgba[:5, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=wide)
    image = read_image(tmp_path / "a.png")
    assert (image[:5] == 255).all()
    np.testing.assert_allclose(image[5:], by_hand(colors[5:], *WIDE["Adobe"]), atol=3)
    palette = Image.fromarray(colors).quantize(16)
    palette.save(tmp_path / "p.png", icc_profile=wide)
    stored = np.asarray(palette.convert("RGB"))
    np.testing.assert_allclose(read_image(tmp_path / "p.png"), by_hand(stored, *WIDE["Adobe"]), atol=3)
    grey = Image.fromarray(colors[:, :, 0])
    grey.save(tmp_path / "g.png", icc_profile=wide)
    assert np.array_equal(read_image(tmp_path / "g.png")[:, :, 0], colors[:, :, 0]), "a profile of colours, not of grey"


def test_a_png_s_exponent(tmp_path, colors):
    """Linear values, as renderers write them, were read too dark; the usual exponent changes nothing."""
    for exponent, expected in ((1.0, 255 * (colors / 255) ** (1 / 2.2)), (0.45455, colors)):
        content = io.BytesIO()
        Image.fromarray(colors).save(content, "PNG")
        data = content.getvalue()
        chunk = b"gAMA" + round(exponent * 100_000).to_bytes(4, "big")
        crc = PngImagePlugin._crc32(chunk).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data[:33] + b"\0\0\0\4" + chunk + crc + data[33:])
        np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=0.51)
        assert np.array_equal(read_image(tmp_path / "a.png", as_stored=True), colors)


@pytest.mark.skipif(not (SHARED / "samples").is_dir(), reason="no real samples here")
def test_a_photograph_of_adobe_rgb():
    found, stored = (read_image(SHARED / "samples/rocket.jpg", as_stored=way) for way in (False, True))
    assert 5 < np.abs(found.astype(int) - stored).mean() < 6.5
    plain = read_image(SHARED / "samples/chelsea.png")
    assert np.array_equal(plain, read_image(SHARED / "samples/chelsea.png", as_stored=True)), "its profile is sRGB's"
