"""Every form that an image may have gives the same pixels, and what is no image is refused."""

import io
import os
import pickle
import tempfile
import zipfile
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from err_seg.data.arrays import ArrayFormat
from err_seg.data.image_sources import image_to_tensor, open_image, open_images
from err_seg.data.images import ImageError, ImageReadError, read_image


def to_array(image, **form):
    return ArrayFormat(**form).to_tensor(image).permute(1, 2, 0).numpy()


def encoded(image, ending="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, ending)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", ["PNG", "JPEG"])
def test_files_bytes_and_file_objects_are_the_same(images, tmp_path, ending):
    content = encoded(images[0], ending)
    path = tmp_path / "image"
    path.write_bytes(content)
    expected = read_image(path)
    with path.open("rb") as file, Image.open(path) as opened, path.open("rb") as raw:
        wrapped = io.BytesIO(b"header" + content)
        wrapped.seek(6)  # it is read from where it stands
        forms = (path, str(path), content, bytearray(content), memoryview(content), file, wrapped, opened, raw.read())
        for form in forms:
            np.testing.assert_array_equal(image_to_tensor(form).permute(1, 2, 0), expected)


def test_arrays_of_any_strides(images):
    rgb = images[0]
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    read_only = rgb.copy()
    read_only.setflags(write=False)
    wide = np.zeros((*rgb.shape[:2], 5), dtype=np.uint8)
    wide[:, :, 1:4] = rgb
    upside_down, mirrored = np.ascontiguousarray(rgb[::-1]), np.ascontiguousarray(rgb[:, ::-1])
    arrays = (
        bgr[:, :, ::-1],
        upside_down[::-1],
        mirrored[:, ::-1],
        wide[:, :, 1:4],
        np.asfortranarray(rgb),
        read_only,
        np.broadcast_to(rgb, rgb.shape),
        np.repeat(rgb, 2, axis=1)[:, ::2],
        torch.from_numpy(rgb),
        torch.from_numpy(rgb).permute(2, 0, 1),
    )
    expected = torch.from_numpy(rgb).permute(2, 0, 1)
    for array in arrays:
        tensor = image_to_tensor(array)
        assert torch.equal(tensor, expected)
        tensor += 1  # its own memory
    assert torch.equal(image_to_tensor(rgb), expected)


def test_values_of_every_type_are_scaled(images):
    rgb = images[0]
    for dtype, scale in ((np.float16, 1), (np.float32, 1), (np.float64, 1), (">f4", 255), (np.longdouble, 1)):
        array = (rgb / 255 * scale).astype(dtype)
        np.testing.assert_array_equal(to_array(array, value_range=(0, scale)), rgb)
    for dtype in (torch.float16, torch.float32, torch.float64):
        tensor = torch.from_numpy(rgb / 255 * 2 - 1).to(dtype).permute(2, 0, 1).requires_grad_()
        np.testing.assert_array_equal(to_array(tensor, value_range=(-1, 1)), rgb)
    twelve_bit = np.round(rgb / 255 * 4095)
    for dtype in (np.uint16, np.int16, np.int32, np.int64, np.uint64):
        np.testing.assert_array_equal(to_array(twelve_bit.astype(dtype), value_range=(0, 4095)), rgb)
    np.testing.assert_array_equal(to_array(rgb[:, :, 0] > 99, value_range=(0, 1))[:, :, 2], 255 * (rgb[:, :, 0] > 99))


def test_values_of_any_number_type_are_a_range(images):
    rgb = images[0]
    for low, high in ((Fraction(0), Fraction(1, 2)), (np.float32(0), np.int64(2)), (0, 2**70)):
        np.testing.assert_array_equal(to_array(rgb / 255.0 * float(high), value_range=(low, high)), rgb)


def test_sixteen_bits_and_grey_are_as_in_files(tmp_path):
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = read_image(tmp_path / "grey.png")
    for array in (grey, grey.astype(">u2"), torch.from_numpy(grey), np.repeat(grey[:, :, None], 3, axis=2)):
        np.testing.assert_array_equal(to_array(array), expected)
    eight_bit = grey.astype(np.uint8)
    for array in (eight_bit, eight_bit[:, :, None], torch.from_numpy(eight_bit)[None]):
        np.testing.assert_array_equal(to_array(array), np.repeat(eight_bit[:, :, None], 3, axis=2))


def test_alpha_is_composited_as_in_files(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    expected = read_image(tmp_path / "a.png")
    bgra = cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)
    np.testing.assert_array_equal(to_array(rgba), expected)
    np.testing.assert_array_equal(to_array(torch.from_numpy(rgba).permute(2, 0, 1)), expected)
    np.testing.assert_array_equal(to_array(rgba / 255, value_range=(0, 1)), expected)
    np.testing.assert_array_equal(to_array(rgba.astype(np.uint16) * 257), expected)
    np.testing.assert_array_equal(to_array(bgra, channel_order="bgr"), expected)
    np.testing.assert_array_equal(to_array(bgra[:, :, :3], channel_order="bgr"), rgba[:, :, :3])
    np.testing.assert_array_equal(to_array(torch.from_numpy(bgra[:, :, :3]), channel_order="bgr"), rgba[:, :, :3])
    np.testing.assert_array_equal(to_array(bgra[:, :, 0], channel_order="bgr")[:, :, 1], bgra[:, :, 0])


