"""Regions that are most worth a look: parts of an image whose labels are doubtful, with thumbnails."""

import base64
import io
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from err_seg.jobs.label_set import UNLABELED
from err_seg.prediction.segmentation import Segmentation
from err_seg.visualization.regions import Region, find_regions
from err_seg.visualization.text import first_synonym

DOUBTFUL = 0.9
"""Pixels of less confidence are shown; chosen on validation scenes of the miniature world."""
OF_AN_IMAGE = 20
THUMBNAIL, CONTEXT, LEAST_SIDE = 320, 0.5, 48  # pixels; margin over the region's longer side; pixels of the image
DARKER = 0.45


def doubtful_regions(trust: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> list[Region]:
    """Find the connected doubtful parts of classes, first those in which most pixels are expected to be wrong.

    Args:
        trust: (H, W) in 0..1, such as confidence.
        labels: (H, W) indices of ``classes``; others are not looked at.
        classes: their names.
    """
    regions = find_regions(np.where(trust < DOUBTFUL, labels, UNLABELED), classes, trust)
    return sorted(regions, key=expected_errors, reverse=True)


def expected_errors(region: Region) -> float:
    """Return how many pixels of a region are expected to be wrong: those that its scores leave open."""
    return region.area * (1 - (region.score or 0))


def review_part(
    segmentation: Segmentation, image: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Describe an image's most doubtful regions, for the page of the whole job.

    What counts is confidence if the result is calibrated, else its lead, of which the order of pixels is the same.
    """
    is_calibrated = segmentation.calibration is not None
    trust = segmentation.confidence if is_calibrated else segmentation.lead
    regions = doubtful_regions(trust.cpu().numpy(), labels, classes)
    cards = [
        {
            "errors": expected_errors(region),
            "classes": [{"name": first_synonym(region.name), "share": region.score}],
            "about": f"or {next_best(segmentation, region)}? {region.area:,} pixels at {region.box[0]}, {region.box[1]}"
            + f"; about {expected_errors(region):,.0f} wrong" * is_calibrated,
            "thumbnail": thumbnail(image, region),
        }
        for region in regions[:OF_AN_IMAGE]
    ]
    return {"cards": cards, "found": len(regions), "calibrated": is_calibrated}


def next_best(segmentation: Segmentation, region: Region) -> str:
    """Return the name of the class that is the second most probable one in a region on average."""
    maps, kept = segmentation.probabilities.cpu(), segmentation.kept.cpu()
    mask = whole_mask(region, segmentation.size).astype(np.float32)
    weights = torch.from_numpy(cv2.resize(mask, maps.shape[:0:-1], interpolation=cv2.INTER_AREA))
    means = torch.einsum("khw,hw->k", maps, weights).masked_fill(kept == region.label, -1)
    return first_synonym(segmentation.names[kept[means.argmax()]]) if len(kept) > 1 else "none of the words"


def thumbnail(image: np.ndarray, region: Region) -> str:
    """Draw the part of an image (H, W, 3) around a region, darker outside of it: a JPEG in base64."""
    x, y, width, height = region.box
    side = max(LEAST_SIDE, round((1 + CONTEXT) * max(width, height)))
    left, top = (max(0, start + (size - side) // 2) for start, size in ((x, width), (y, height)))
    part = (slice(top, top + side), slice(left, left + side))
    light = np.where(whole_mask(region, image.shape[:2])[part], 1, DARKER)[..., None]
    cut = Image.fromarray((np.asarray(image)[part] * light).astype(np.uint8))
    scale = THUMBNAIL / max(cut.size)
    shown = cut.resize((round(scale * cut.width), round(scale * cut.height)))
    draw = ImageDraw.Draw(shown)
    for ring in (ring for polygon in region.outlines() for ring in polygon):
        draw.line([tuple(point) for point in scale * (ring - (left, top))], fill="white", width=2)
    shown.save(file := io.BytesIO(), format="JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode("ascii")


def whole_mask(region: Region, size: tuple[int, ...]) -> np.ndarray:
    """Return (H, W) bool: which pixels of an image of that size belong to a region."""
    x, y, width, height = region.box
    mask = np.zeros(size, bool)
    mask[y : y + height, x : x + width] = region.mask
    return mask
