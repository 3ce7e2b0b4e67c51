"""Images of results: labels laid over an image, with contours, class names, and a legend of names and area shares."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from err_seg.visualization.colors import class_colors
from err_seg.visualization.label_files import Labels
from err_seg.visualization.legend import Entry, add_legend
from err_seg.visualization.regions import Region, find_regions
from err_seg.visualization.text import drawable, first_synonym, shortened

OPACITY = 0.55
CONTOUR_LIGHT = 0.75
# a contour is one pixel wide up to this many pixels of the image's longer side, two up to twice as many, ...
PIXELS_PER_CONTOUR = 1000
UNLABELED_COLOR, UNLABELED_NAME = (255, 255, 255), "none of these"

INK, OUTLINE = (255, 255, 255), (0, 0, 0)  # white with a dark edge can be read on any colour
NAMES_PER_IMAGE = 30  # the largest text is this fraction of the image's shorter side high
SMALLEST, LARGEST = 11, 48
MIN_SHARE = 0.002
"""Of the image's area; a smaller region gets no name."""
WIDE = 0.95
"""Of a region's largest circle; where one is this large, a name may stand."""
Box = tuple[float, float, float, float]


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    vocabulary: Sequence[str],
    *,
    legend: bool = True,
    unlabeled_name: str | None = None,
    names: bool = False,
    opacity: float = OPACITY,
) -> Image.Image:
    """Lay labels over an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        labels: (H, W) integers, indices into the vocabulary; others (an ignore label) stay unpainted.
        vocabulary: class names; a name's colour does not depend on the image.
        legend: add a legend below, largest area first, no taller than the image.
        unlabeled_name: the legend's entry for unpainted pixels; ``None`` leaves them out of it.
        names: also write the names on the regions.
        opacity: of the colours, in 0..1.

    Returns:
        An RGB image, W wide and H high, plus the legend.

    Raises:
        ValueError: image and labels differ in size.
    """
    if image.shape[:2] != labels.shape:
        raise ValueError(f"the image is {image.shape[:2]} (H, W), its labels {labels.shape}; they must be equal")
    colors = class_colors(vocabulary)
    painted = (labels >= 0) & (labels < len(vocabulary))
    photograph = Image.fromarray(image)
    paint = Image.fromarray(colors[np.where(painted, labels, 0)])
    drawn = Image.composite(Image.blend(photograph, paint, opacity), photograph, Image.fromarray(painted))
    _draw_contours(drawn, labels)
    if names:
        write_names(drawn, labels, vocabulary)
    if not legend:
        return drawn
    unpainted = float(1 - painted.mean())
    last = [Entry(UNLABELED_COLOR, unlabeled_name, unpainted)] if unlabeled_name is not None and unpainted > 0 else []
    return add_legend(drawn, legend_entries(labels, vocabulary), last)


def area_shares(labels: np.ndarray, num_classes: int) -> list[tuple[int, float]]:
    """Return the class indices that occur and their shares of all pixels in 0..1, largest first."""
    inside = labels[(labels >= 0) & (labels < num_classes)]
    counts = np.bincount(inside.ravel(), minlength=num_classes)
    order = np.argsort(-counts, kind="stable")
    return [(int(i), float(counts[i] / labels.size)) for i in order if counts[i] > 0]


def legend_entries(labels: np.ndarray, vocabulary: Sequence[str]) -> list[Entry]:
    """List the colour, name and area share of the classes in a label map (H, W), largest first."""
    colors = class_colors(vocabulary).tolist()
    shares = area_shares(labels, len(vocabulary))
    return [Entry(tuple(colors[index]), first_synonym(vocabulary[index]), share) for index, share in shares]


def _draw_contours(image: Image.Image, labels: np.ndarray) -> None:
    """Lighten the pixels whose right or lower neighbour has another label, in an image of the same size, in place."""
    edges = np.zeros(labels.shape, dtype=np.uint8)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    mask = Image.fromarray(edges * round(255 * CONTOUR_LIGHT))
    width = 1 + max(labels.shape) // PIXELS_PER_CONTOUR
    if width > 1:
        mask = mask.filter(ImageFilter.MaxFilter(2 * (width // 2) + 1))
    image.paste((255, 255, 255), mask=mask)


def write_names(image: Image.Image, labels: Labels, vocabulary: Sequence[str]) -> None:
    """Write each region's class name, its first synonym, where the region is widest, in place.

    The arguments are those of :func:`overlay`. The largest regions come first. A name that does not fit into its
    region, or would touch another name, is written smaller, or left out.
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
