"""What annotation programs write: labelme, COCO (instances and panoptic) and YOLO, read to shapes and drawn."""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from os.path import abspath
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import yaml
from pycocotools import mask as run_length_masks

from err_seg.data.images import read_image
from err_seg.data.preparation.images import naming
from err_seg.data.preparation.sources import require
from err_seg.utils.errors import DamagedFileError
from err_seg.utils.messages import listed

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LEAST_POINTS = {"polygon": 3, "relative polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}
AREAS = (*LEAST_POINTS, "instance", "crowd", "segment")
"""Kinds of shapes that are areas."""
_MARGIN = 0.1  # of the longer side: points farther outside were set on an image of another size
Size = tuple[int, int]  # height, width


class Shape(NamedTuple):
    """A shape: what errors call it, its class, its kind, and what :func:`area_of` needs to draw it."""

    place: str
    name: str
    kind: str
    data: Any


class Annotated(NamedTuple):
    """What is annotated on an image.

    Attributes:
        place: the file of the annotations, which errors begin with.
        image: path; ``size``: height and width by the annotations, None where they do not say.
        shapes: in drawing order.
    """

    place: str
    image: Path
    size: Size | None
    shapes: list[Shape]


Found = tuple[Sequence[str], list[Annotated]]  # the format's own list of classes, if it has one, and the images


def images_by_name(folder: Path) -> dict[str, list[Path]]:
    """Return the images below a folder by their path inside it without the ending."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("[!.]*")):
        if path.suffix.lower() in IMAGE_ENDINGS:
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return found


@contextmanager
def noting(place: object, failed: list[str]) -> Iterator[None]:
    """Add what is wrong with annotations to a list, and go on."""
    try:
        with naming(f"{place}"):
            yield
    except DamagedFileError as error:
        failed.append(str(error))


def read_labelme(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read labelme's JSON files, one for each image: all below a folder, or one."""
    root, found = annotations if annotations.is_dir() else annotations.parent, []
    for file in sorted(root.rglob("[!.]*.json")) if root == annotations else [annotations]:
        with noting(file, failed):
            content = json.loads(file.read_bytes())
            image = _find(images, content["imagePath"], file.parent, images / file.parent.relative_to(root))
            size = content.get("imageHeight"), content.get("imageWidth")
            shapes = [
                Shape(f"shape {number}", str(shape["label"]).strip(), shape.get("shape_type") or "polygon", shape)
                for number, shape in enumerate(content["shapes"], start=1)
            ]
            found.append(Annotated(str(file), image, None if None in size else size, shapes))
    return [], found


def read_yolo(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read YOLO's text files, one for each image, below a folder.

    With ``data.yaml`` for it, that has the names of the class numbers, and the folder has "labels" where the path of
    ``images`` has "images" the last time.
    """
    if not annotations.is_dir():
        names = yaml.safe_load(annotations.read_text(encoding="utf-8"))["names"]
        annotations = Path(re.sub(r"(.*/)images(?=/|$)", r"\1labels", images.as_posix()))
    classes = names if isinstance(names, dict) else dict(enumerate(names))
    found, by_name = [], images_by_name(images)
    for file in sorted(require(annotations).rglob("[!.]*.txt")):
        stem, shapes = file.relative_to(annotations).with_suffix("").as_posix(), []
        if stem == "classes":  # the names, which some programs write there
            continue
        with noting(file, failed):
            if len(by_name[stem]) != 1:
                raise ValueError(f"expected one image {images / stem}.*, found {listed(by_name[stem]) or 'none'}")
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                if not line.strip():
                    continue
                index, *values = line.split()
                if int(index) not in classes:
                    raise ValueError(f"line {number}: class {index} has no name in data.yaml or the file of --classes")
                points = {"points": np.array(values, dtype=np.float64)}
                kind = "box" if len(values) == 4 else "relative polygon"
                shapes.append(Shape(f"line {number}", classes[int(index)], kind, points))
            found.append(Annotated(str(file), by_name[stem][0], None, shapes))
    return list(classes.values()), found


def read_coco(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read COCO's JSON file of instances, or of panoptic segments; their PNG files are in the folder of its name."""
    content = json.loads(annotations.read_bytes())
    categories = {entry["id"]: str(entry["name"]).strip() for entry in content["categories"]}
    of_image, found = defaultdict(list), []
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    folder = annotations.with_suffix("")
    for image in content["images"]:
        shapes, entries = [], of_image.pop(image["id"], [])
        place = f"{annotations}: image {image['id']}"
        with noting(place, failed):
            for entry, segments in ((entry, entry.get("segments_info")) for entry in entries):
                for part in [entry] if segments is None else segments:
                    data = part.get("segmentation")
                    kind = "box" if not data else "crowd" if part.get("iscrowd") else "instance"
                    if segments is not None:
                        ids = frozenset(segment["id"] for segment in segments)
                        kind, data = "segment", (_find(folder, entry["file_name"], folder), part["id"], ids)
                    if part["category_id"] not in categories:
                        raise ValueError(f"category_id {part['category_id']!r} is not in its categories")
                    shapes.append(Shape(f"id {part.get('id')}", categories[part["category_id"]], kind, data))
            size = image.get("height"), image.get("width")
            path = _find(images, image["file_name"], images)
            found.append(Annotated(place, path, None if None in size else size, shapes))
    if of_image:
        failed.append(f"{annotations}: image_id {listed(of_image, 5)} of annotations is not in its images")
    return list(categories.values()), found


READERS = {"labelme": read_labelme, "coco": read_coco, "coco-panoptic": read_coco, "yolo": read_yolo}


def _find(root: Path, name: str, *folders: Path) -> Path:
    """Return the file that annotations name from one of the folders; it must be below ``root``."""
    paths = [Path(abspath(folder / name.replace("\\", "/"))) for folder in folders]
    paths = [path for path in paths if path.is_relative_to(root)]
    if not paths:
        raise ValueError(f"names {name!r}, which is not inside of {root}")
    if (path := next((path for path in paths if path.is_file()), None)) is None:
        raise ValueError(f"names {name!r}, but there is no file {paths[-1]}")
    return path


def draw(annotated: Annotated, label: np.ndarray, indices: Mapping[str, int], ignore: int) -> None:
    """Draw the areas on a label map (H, W): the index of their class, and ``ignore`` for classes without one.

    Later shapes lie over earlier ones; COCO's instances, which have no order, over larger ones, and over crowds.
    """

    def rank(shape: Shape) -> tuple[bool, int]:
        is_instance = shape.kind in ("instance", "crowd")
        return shape.kind != "crowd", -np.count_nonzero(area_of(shape, label.shape)) if is_instance else 0

    for shape in sorted((shape for shape in annotated.shapes if shape.kind in AREAS), key=rank):
        label[area_of(shape, label.shape)] = indices.get(shape.name, ignore)


def area_of(shape: Shape, size: Size) -> np.ndarray:
    """Return the pixels of a shape, (H, W) bool.

    Polygons of labelme and YOLO have whole pixels for corners and include their border, as those programs draw them;
    COCO's are what pycocotools makes of them.

    Raises:
        DamagedFileError: it is damaged, or of another image.
    """
    with naming(f"{shape.place} ({shape.name})"):
        if shape.kind in ("instance", "crowd"):
            return _instance(shape.data, size)
        if shape.kind == "segment":
            png, number, ids = shape.data
            return _segments(png, ids, size) == number
        scale = size[::-1] if shape.kind == "relative polygon" else (1, 1)
        points = _points(shape.data["points"], size, LEAST_POINTS[shape.kind], scale)
        corners, canvas = np.floor(points).astype(np.int32), np.zeros(size, np.uint8)
        low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        if shape.kind == "mask":
            part = read_image(base64.b64decode(shape.data["mask"]), as_stored=True)[..., 0]
            canvas = np.pad(part, [(low[1], size[0] - low[1] - len(part)), (low[0], size[1] - low[0] - len(part[0]))])
        elif shape.kind == "rectangle":
            cv2.rectangle(canvas, low, high, 1, cv2.FILLED)
        elif shape.kind == "circle":
            cv2.circle(canvas, corners[0].tolist(), round(np.hypot(*(points[1] - points[0]))), 1, cv2.FILLED)
        else:
            cv2.fillPoly(canvas, [corners], 1)
        return canvas > 0


def _points(values: Any, size: Size, least: int, scale: Size = (1, 1)) -> np.ndarray:
    """Return points (N, 2) in pixels, x and y, of which none may lie far outside of the image."""
    points, margin = np.asarray(values, dtype=np.float64).reshape(-1, 2) * scale, _MARGIN * max(size)
    if len(points) < least:
        raise ValueError(f"has {len(points)} points, expected at least {least}")
    is_near = ((points >= -margin) & (points <= np.array(size[::-1]) + margin)).all(axis=1)
    if not is_near.all():
        x, y = points[~is_near][0]
        raise ValueError(f"has the point ({x:g}, {y:g}), far outside of the image of {size[1]}x{size[0]} pixels")
    return points


def _instance(data: Any, size: Size) -> np.ndarray:
    """Decode COCO's polygons or run-length mask."""
    if isinstance(data, list):
        polygons = [_points(polygon, size, 3).ravel().tolist() for polygon in data]
        return run_length_masks.decode(run_length_masks.merge(run_length_masks.frPyObjects(polygons, *size))) > 0
    runs, is_list = data["counts"], isinstance(data["counts"], list)
    mask = run_length_masks.decode(run_length_masks.frPyObjects(data, *data["size"]) if is_list else data)
    # where the runs are too few, the library returns what happens to be in memory
    is_whole = sum(runs) == mask.size if is_list else run_length_masks.encode(mask)["counts"].decode() == runs
    if mask.shape != size or not is_whole:
        raise ValueError(f"its run-length mask is not one of {size[1]}x{size[0]} pixels, the image's size")
    return mask > 0


@lru_cache(maxsize=1)
def _segments(png: Path, known: frozenset[int], size: Size) -> np.ndarray:
    """Read the segment ids (H, W) of a panoptic PNG, once for all segments."""
    ids = read_image(png, as_stored=True).astype(np.int64) @ np.array([1, 256, 256**2])
    if ids.shape != size:
        raise ValueError(f"{png} is {ids.shape[1]}x{ids.shape[0]} pixels, its image {size[1]}x{size[0]}")
    if strange := set(np.unique(ids).tolist()) - known - {0}:
        raise ValueError(f"{png} holds the ids {listed(sorted(strange), 5)}, which segments_info lacks")
    return ids