def test_values_that_were_computed_may_miss_the_range_by_rounding(images):
    """A tensor that was normalised and is brought back is not exactly in 0..1 any more."""
    rgb = torch.from_numpy(images[0].copy())
    rgb[0, 0], rgb[0, 1] = 0, 255
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    for dtype, miss in ((torch.float32, 0), (torch.float32, 1.9e-3), (torch.bfloat16, 0)):
        back = ((rgb / 255 - mean) / std) * std + mean
        back[0, 0], back[0, 1] = back[0, 0] - miss, back[0, 1] + miss
        image = open_image(back.to(dtype), arrays=ArrayFormat(value_range=(0, 1)))()
        assert image[:, 0, :2].unique(dim=0).tolist() == [[0, 255]]
        assert (image.permute(1, 2, 0).int() - rgb.int()).abs().max() <= (1 if dtype == torch.bfloat16 else 0)
    with pytest.raises(ImageError, match="go from 0 to 4100"):
        to_array(np.array([[0, 4100]], dtype=np.uint16), value_range=(0, 4095))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (float("nan"), "NaN or infinite"),
        (float("-inf"), "NaN or infinite"),
        (1.5, r"in 0\.\.1, but they go from 0 to 1\.5; correct value_range, or clip"),
        (1.003, r"from 0 to 1\.003"),
        (-0.5, r"from -0\.5 to 0"),
    ],
)
def test_values_that_are_out_of_range_are_refused(value, complaint):
    array = np.zeros((4, 5, 3), dtype=np.float32)
    array[1, 2, 1] = value
    for image in (array, torch.from_numpy(array)):
        with pytest.raises(ImageError, match=f"^image 7 must have .*{complaint}"):
            open_image(image, "image 7", ArrayFormat(value_range=(0, 1)))


def test_what_is_taken_may_be_overwritten_or_closed_at_once(images, tmp_path):
    """A generator of video frames may use one array for all; and files are closed behind their ``with``."""
    path = tmp_path / "image.png"
    path.write_bytes(encoded(images[0]))
    array, tensor, content = images[0].copy(), torch.from_numpy(images[0].copy()), bytearray(path.read_bytes())
    with path.open("rb") as file, Image.open(path) as opened:
        readers = list(open_images([array, tensor, content, file, opened], ArrayFormat()))
    array[:], tensor[:], content[:] = 0, 0, bytes(len(content))
    for read in readers:
        np.testing.assert_array_equal(read().permute(1, 2, 0), images[0])


def test_a_file_is_read_again_from_any_folder_until_it_changes(images, tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(encoded(images[0]))
    monkeypatch.chdir(tmp_path)
    read = open_image("image.png")
    first = read()
    monkeypatch.chdir("/")
    path.touch()  # its content counts
    assert torch.equal(read(), first)
    assert torch.equal(pickle.loads(pickle.dumps(read))(), first)
    path.write_bytes(encoded(images[1]))
    for reader in (read, pickle.loads(pickle.dumps(read))):
        with pytest.raises(ImageReadError, match=r"^image\.png: the file has changed since .* plot\(image\)"):
            reader()
    path.unlink()
    with pytest.raises(ImageReadError, match=r"^image\.png: no such file"):
        read()


class Archived:
    """A file in a damaged archive."""

    def __init__(self, error):
        self.error = error

    def read(self):
        raise self.error


def test_files_that_fail_in_their_own_way(images, tmp_path):
    for error in (EOFError("ended before the end-of-stream marker"), zipfile.BadZipFile("bad CRC-32")):
        with pytest.raises(ImageReadError, match=f"^image 0: the given file: cannot be read .*{error}"):
            next(open_images([Archived(error)], ArrayFormat()))
    with tempfile.SpooledTemporaryFile() as unnamed, tempfile.TemporaryFile() as numbered:
        for file in (unnamed, numbered):
            file.write(b"no image")
            file.seek(0)
            with pytest.raises(ImageReadError, match=r"^the given file: is not an image"):
                open_image(file)()


def test_paths_that_cannot_be_any(images, tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(images[0]))

    class BytesPath:
        def __fspath__(self):
            return os.fsencode(tmp_path / "a.png")

    assert image_to_tensor(BytesPath()).shape[1:] == images[0].shape[:2]
    for blank in ("", " "):
        with pytest.raises(ImageError, match=r"^the image must be a path, .* not a blank text"):
            open_image(blank)
    with pytest.raises(ImageReadError, match=r"^data:image/png;base64,A+…: is too long for a path") as raised:
        image_to_tensor("data:image/png;base64," + 9000 * "A")
    assert len(str(raised.value)) < 600
    with pytest.raises(ImageReadError, match=": is a folder, expected an image"):
        image_to_tensor(tmp_path)


def test_damaged_content_is_named(tmp_path):
    (tmp_path / "empty.png").touch()
    at_end, closed = io.BytesIO(b"content"), io.BytesIO()
    at_end.read()
    closed.close()
    wrong = {
        "image 0: the given bytes: is empty": b"",
        "image 1: the given bytes: is not an image": b"<html>404</html>",
        "image 2: the given file: was already read to the end; call file.seek": at_end,
        "image 3: the given file: cannot be read .*closed": closed,
        f"image 4: {tmp_path}/empty.png: was already read to the end": (tmp_path / "empty.png").open("rb"),
        "image 5: none.png: no such file": "none.png",
    }
    opened = open_images(list(wrong.values()), ArrayFormat())
    for number, complaint in enumerate(wrong):
        with pytest.raises(ImageReadError, match=f"^{complaint}"):
            list(open_images([*[np.zeros((2, 2), np.uint8)] * number, wrong[complaint]], ArrayFormat()))[-1]()
    opened.close()
