"""Images of results: labels laid over an image, with contours and a legend of class names and area shares."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from err_seg.visualization.colors import class_colors
from err_seg.visualization.legend import Entry, add_legend
from err_seg.visualization.region_names import write_names
from err_seg.visualization.text import first_synonym

OPACITY = 0.55
CONTOUR_LIGHT = 0.75
# a contour is one pixel wide up to this many pixels of the image's longer side, two up to twice as many, ...
PIXELS_PER_CONTOUR = 1000
UNLABELED_COLOR = (255, 255, 255)


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
