"""From an upload and the page's settings to what the page shows: images, tables and files."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image
from torch.nn.modules.module import register_module_forward_pre_hook

from err_seg.data import ImageReadError
from err_seg.jobs.formats import Result, kept_by_score
from err_seg.jobs.label_set import UNLABELED, LabelSetError, parse_label_set, split_names
from err_seg.prediction.contrast import AUTO, NONE
from err_seg.prediction.examples import Exemplar
from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import Vocabulary
from err_seg.visualization.colors import class_colors, hex_color, spread_colors
from err_seg.visualization.overlay import OPACITY, UNLABELED_COLOR, UNLABELED_NAME
from err_seg.visualization.text import first_synonym
from err_seg.web.files import PERCENT, Downloads, FileKind, read_upload, shown_size

# Pillow reads many more, some of them, such as EPS, by programs that are not safe with files of strangers
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 40_000_000
MAX_CLASSES = 1000
MAX_TEXT = 100_000
LABELLING_SECONDS = 120
HALF_WHITE = 127
FILE_NAMES: dict[FileKind, str] = {"labels": "labels (PNG)", "overlay": "overlay (PNG)", "coco": "regions (COCO JSON)"}


class Answer(NamedTuple):
    """What the page shows, in the order of its parts.

    Attributes:
        note: a line in HTML.
        pair: the image and its overlay, both RGB and of one size.
        parts: the image with a mask for each class.
        areas: the classes seen, see :func:`classes_seen`.
        kept: the classes that CRM kept and their scores, the highest first.
        links: where the files are, in HTML.
    """

    note: str
    pair: tuple[Image.Image, Image.Image] | None = None
    parts: gr.AnnotatedImage | None = None
    areas: dict[str, Any] | None = None
    kept: list[list[str]] | None = None
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
    contrast: bool,
    *,
    example: tuple[str, Path | None, Path | None] = ("", None, None),
) -> Answer:
    """Label an uploaded image, and let ``downloads`` keep the result.

    Args:
        model, downloads, path: the network, the results of all visitors, and the image.
        names, background: class names, see :func:`err_seg.jobs.split_names`; "auto" for the model's common names.
        threshold: pixels whose highest probability, in 0..1, is below this are none of the classes.
        num_kept, region_names: K, and whether overlays have names on their regions.
        contrast: whether few classes compete with the common names, see :meth:`err_seg.ERRSeg.predict`.
        example: the name of a class by example, its image, and its mask, white where the image shows it.

    Raises:
        ImageReadError: no image, a damaged one, or one of too many pixels.
        ArgumentError: the mask does not fit the example.
        LabelSetError, VocabularyError: class names that cannot be used, or that take too long.
    """
    if path is None:
        raise ImageReadError("Choose an image first.")
    if (length := len(names) + len(background)) > MAX_TEXT:
        raise LabelSetError(f"class names of {length} characters in all; this page takes up to {MAX_TEXT}")
    given = model.common_names()[0] if names.strip() == AUTO else split_names(names)
    name, *marked = example
    if all(marked):
        given = with_example(model, given, name.strip(), *filter(None, marked))
    label_set = parse_label_set(given, [background, str(threshold)])
    num_names = len(label_set.vocabulary)
    if num_names > MAX_CLASSES:
        raise LabelSetError(f"{num_names} classes; this page takes up to {MAX_CLASSES}")
    check_image(path)
    start = time.perf_counter()
    image = read_upload(path)
    with register_module_forward_pre_hook(deadline(LABELLING_SECONDS)):  # one image is labelled at a time
        competing = None if contrast else NONE
        whole = model.predict([image], label_set.vocabulary, num_kept=int(num_kept), contrast=competing)[0]
    seconds = time.perf_counter() - start
    note = f"{seconds:.2f} s on {model.device.type}; {len(whole.kept)} of {len(whole.names)} classes kept."
    note += f" {whole.contrast}." if whole.contrast.names else ""

    whole = replace(whole, source=None).cpu()  # nothing of the image's own size stays in memory
    result = Result(
        name=path.stem,
        source=path.name,
        image=image,
        segmentation=whole,
        label_set=label_set,
        region_names=region_names,
    )
    shown = result.resized(shown_size(whole.size))
    label_set = replace(label_set, classes=spread_colors(label_set.classes, [row["name"] for row in shown.table]))
    shown, key = replace(shown, label_set=label_set), downloads.keep(replace(result, label_set=label_set), path)
    parts, areas = classes_seen(shown)
    links = (f'<a download href="results/{key}/{kind}/{PERCENT}">{name}</a>' for kind, name in FILE_NAMES.items())
    return Answer(
        note,
        (Image.fromarray(shown.image), shown.overlay(legend=False, names=region_names)),
        parts,
        areas,
        [[first_synonym(name), f"{score:.1f}"] for name, score in kept_by_score(whole)],
        f"Download at the image's own size: {' '.join(links)}",
    )


def with_example(model: ERRSeg, names: Vocabulary, name: str, image: Path, mask: Path) -> Vocabulary:
    """Add a class by example to class names, or let it take the place of one; see :func:`label_upload`."""
    if not name:
        raise LabelSetError("Give the class by example a name.")
    for path in (image, mask):
        check_image(path)
    exemplar = Exemplar(read_upload(image), read_upload(mask)[:, :, 0] > HALF_WHITE)
    with register_module_forward_pre_hook(deadline(LABELLING_SECONDS)):
        return model.vocabulary_with_examples(names, {name: [exemplar]}, use_names=False)


def deadline(seconds: float) -> Callable[..., None]:
    """Return a hook that ends this thread's network at the first layer after so many seconds, with an error."""
    thread, end = threading.get_ident(), time.monotonic() + seconds

    def check(*_: Any) -> None:
        if threading.get_ident() == thread and time.monotonic() > end:
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


def classes_seen(result: Result) -> tuple[gr.AnnotatedImage, dict[str, Any]]:
    """Show the classes seen, the largest first, and the pixels of none of them, which stay unpainted.

    Returns:
        The image with a mask for each, and a table in a Dataframe's form: name, share of the pixels and mean
        probability. The edge of a name has the colour of its class.
    """
    colors = [*map(hex_color, class_colors(result.label_set.classes)), hex_color(UNLABELED_COLOR)]  # UNLABELED is -1
    none = {"name": UNLABELED_NAME, "label": UNLABELED, "share": result.unlabeled / result.labels.size, "score": None}
    masks, legend, data, shown, styles = [], {}, [], [], []
    for row in [*result.table, *([none] if result.unlabeled else [])]:
        name, label, share, score = first_synonym(row["name"]), row["label"], row["share"], row["score"]
        entry = f"{name} {share:.1%}"
        legend[entry] = colors[label]
        masks.append(((result.labels == label) * np.float32(0 if label == UNLABELED else OPACITY), entry))
        data.append([name, share, score])  # numbers, by which the table is sorted
        shown.append([name, f"{share:.1%}", "" if score is None else f"{score:.2f}"])
        styles.append([f"border-left: 1em solid {colors[label]}", "", ""])
    annotated = gr.AnnotatedImage((Image.fromarray(result.image), masks), color_map=legend)
    return annotated, {"data": data, "metadata": {"display_value": shown, "styling": styles}}
