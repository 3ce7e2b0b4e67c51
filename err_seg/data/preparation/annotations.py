"""What annotation programs write, read to shapes and drawn: labelme, COCO (instances, panoptic segments), YOLO."""

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
AREAS = ("polygon", "relative polygon", "rectangle", "circle", "mask", "instance", "crowd", "segment")
Size = tuple[int, int]  # height, width


class Shape(NamedTuple):
    """A shape: what errors call it, its class, its kind (an area is one of ``AREAS``), and what is drawn."""

    place: str
    name: str
    kind: str
    data: Any


class Annotated(NamedTuple):
    """An image with its shapes in drawing order. Errors begin with ``place``; ``size`` is as stated, or Nones."""

    place: str
    image: Path
    size: tuple[int | None, int | None]
    shapes: list[Shape]


Found = tuple[Sequence[str], list[Annotated]]  # the classes that the format lists, if it does, and the images


@contextmanager
def noting(place: object, failed: list[str]) -> Iterator[None]:
    """Add what is wrong with the annotations of an image to a list, and go on."""
    try:
        with naming(f"{place}"):
            yield
    except DamagedFileError as error:
        failed.append(str(error))


def images_by_name(folder: Path) -> Mapping[str, list[Path]]:
    """Return the images below a folder by their path inside it without the ending; an empty list for other names."""
    found = defaultdict(list)
    for path in sorted(folder.rglob("[!.]*")):
        if path.suffix.lower() in IMAGE_ENDINGS:
            found[path.relative_to(folder).with_suffix("").as_posix()].append(path)
    return found


