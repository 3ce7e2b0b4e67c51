"""Predictions as files: label maps as PNG and GeoTIFF (``err_seg[geo]``), segments as COCO's run-length JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
from numpy.typing import NDArray
from PIL import Image

from err_seg.utils.files import atomic_write
from err_seg.utils.images import save_image
from err_seg.visualization.colors import class_colors

Labels = NDArray[np.integer[Any]]


class GeoreferenceError(ValueError):
    """An image that is not georeferenced; the message names it."""


def save_label_png(
    labels: Labels, path: str | Path, class_names: Sequence[str], *, ignore_label: int | None = None
) -> None:
    """Write a label map as a PNG file that holds class indices, complete or not at all.

    Up to 255 classes: 8 bit with a palette of :func:`~err_seg.visualization.colors.class_colors`, so that viewers show
    colours and programs read indices; 255 (black) means no class. More classes: 16-bit grey; 65535 means no class. Both
    are the conventions of the benchmarks' label files.

    Args:
        labels: (H, W) integers, 0..N-1.
        path: file to write; an existing one is replaced.
        class_names: N names, in label order.
        ignore_label: a further value that ``labels`` may hold, written as no class.

    Raises:
        ValueError: for another shape, or a value that is neither a class nor ``ignore_label``.
    """
    stored = stored_labels(labels, _check_labels(labels, len(class_names), ignore_label), len(class_names), path)
    image = Image.fromarray(stored)
    if stored.dtype == np.uint8:
        palette = np.zeros((256, 3), dtype=np.uint8)
        palette[: len(class_names)] = class_colors(class_names)
        image.putpalette(palette.tobytes())
    save_image(image, path, "PNG")


def save_geotiff(labels: Labels, names: Sequence[str], source: str, path: Path) -> None:
    """Write a label map with the coordinate system and the location of its image, complete or not at all.

    Args:
        labels: (H, W) integers; negative ones (no class) become "no data": 255, or 65535 in 16 bits.
        names: of the classes; up to 255 are written in 8 bits and with their colours.
        source: the image, a georeferenced file; its corners are those of the label map.
        path: the file to write.

    Raises:
        GeoreferenceError: the image is not a georeferenced file.
        OSError: the file cannot be written.
    """
    import rasterio

    if not Path(source).is_file():
        raise GeoreferenceError(f"{source}: is not a file and so not georeferenced; write --format labels instead")
    try:
        with rasterio.open(source) as image:
            crs, transform, size = image.crs, image.transform, (image.height, image.width)
    except rasterio.errors.RasterioIOError as error:
        raise GeoreferenceError(f"{source}: cannot be read as a map ({error})") from error
    if crs is None:
        raise GeoreferenceError(f"{source}: is not georeferenced; write --format labels instead")
    height, width = labels.shape
    transform = transform * transform.scale(size[1] / width, size[0] / height)
    stored = stored_labels(labels, labels < 0, len(names), path)
    profile = {
        **{"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": stored.dtype, "crs": crs},
        **{"transform": transform, "nodata": np.iinfo(stored.dtype).max, "compress": "deflate", "tiled": True},
    }
    with atomic_write(path) as temporary, rasterio.open(temporary, "w", **profile) as file:
        file.write(stored, 1)
        file.update_tags(1, **{f"CLASS_{label}": name for label, name in enumerate(names)})
        if stored.dtype == np.uint8:
            file.write_colormap(1, {label: tuple(color) for label, color in enumerate(class_colors(names).tolist())})


def stored_labels(labels: Labels, ignored: NDArray[np.bool_], num_classes: int, path: str | Path) -> Labels:
    """Return labels (H, W) in 8 bits, in 16 for more than 255 classes; ignored pixels get the largest value.

    Raises:
        ValueError: there are more classes than a file (``path``) with 16 bits can hold.
    """
    for kind in (np.uint8, np.uint16):
        if num_classes <= (most := np.iinfo(kind).max):
            return np.where(ignored, kind(most), labels.astype(kind))
    raise ValueError(f"{path}: a file of labels holds at most {most} classes, found {num_classes}")


def rle_segments(
    labels: Labels,
    file_name: str,
    class_names: Sequence[str],
    *,
    category_ids: Sequence[int] | None = None,
    scores: Mapping[int, float] | None = None,
    ignore_label: int | None = None,
) -> list[dict[str, Any]]:
    """Cut a label map into run-length coded segments, one per class that occurs.

    The layout is that of COCO results and of detectron2's ``sem_seg_predictions.json``, with the additional keys
    ``category_name``, ``area`` and ``score``.

    Args:
        labels, class_names: as for :func:`save_label_png`.
        file_name: the image's file name.
        category_ids: N ids of the data set, in label order; by default the label itself.
        scores: label to confidence; segments of labels that are not in it have no key ``score``.
        ignore_label: a further value that ``labels`` may hold; it gets no segment.

    Returns:
        Segments in label order: ``file_name``, ``category_id``, ``category_name``, ``segmentation`` ({"size": [H, W],
        "counts": str}, COCO's compressed coding), ``area`` in pixels and, if known, ``score``.

    Raises:
        ValueError: as for :func:`save_label_png`, or there are not N category ids.
    """
    ignored = _check_labels(labels, len(class_names), ignore_label)
    ids = range(len(class_names)) if category_ids is None else category_ids
    if len(ids) != len(class_names):
        raise ValueError(f"expected a category id for each of {len(class_names)} classes, found {len(ids)}")
    segments = []
    for label in np.unique(labels[~ignored]).tolist():
        mask = labels == label
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        segment = {
            "file_name": file_name,
            "category_id": int(ids[label]),
            "category_name": class_names[label],
            "segmentation": {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")},
            "area": int(mask.sum()),
        }
        if scores is not None and label in scores:
            segment["score"] = float(scores[label])
        segments.append(segment)
    return segments


def save_rle_json(segments: Iterable[Mapping[str, Any]], path: str | Path) -> int:
    """Write segments of any number of images as one JSON list, one segment per line, complete or not at all.

    Segments are written as they come, so that a generator over thousands of images needs no memory for them.

    Returns:
        The number of segments written.
    """
    count = 0
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")
        for count, segment in enumerate(segments, start=1):
            file.write(("\n" if count == 1 else ",\n") + json.dumps(segment, ensure_ascii=False, allow_nan=False))
        file.write("\n]\n")
    return count


def _check_labels(labels: Labels, num_classes: int, ignore_label: int | None) -> NDArray[np.bool_]:
    """Check a label map, and return (H, W) bool: where it holds ``ignore_label``."""
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"a label map is an (H, W) array of integers, found {labels.dtype} {labels.shape}")
    ignored = np.zeros(labels.shape, dtype=bool) if ignore_label is None else labels == ignore_label
    wrong = ~ignored & ((labels < 0) | (labels >= num_classes))
    if wrong.any():
        y, x = np.argwhere(wrong)[0].tolist()
        allowed = f"0..{num_classes - 1}" + ("" if ignore_label is None else f" or {ignore_label}")
        raise ValueError(f"the label map holds {labels[y, x]} at row {y}, column {x}, expected {allowed}")
    return ignored
