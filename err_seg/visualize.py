"""Pictures of results: labels laid over a picture, with contours and a legend of class names and area shares."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from err_seg.colors import class_colors

OPACITY = 0.55
CONTOUR_LIGHT = 0.6
LEGEND_ENTRIES = 24
BACKGROUND, INK = (255, 255, 255), (30, 30, 30)


def overlay(picture: np.ndarray, labels: np.ndarray, vocabulary: Sequence[str], *, legend: bool = True) -> Image.Image:
    """Lay labels over a picture.

    Args:
        picture: (H, W, 3) uint8 RGB.
        labels: (H, W) integers, indices into the vocabulary; others (an ignore label) stay unpainted.
        vocabulary: class names; a name's colour does not depend on the picture.
        legend: add a legend below, largest area first.

    Returns:
        An RGB image, W wide and H high, plus the legend.

    Raises:
        ValueError: picture and labels differ in size.
    """
    if picture.shape[:2] != labels.shape:
        raise ValueError(f"the picture is {picture.shape[:2]} (H, W), its labels {labels.shape}; they must be equal")
    colors = class_colors(vocabulary)
    painted = (labels >= 0) & (labels < len(vocabulary))
    paint = colors[np.where(painted, labels, 0)]
    opacity = np.where(painted, OPACITY, 0.0)[..., None]
    blended = picture * (1 - opacity) + paint * opacity
    blended = np.where(contours(labels)[..., None], blended * (1 - CONTOUR_LIGHT) + 255 * CONTOUR_LIGHT, blended)
    image = Image.fromarray(blended.round().astype(np.uint8))
    return _with_legend(image, labels, vocabulary, colors) if legend else image


def contours(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels whose right or lower neighbour has another label: (H, W) to (H, W) bool."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def area_shares(labels: np.ndarray, num_classes: int) -> list[tuple[int, float]]:
    """Return the class indices that occur and their shares of all pixels in 0..1, largest first."""
    inside = labels[(labels >= 0) & (labels < num_classes)]
    counts = np.bincount(inside.ravel(), minlength=num_classes)
    order = np.argsort(-counts, kind="stable")
    return [(int(i), float(counts[i] / labels.size)) for i in order if counts[i] > 0]


def _with_legend(image: Image.Image, labels: np.ndarray, vocabulary: Sequence[str], colors: np.ndarray) -> Image.Image:
    """Append a legend in as many columns as the picture's width allows."""
    shares = area_shares(labels, len(vocabulary))
    size = max(11, round(image.width / 45))
    font = ImageFont.load_default(size)
    texts = [f"{vocabulary[i].split(', ')[0].strip()}  {share:.1%}" for i, share in shares[:LEGEND_ENTRIES]]
    swatches = [tuple(int(c) for c in colors[i]) for i, _ in shares[:LEGEND_ENTRIES]]
    if len(shares) > LEGEND_ENTRIES:
        rest = sum(share for _, share in shares[LEGEND_ENTRIES:])
        texts.append(f"{len(shares) - LEGEND_ENTRIES} more  {rest:.1%}")
        swatches.append((200, 200, 200))

    line, padding = round(size * 1.6), size
    width = max((round(font.getlength(text)) for text in texts), default=0) + round(size * 2.6)
    columns = max(1, (image.width - padding) // width)
    rows = -(-len(texts) // columns)
    canvas_width = max(image.width, width + padding)
    canvas = Image.new("RGB", (canvas_width, image.height + rows * line + 2 * padding // 2), BACKGROUND)
    canvas.paste(image, ((canvas_width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (text, swatch) in enumerate(zip(texts, swatches, strict=True)):
        column, row = divmod(number, rows)
        x, y = padding // 2 + column * width, image.height + padding // 2 + row * line
        draw.rounded_rectangle((x, y + 0.2 * line, x + size, y + 0.2 * line + size), radius=size // 4, fill=swatch)
        draw.text((x + 1.5 * size, y + line / 2), text, fill=INK, font=font, anchor="lm")
    return canvas
