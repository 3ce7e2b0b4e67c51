"""Class names, written on the regions of an image."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from err_seg.visualization.label_files import Labels
from err_seg.visualization.regions import Region, find_regions
from err_seg.visualization.text import drawable, first_synonym, shortened

INK, OUTLINE = (255, 255, 255), (0, 0, 0)  # white with a dark edge can be read on any colour
NAMES_PER_IMAGE = 30  # the largest text is this fraction of the image's shorter side high
SMALLEST, LARGEST = 11, 48
MIN_SHARE = 0.002
"""Of the image's area; a smaller region gets no name."""
WIDE = 0.95
"""Of a region's largest circle; where one is this large, a name may stand."""
Box = tuple[float, float, float, float]


def write_names(image: Image.Image, labels: Labels, vocabulary: Sequence[str]) -> None:
    """Write each region's class name where the region is widest, in place.

    The largest regions come first. A name that does not fit into its region, or would touch another name, is written
    smaller, or left out.

    Args:
        image: RGB.
        labels: (H, W) integers, as large as the image, indices into the vocabulary; others have no name.
        vocabulary: class names; the first synonym is written.
    """
    largest = min(max(SMALLEST, round(min(image.size) / NAMES_PER_IMAGE)), LARGEST)
    draw, taken = ImageDraw.Draw(image), list[Box]()
    for region in find_regions(labels, vocabulary, min_area=max(1, round(MIN_SHARE * labels.size))):
        x, y, radius = _widest_place(region)
        for size in range(largest, SMALLEST - 1, -1):
            text, font = drawable(shortened(first_synonym(region.name)), size)
            width = font.getlength(text)
            box = (x - width / 2, y - 0.6 * size, x + width / 2, y + 0.6 * size)
            if 0.6 * size <= radius and width <= region.box[2] and _is_free(box, taken, image.size):
                edge = max(1, size // 8)
                draw.text((x, y), text, INK, font, anchor="mm", stroke_width=edge, stroke_fill=OUTLINE)
                taken.append(box)
                break


def _widest_place(region: Region) -> tuple[float, float, float]:
    """Return x, y and radius of nearly the largest circle within a region, in the middle where several are as large."""
    distances = cv2.distanceTransform(np.pad(region.mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    places = np.argwhere(distances >= WIDE * distances.max())
    y, x = places[np.square(places - places.mean(axis=0)).sum(axis=1).argmin()].tolist()
    return region.box[0] + x - 0.5, region.box[1] + y - 0.5, float(distances[y, x])


def _is_free(box: Box, taken: Sequence[Box], size: tuple[int, int]) -> bool:
    left, top, right, bottom = box
    if left < 0 or top < 0 or right > size[0] or bottom > size[1]:
        return False
    return not any(left < r and right > x and top < b and bottom > y for x, y, r, b in taken)
