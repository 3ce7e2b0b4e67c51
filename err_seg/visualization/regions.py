"""The connected parts of a label map: areas, boxes, outlines, and the formats that other programs read them in."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import contourpy
import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from err_seg.visualization.label_files import Labels

Ring = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a label map in which pixels of one class touch each other by their sides.

    Attributes:
        label: the class.
        name: its name.
        area: in pixels.
        box: (x, y, width, height) in pixels.
        score: mean probability of the class in it, in 0..1; ``None`` where scores were not given.
        mask: (height, width) bool, which pixels of the box belong to it.
    """

    label: int
    name: str
    area: int
    box: tuple[int, int, int, int]
    score: float | None
    mask: NDArray[np.bool_]

    def outlines(self, simplify: float = 0.0) -> list[list[Ring]]:
        """Trace it: polygons, here always one, each its outer ring and then its holes.

        A ring is (N, 2), x and y, the last point equal to the first; outer rings have a positive signed area, holes a
        negative one. The image's upper left corner is (0, 0), and a pixel is 1 wide. Outlines run along the pixels'
        sides, so the regions of a label map cover it without gaps and overlaps. No ring crosses or touches itself.

        Args:
            simplify: how far an outline may move, in pixels, to have fewer points: neighbours then no longer fit
                exactly. One that would have fewer than three stays as it is. From about 1 on, outlines of very thin or
                jagged parts may cross themselves.
        """
        corner = np.array(self.box[:2], dtype=np.float64)
        return [[_simplified(ring + corner, simplify) for ring in _rings(self.mask)]]


def find_regions(
    labels: Labels, names: Sequence[str], scores: NDArray[np.float32] | None = None, *, min_area: float = 1
) -> list[Region]:
    """Cut a label map into its connected parts, the largest first.

    Args:
        labels: (H, W) integers; values that are no index of ``names`` belong to no region.
        names: of the classes.
        scores: (H, W), each pixel's probability of its class.
        min_area: leave out what has fewer pixels.
    """
    shown = [label for label in np.unique(labels).tolist() if 0 <= label < len(names)]
    regions = [region for label in shown for region in _parts(labels, label, names[label], scores)]
    return sorted((region for region in regions if region.area >= min_area), key=lambda region: -region.area)


def _parts(labels: Labels, label: int, name: str, scores: NDArray[np.float32] | None) -> Iterator[Region]:
    mask = (labels == label).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    mask = mask[top : top + height, left : left + width]
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if scores is not None:
        own = scores[top : top + height, left : left + width]
        sums = np.bincount(numbers.ravel(), own.ravel(), minlength=count)
    for number in range(1, count):  # 0 is all other classes
        x, y, w, h, area = stats[number].tolist()
        score = None if scores is None else float(sums[number] / area)
        yield Region(label, name, area, (left + x, top + y, w, h), score, numbers[y : y + h, x : x + w] == number)


def _rings(mask: NDArray[np.bool_]) -> list[Ring]:
    """Trace the pixels' sides between a connected mask and its surroundings, the outer ring first."""
    generator = contourpy.contour_generator(z=np.pad(mask, 1), fill_type=contourpy.FillType.OuterOffset)
    # a contour crosses each of those sides once; below 0.5, pixels that touch by a corner only are within one contour
    contours: Any = generator.filled(0.4, 2.0)
    (points,), (offsets,) = contours
    rings = []
    for start, end in itertools.pairwise(offsets):
        here, following = points[start : end - 1], points[start + 1 : end]
        crosses = here % 1 > 0  # in x the left or right side of a pixel, in y its upper or lower one
        turns = crosses[:, 0] != np.roll(crosses[:, 0], -1)
        corners = np.floor(np.where(crosses, here, following))[turns]
        rings.append(np.concatenate([corners, corners[:1]]))
    return rings


def _simplified(ring: Ring, distance: float) -> Ring:
    """Remove points of a closed ring; what remains lies within so many pixels of it."""
    if distance <= 0:
        return ring
    kept = cv2.approxPolyDP(ring[:-1].astype(np.float32), distance, closed=True)[:, 0].astype(np.float64)
    return ring if len(kept) < 3 else np.concatenate([kept, kept[:1]])


def to_geojson(regions: Iterable[Region], simplify: float = 0.0) -> dict[str, Any]:
    """Describe regions as a GeoJSON ``FeatureCollection``, in pixels: x to the right, y down.

    A feature is a region, with the properties ``class``, ``label``, ``area`` (pixels) and ``score``; ``simplify`` is as
    for :meth:`Region.outlines`.
    """
    features = []
    for region in regions:
        (polygon,) = region.outlines(simplify)
        properties = {"class": region.name, "label": region.label, "area": region.area, **_score(region)}
        geometry = {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon]}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def coco_dataset(
    file_name: str, size: tuple[int, int], regions: Iterable[Region], names: Sequence[str]
) -> dict[str, Any]:
    """Describe the regions of an image of a size (H, W) as a COCO data set, which pycocotools and others load."""
    image = {"id": 1, "file_name": file_name, "height": size[0], "width": size[1]}
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": region.label + 1,
            "segmentation": {"size": list(size), "counts": _run_lengths(region, size)},
            "area": region.area,
            "bbox": list(region.box),
            "iscrowd": 0,
            **_score(region),
        }
        for number, region in enumerate(regions, start=1)
    ]
    # ids begin at 1, since some readers take 0 for the background
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    return {"images": [image], "annotations": annotations, "categories": categories}


def join_coco(parts: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Iterator[str]:
    """Join the data sets of :func:`coco_dataset`, all of the same classes, to the JSON text of one, in pieces.

    The annotations are not held together in memory; each has a line of its own. "info" is that of the last data set.
    """
    info: Mapping[str, Any] = {}
    images: list[dict[str, Any]] = []
    count = 0
    yield '{"annotations": ['
    for number, part in enumerate(parts, start=1):
        info = part.get("info", info)
        images += [{**image, "id": number} for image in part["images"]]
        for annotation in part["annotations"]:
            yield ",\n" if count else "\n"
            count += 1
            yield json.dumps({**annotation, "id": count, "image_id": number})
    rest = {**coco_dataset("", (0, 0), (), names), "images": images, "info": info}
    del rest["annotations"]
    yield "\n], " + json.dumps(rest, ensure_ascii=False)[1:] + "\n"


def _run_lengths(region: Region, size: tuple[int, int]) -> str:
    """Encode a mask as pycocotools would, from its box alone: down the columns, runs of 0 and 1 in turn."""
    x, y, _, _ = region.box
    columns = np.pad(region.mask.T, ((0, 0), (1, 1))).astype(np.int8)
    column, row = np.nonzero(np.diff(columns, axis=1))
    places = (x + column) * size[0] + y + row  # where a run begins, and where it has ended, in turn
    bounds, times = np.unique(places, return_counts=True)
    bounds = bounds[times == 1]  # a run that ends at the foot of a column goes on at the head of the next
    counts = np.diff(np.concatenate([[0], bounds, [size[0] * size[1]]])).tolist()
    uncompressed = {"size": list(size), "counts": counts if counts[-1] else counts[:-1]}
    return mask_utils.frPyObjects(uncompressed, *size)["counts"].decode("ascii")


def _score(region: Region) -> dict[str, float]:
    return {} if region.score is None else {"score": round(region.score, 4)}
