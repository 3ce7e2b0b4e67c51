"""Files of run-length coded segments, read again: the inverse of what the package writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
from numpy.typing import NDArray


def labels_from_rle(
    segments: Sequence[Mapping[str, Any]], *, category_ids: Sequence[int] | None = None, nothing: int = -1
) -> NDArray[np.int64]:
    """Put one image's segments together again: the inverse of :func:`rle_segments`.

    Args:
        segments: at least one; where they overlap, the later one counts.
        category_ids: as given to :func:`rle_segments`.
        nothing: value of pixels in no segment.

    Returns:
        (H, W) int64.

    Raises:
        ValueError: there is no segment, segments are of different images or sizes, or a category is unknown.
    """
    images = {(segment["file_name"], *segment["segmentation"]["size"]) for segment in segments}
    if len(images) != 1:
        raise ValueError(f"expected the segments of one image, found {len(images)}: {sorted(images)[:3]}")
    label_of = None if category_ids is None else {category: label for label, category in enumerate(category_ids)}
    labels = np.full(segments[0]["segmentation"]["size"], nothing, dtype=np.int64)
    for segment in segments:
        category = segment["category_id"]
        if label_of is not None and category not in label_of:
            raise ValueError(f"{segment['file_name']}: category id {category} is not among the given category ids")
        label = category if label_of is None else label_of[category]
        labels[mask_utils.decode(segment["segmentation"]).astype(bool)] = label
    return labels


def load_rle_json(path: str | Path) -> list[dict[str, Any]]:
    """Read the list of segments in a file of :func:`save_rle_json` (or detectron2's ``sem_seg_predictions.json``).

    Raises:
        ValueError: the file is not a JSON list of segments; the message names the file.
    """
    try:
        segments = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    needed = {"file_name", "category_id", "segmentation"}
    if not isinstance(segments, list) or not all(isinstance(s, dict) and needed <= s.keys() for s in segments):
        raise ValueError(f"{path} must hold a list of objects with {', '.join(sorted(needed))}")
    return segments
