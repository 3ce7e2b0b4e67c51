"""Image grids: any images beside what is predicted for any lists of words, by any models (paper, Fig. 8 to 10)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import Color, Vocabulary, name_key
from err_seg.text.vocabularies import synonym_key
from err_seg.visualization.grid import CELL, HEADING_TEXT, GridRow, fitting_size, lay_out
from err_seg.visualization.legend import FAINT, Entry
from err_seg.visualization.overlay import OPACITY, area_shares, legend_entries, overlay
from err_seg.visualization.text import first_synonym, shortened, text_width

HEADING_LINES = 4
# classes with a smaller share of the area are not named one by one
LEAST_AREA = 0.005
OTHERS_COLOR = (255, 255, 255)
# of the image beneath the labels; two coats of paint leave little of it, so that similar classes can be told apart
MIDDLE_GRAY, CONTRAST = 150, 0.8
# finer shades would hardly show through, but make files half as large again
GRAY_STEP = 16
BENEATH = (1 - OPACITY) ** 2


@dataclass(frozen=True)
class Column:
    """A column of label maps.

    Attributes:
        vocabulary: class names.
        labels: one map per image, (h, w) integers of any size in the image's aspect ratio: indices into the
            vocabulary, all others unpainted.
        title: a line above the column; the names themselves follow it where ``lists_names``.
        lists_names: whether the heading lists the vocabulary, as far as it has room.
    """

    vocabulary: tuple[str, ...]
    labels: Sequence[np.ndarray]
    title: str = ""
    lists_names: bool = True


def predict_column(
    model: ERRSeg,
    images: Sequence[np.ndarray],
    vocabulary: Sequence[str],
    *,
    num_kept: int | None = None,
    title: str = "",
    cell: int = CELL,
) -> Column:
    """Predict a column of a grid, from images (H, W, 3) uint8 RGB; ``cell`` is the grid's, ``num_kept`` replaces K."""
    results = model.predict(images, vocabulary, num_kept=num_kept, contrast="none")
    sizes = [fitting_size((image.shape[1], image.shape[0]), cell) for image in images]
    labels = [r.resized((h, w)).labels.cpu().numpy() for r, (w, h) in zip(results, sizes, strict=True)]
    return Column(tuple(vocabulary), labels, title)


def image_grid(images: Sequence[np.ndarray], columns: Sequence[Column], cell: int = CELL) -> Image.Image:
    """Draw one row per image: the image, then each column's labels laid over it in gray, and below what they show.

    A name has one colour in the whole grid. Images are (H, W, 3) uint8 RGB; ``cell`` is the columns' width in pixels.

    Raises:
        ValueError: no images, or a column with another number of label maps.
    """
    if not images:
        raise ValueError("an image grid needs at least one image")
    for column in columns:
        if len(column.labels) != len(images):
            raise ValueError(f"{len(column.labels)} label maps in a column for {len(images)} images")
    names = _shown_names(columns)
    places = {synonym_key(name): place for place, name in enumerate(names)}
    rows = []
    for number, image in enumerate(images):
        size = fitting_size((image.shape[1], image.shape[0]), cell)
        small = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
        gray = _pale_gray(small)
        panels, legends = [small], [list[Entry]()]
        for column in columns:
            # the last is for pixels of no class
            own = np.array([*(places.get(synonym_key(name), -1) for name in column.vocabulary), -1])
            label_map = Image.fromarray(column.labels[number].astype(np.int32))
            labels = np.asarray(label_map.resize(size, Image.Resampling.NEAREST))
            labels = own[np.where((labels >= 0) & (labels < len(own)), labels, -1)]
            coat = np.asarray(overlay(gray, labels, names, legend=False))
            panels.append(overlay(coat, labels, names, legend=False))
            legends.append(_legend(labels, names))
        rows.append(GridRow(panels, legends))
    return lay_out([["image"], *(_heading(column, cell) for column in columns)], rows, cell=cell)


def _shown_names(columns: Sequence[Column]) -> Vocabulary:
    """List the names that any label map shows, so that the best separated colours are not spent on others."""
    names: dict[str, str] = {}
    colors: dict[str, Color] = {}
    for column in columns:
        own = Vocabulary(column.vocabulary).colors
        colors |= {synonym_key(name): own[name_key(name)] for name in column.vocabulary if name_key(name) in own}
        for labels in column.labels:
            for index, _ in area_shares(labels, len(column.vocabulary)):
                names.setdefault(synonym_key(column.vocabulary[index]), first_synonym(column.vocabulary[index]))
    return Vocabulary(names.values(), {key: color for key, color in colors.items() if key in names})


def _pale_gray(image: Image.Image) -> np.ndarray:
    """Return an image in gray, on which every class looks as its square in the legend does."""
    gray = np.asarray(image.convert("L"), dtype=np.float32) // GRAY_STEP * GRAY_STEP
    return np.repeat(np.round(MIDDLE_GRAY + CONTRAST * (gray - 128)).astype(np.uint8)[..., None], 3, axis=2)


def _legend(labels: np.ndarray, names: tuple[str, ...]) -> list[Entry]:
    """Name what a label map shows, largest area first, the rarest classes together."""
    found = legend_entries(labels, names)
    entries = []
    for entry in found:
        if entry.share and entry.share >= LEAST_AREA:
            red, green, blue = (round((1 - BENEATH) * c + BENEATH * MIDDLE_GRAY) for c in entry.color)
            entries.append(Entry((red, green, blue), entry.name))
    if rest := len(found) - len(entries):
        entries.append(Entry(OTHERS_COLOR, f"{rest} more below {LEAST_AREA:.1%}", ink=FAINT))
    return entries


def _heading(column: Column, cell: int) -> list[str]:
    """Wrap a column's title and names into lines; the last one says how many names it leaves out."""
    lines = [column.title] if column.title else []
    if not column.lists_names:
        return lines
    room = HEADING_LINES + len(lines)
    names = [shortened(first_synonym(name)) for name in column.vocabulary]
    while names:
        taken = 1
        while taken < len(names) and text_width(", ".join(names[: taken + 1]) + ",", HEADING_TEXT) <= cell:
            taken += 1
        if len(lines) == room - 1 and taken < len(names):
            return [*lines, f"… {len(names)} more"]
        lines.append(", ".join(names[:taken]) + ("," if taken < len(names) else ""))
        names = names[taken:]
    return lines
