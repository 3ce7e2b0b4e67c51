"""Progressive JPEGs whose number of scans is an attack."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from err_seg.data import ImageReadError, read_image
from err_seg.data.images import MOST_SCANS


def jpeg(scans, kind="RGB", **options):
    """Return a progressive JPEG of so many scans more than the usual ones, and its pixels."""
    image = Image.radial_gradient("L").convert(kind)
    image.save(file := io.BytesIO(), "JPEG", progressive=True, **options)
    content = file.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * scans + content[-2:]


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK"])
def test_many_scans_are_refused(kind):
    """Five thousand took minutes."""
    began = time.process_time()
    with pytest.raises(ImageReadError, match=r"big.jpg: is a JPEG of 50\d\d scans; up to 100 are read: save the image"):
        read_image(jpeg(5000, kind), "big.jpg")
    assert time.process_time() - began < 2


def test_usual_scans_are_read():
    """Also beside data that look like scans: a telephone's video behind the image, and what no decoder reads."""
    plain = read_image(jpeg(0))
    np.testing.assert_array_equal(read_image(jpeg(0) + b"\xff\xda" * 2 * MOST_SCANS), plain)
    np.testing.assert_array_equal(read_image(jpeg(0, comment=b"\xff\xda" * 2 * MOST_SCANS)), plain)
    read_image(jpeg(MOST_SCANS - 20))