def read_labelme(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read labelme's JSON files, one for each image: all below a folder, or one."""
    root, found = annotations if annotations.is_dir() else annotations.parent, []
    for file in sorted(root.rglob("[!.]*.json")) if root == annotations else [annotations]:
        with noting(file, failed):
            content = json.loads(file.read_bytes())
            shapes = [
                Shape(f"shape {number}", str(shape["label"]).strip(), shape.get("shape_type") or "polygon", shape)
                for number, shape in enumerate(content["shapes"], start=1)
            ]
            image = find(images, content["imagePath"], file.parent, images / file.parent.relative_to(root))
            size = content.get("imageHeight"), content.get("imageWidth")
            found.append(Annotated(str(file), image, size, shapes))
    return [], found


def read_yolo(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read YOLO's text files, one for each image, below a folder; ``names`` are those of the class numbers.

    ``data.yaml`` in place of the folder has the names; the folder is then that of the images, with "labels" for the
    last "images" in its path.
    """
    if not annotations.is_dir():
        names = yaml.safe_load(annotations.read_text(encoding="utf-8"))["names"]
        annotations = Path(re.sub(r"(.*/)images(?=/|$)", r"\1labels", images.as_posix()))
    numbered = names if isinstance(names, dict) else dict(enumerate(names))
    classes = {str(number): str(name).strip() for number, name in numbered.items()}
    found, by_name = [], images_by_name(images)
    for file in sorted(require(annotations).rglob("[!.]*.txt")):
        stem = file.relative_to(annotations).with_suffix("").as_posix()
        if stem == "classes":  # of programs that write the names there
            continue
        with noting(file, failed):
            if len(by_name[stem]) != 1:
                raise ValueError(f"expected one image {images / stem}.*, found {listed(by_name[stem]) or 'none'}")
            lines, shapes = enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1), []
            for number, (index, *values) in ((number, line.split()) for number, line in lines if line.strip()):
                if index not in classes:
                    raise ValueError(f"line {number}: {index!r} is not the number of a class in data.yaml or --classes")
                kind, data = "box" if len(values) == 4 else "relative polygon", {"points": np.array(values, float)}
                shapes.append(Shape(f"line {number}", classes[index], kind, data))
            found.append(Annotated(str(file), by_name[stem][0], (None, None), shapes))
    return list(classes.values()), found


def read_coco(images: Path, annotations: Path, names: Sequence[str], failed: list[str]) -> Found:
    """Read COCO's JSON file of instances, or of panoptic segments; their PNG files are in the folder of its name."""
    content, folder, found = json.loads(annotations.read_bytes()), annotations.with_suffix(""), []
    categories = {entry["id"]: str(entry["name"]).strip() for entry in content["categories"]}
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    for image in content["images"]:
        place, entries, shapes = f"{annotations}: image {image['id']}", of_image.pop(image["id"], []), []
        with noting(place, failed):
            for entry, segments in ((entry, entry.get("segments_info")) for entry in entries):
                for part in [entry] if segments is None else segments:
                    kind, data = "crowd" if part.get("iscrowd") else "instance", part.get("segmentation")
                    if segments is not None:
                        ids = frozenset(segment["id"] for segment in segments)
                        kind, data = "segment", (find(folder, entry["file_name"], folder), part["id"], ids)
                    if part["category_id"] not in categories:
                        raise ValueError(f"category_id {part['category_id']!r} is not in its categories")
                    name = categories[part["category_id"]]
                    shapes.append(Shape(f"id {part.get('id')}", name, kind if data else "box", data))
            path, size = find(images, image["file_name"], images), (image.get("height"), image.get("width"))
            found.append(Annotated(place, path, size, shapes))
    if of_image:
        failed.append(f"{annotations}: image_id {listed(of_image, 5)} of annotations is not in its images")
    return list(categories.values()), found


READERS = {"labelme": read_labelme, "coco": read_coco, "coco-panoptic": read_coco, "yolo": read_yolo}


def find(root: Path, name: str, *folders: Path) -> Path:
    """Return the file that annotations name from one of the folders; it must be below ``root``."""
    paths = [Path(abspath(folder / name.replace("\\", "/"))) for folder in folders]
    path = next((path for path in paths if path.is_relative_to(root) and path.is_file()), None)
    if path is None:
        raise ValueError(f"names {name!r}, but there is no such file inside of {root}")
    return path


def draw(shapes: Sequence[Shape], label: np.ndarray, indices: Mapping[str, int]) -> None:
    """Draw the areas on a label map (H, W), as the index of their class.

    Later shapes lie over earlier ones; COCO's instances, which have no order, over larger ones, and over crowds.
    """

    def rank(shape: Shape) -> tuple[bool, int]:
        has_order = shape.kind not in ("instance", "crowd")
        return shape.kind != "crowd", 0 if has_order else -int(area_of(shape, label.shape).sum())

    _segments.cache_clear()  # the file may have changed since another call
    for shape in sorted((shape for shape in shapes if shape.kind in AREAS), key=rank):
        label[area_of(shape, label.shape)] = indices[shape.name]


def area_of(shape: Shape, size: Size) -> np.ndarray:
    """Return the pixels of a shape, (H, W) bool, as the program draws it that wrote it.

    Borders belong to shapes of labelme and YOLO, whose corners are whole pixels; COCO's polygons are pycocotools'.

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
        points = _points(shape.data["points"], size, 3 if "polygon" in shape.kind else 2, scale)
        corners, canvas = np.floor(points).astype(np.int32), np.zeros(size, np.uint8)
        low, high = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        if shape.kind == "mask":
            part = read_image(base64.b64decode(shape.data["mask"]), as_stored=True)[..., 0]
            after = [size[0] - low[1] - part.shape[0], size[1] - low[0] - part.shape[1]]
            canvas = np.pad(part, [(low[1], after[0]), (low[0], after[1])])
        elif shape.kind == "rectangle":
            cv2.rectangle(canvas, low, high, 1, cv2.FILLED)
        elif shape.kind == "circle":
            cv2.circle(canvas, corners[0].tolist(), round(np.hypot(*(points[1] - points[0]))), 1, cv2.FILLED)
        else:
            cv2.fillPoly(canvas, [corners], 1)
        return canvas > 0


def _points(values: Any, size: Size, least: int = 3, scale: Size = (1, 1)) -> np.ndarray:
    """Return points (N, 2) in pixels, x and y, of which none may lie far outside of the image."""
    points = np.asarray(values, dtype=np.float64).reshape(-1, 2) * scale
    margin = 0.1 * max(size)  # points farther outside were set on an image of another size
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
        polygons = [_points(polygon, size).ravel().tolist() for polygon in data]
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
