"""From an upload and the page's settings to what the page shows: images, tables and files."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from err_seg.data import ImageReadError
from err_seg.jobs.formats import UNLABELED_NAME, Result, kept_by_score
from err_seg.jobs.label_set import UNLABELED, LabelSetError, parse_label_set, split_names
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.visualization.colors import class_colors, hex_color, spread_colors
from err_seg.visualization.overlay import OPACITY, UNLABELED_COLOR, area_shares
from err_seg.visualization.text import first_synonym
from err_seg.web.downloads import PERCENT, Downloads, FileKind, read_upload, shown_size

# Pillow reads many more, some of them, such as EPS, by programs that are not safe with files of strangers
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 40_000_000
MAX_CLASSES = 1000
MAX_TEXT = 100_000
LABELLING_SECONDS = 120
FILE_NAMES: dict[FileKind, str] = {"labels": "labels (PNG)", "overlay": "overlay (PNG)", "coco": "regions (COCO JSON)"}
Rows = list[list[str]]


class Answer(NamedTuple):
    """What the page shows, in the order of its parts.

    Attributes:
        note: a line in HTML.
        pair: the image and its overlay, both RGB and of one size.
        parts: the image with a mask for each class.
        areas: the classes seen, see :func:`area_table`.
        kept: the classes that CRM kept, see :func:`kept_rows`.
        links: where the files are, in HTML.
    """

    note: str
    pair: tuple[Image.Image, Image.Image] | None = None
    parts: gr.AnnotatedImage | None = None
    areas: dict[str, Any] | None = None
    kept: Rows | None = None
    links: str | None = None


def label_upload(
    model: ERRSeg,
    downloads: Downloads,
    path: Path | None,
    names: str,
    background: str,
    threshold: float,
    num_kept: int,
    region_names: bool,
) -> Answer:
    """Label an uploaded image.

    Args:
        model: see :func:`err_seg.load`.
        downloads: what makes the files of results.
        path: the image.
        names, background: class names, see :func:`err_seg.jobs.split_names`.
        threshold: pixels whose highest probability, in 0..1, is below this are none of the classes.
        num_kept: K.
        region_names: write the names on the regions of overlays.

    Raises:
        ImageReadError: no image, a damaged one, or one of too many pixels.
        LabelSetError, VocabularyError: class names that cannot be used, or that take too long.
    """
    if path is None:
        raise ImageReadError("Choose an image first.")
    if (length := len(names) + len(background)) > MAX_TEXT:
        raise LabelSetError(f"class names of {length} characters in all; this page takes up to {MAX_TEXT}")
    label_set = parse_label_set(split_names(names), [background, str(threshold)])
    num_names, classes = len(label_set.vocabulary), label_set.classes
    if num_names > MAX_CLASSES:
        raise LabelSetError(f"{num_names} classes; this page takes up to {MAX_CLASSES}")
    check_image(path)
    start = time.perf_counter()
    image = read_upload(path)
    with register_module_forward_pre_hook(deadline(LABELLING_SECONDS)):  # one image is labelled at a time
        whole = model.predict([image], label_set.vocabulary, num_kept=int(num_kept))[0]
    seconds = time.perf_counter() - start
    note = f"{seconds:.2f} s on {model.device.type}; {len(whole.kept)} of {num_names} classes kept."

    whole = replace(whole, source=None).cpu()  # nothing of the image's own size stays in memory
    result = Result(
        name=path.stem,
        source=path.name,
        image=image,
        segmentation=whole,
        label_set=label_set,
        region_names=region_names,
    )
    size = shown_size(whole.size)
    classes = spread_colors(classes, [row["name"] for row in result.resized(size).table])
    result = replace(result, label_set=replace(label_set, classes=classes))
    shown, key = result.resized(size), downloads.keep(result, path)
    plain = Image.fromarray(shown.image)
    masks, color_map = annotations(shown.labels, classes)
    links = (f'<a download href="results/{key}/{kind}/{PERCENT}">{name}</a>' for kind, name in FILE_NAMES.items())
    return Answer(
        note,
        (plain, shown.overlay(legend=False, names=region_names)),
        gr.AnnotatedImage((plain, masks), color_map=color_map),
        area_table(shown),
        kept_rows(whole),
        f"Download at the image's own size: {' '.join(links)}",
    )


def deadline(seconds: float) -> Callable[..., None]:
    """Return a hook that ends a network at the first layer after so many seconds, with an error."""
    end = time.monotonic() + seconds

    def check(*_: Any) -> None:
        if time.monotonic() > end:
            raise LabelSetError(f"labelling was stopped after {seconds} s; give fewer or shorter class names")

    return check


def check_image(path: Path) -> None:
    """Look at an image's header.

    Raises:
        ImageReadError: it is not an image, not in one of :data:`FORMATS`, or has more pixels than this page takes.
    """
    try:
        with Image.open(path) as image:
            (width, height), kind = image.size, image.format
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ImageReadError(f"{path}: is not an image in a format that can be read, or too large") from error
    if kind not in FORMATS:
        raise ImageReadError(f"{path}: is in the format {kind}; this page takes {', '.join(FORMATS)}")
    if width * height > MAX_PIXELS:
        raise ImageReadError(
            f"{path}: has {width}×{height} pixels; this page takes up to {MAX_PIXELS // 10**6} million"
        )


def annotations(labels: np.ndarray, classes: Sequence[str]) -> tuple[list[tuple[np.ndarray, str]], dict[str, str]]:
    """Turn labels (h, w) into each class's mask (h, w) and legend entry, largest first, and the entries' colours."""
    colors = class_colors(classes)
    masks, color_map = [], {}
    for index, share in area_shares(labels, len(classes)):
        entry = f"{first_synonym(classes[index])} {share:.1%}"
        masks.append(((labels == index).astype(np.float32) * OPACITY, entry))
        color_map[entry] = hex_color(colors[index])
    unlabeled = float((labels == UNLABELED).mean())
    if unlabeled > 0:
        entry = f"{UNLABELED_NAME} {unlabeled:.1%}"
        masks.append((np.zeros(labels.shape, dtype=np.float32), entry))
        color_map[entry] = hex_color(UNLABELED_COLOR)
    return masks, color_map


def area_table(result: Result) -> dict[str, Any]:
    """List the classes seen, the largest first: name, share of the pixels and mean probability, in a Dataframe's form.

    The edge of a name has the colour of its class.
    """
    colors = class_colors(result.label_set.classes)
    rows = [(first_synonym(row["name"]), row["share"], row["score"], colors[row["label"]]) for row in result.table]
    if result.unlabeled:
        rows.append((UNLABELED_NAME, result.unlabeled / result.labels.size, None, UNLABELED_COLOR))
    shown = [[name, f"{share:.1%}", "" if score is None else f"{score:.2f}"] for name, share, score, _ in rows]
    styles = [[f"border-left: 1em solid {hex_color(color)}", "", ""] for *_, color in rows]
    # the numbers are what the table is sorted by
    return {"data": [[*row[:3]] for row in rows], "metadata": {"display_value": shown, "styling": styles}}


def kept_rows(result: Segmentation) -> Rows:
    """List the kept classes and their CRM scores, the highest first."""
    return [[first_synonym(name), f"{score:.1f}"] for name, score in kept_by_score(result)]
