"""Annotations as annotation programs write them, made from label maps."""

import base64
import io
import json

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as run_length_masks

from err_seg.commands.prepare import main
from err_seg.data.images import read_label
from tests.helpers.preparation import save_image

CLASSES = ("sky", "road", "car, vehicle", "tree")
IGNORED = 255


def scene(seed=0, size=(96, 128)):
    """A label map of large areas with smaller ones on them; 255 where nothing is annotated."""
    random = np.random.default_rng(seed)
    height, width = size
    label = np.full(size, IGNORED, np.uint8)
    label[: height // 2] = 0
    label[height * 2 // 3 :] = 1
    for class_index in (2, 3, 2, 3):
        centre = (int(random.integers(15, width - 15)), int(random.integers(15, height - 15)))
        axes = (int(random.integers(6, 14)), int(random.integers(6, 14)))
        cv2.ellipse(label, centre, axes, 0, 0, 360, class_index, cv2.FILLED)
    return label


def contours(label):
    """(class index, corners (N, 2)) of each connected area, a larger one before those that lie in its holes."""
    found = []
    for index in np.unique(label[label != IGNORED]).tolist():
        parts, _ = cv2.findContours((label == index).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        # an area of one or two pixels has a polygon, too
        found += [(index, np.resize(part[:, 0], (max(len(part), 3), 2))) for part in parts]
    return sorted(found, key=lambda shape: -cv2.contourArea(shape[1].astype(np.float32)))


def write_labelme(folder, name, label, classes=CLASSES, **others):
    """Write the JSON file of one image, beside it or elsewhere; ``others`` replaces keys."""
    shapes = [
        {"label": classes[index], "points": corners.tolist(), "group_id": None, "shape_type": "polygon", "flags": {}}
        for index, corners in contours(label)
    ]
    height, width = label.shape
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": name, "imageData": None}
    path = folder / name.rpartition("/")[2].replace(".jpg", ".json")
    write_json(path, {**content, "imageHeight": height, "imageWidth": width, **others})
    return path


def write_yolo(path, label):
    height, width = label.shape
    lines = [
        " ".join([str(index), *(f"{value:.6f}" for value in ((corners + 0.5) / (width, height)).ravel())])
        for index, corners in contours(label)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def run_length(mask, compressed=True):
    encoded = run_length_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    if compressed:
        return {"size": encoded["size"], "counts": encoded["counts"].decode()}
    changes = np.flatnonzero(np.diff(mask.T.ravel().astype(int), prepend=0))
    return {"size": encoded["size"], "counts": np.diff([0, *changes, mask.size]).tolist()}


def coco_content(labels, segmentation=run_length, classes=CLASSES):
    """COCO's instances of {file name: label map}; category ids are no indices."""
    images, annotations = [], []
    for number, (name, label) in enumerate(labels.items(), start=7):
        images.append({"id": number, "file_name": name, "height": label.shape[0], "width": label.shape[1]})
        for index in np.unique(label[label != IGNORED]).tolist():
            mask = label == index
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 10 * index + 3, "iscrowd": 0}
            annotations.append({**entry, "area": int(mask.sum()), "segmentation": segmentation(mask)})
    categories = [{"id": 10 * index + 3, "name": name, "supercategory": ""} for index, name in enumerate(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_panoptic(path, labels, classes=CLASSES):
    """Write COCO's panoptic JSON file and its folder of PNG files, with ids beyond 16 bits."""
    content = coco_content(labels, classes=classes)
    annotations = []
    for image, (name, label) in zip(content["images"], labels.items(), strict=True):
        ids = np.where(label == IGNORED, 0, 70_000 + 300 * label.astype(np.int64))
        png = path.with_suffix("") / f"{name[:-4]}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)).save(png)
        segments = [
            {"id": 70_000 + 300 * index, "category_id": 10 * index + 3, "iscrowd": 0}
            for index in np.unique(label[label != IGNORED]).tolist()
        ]
        annotations.append({"image_id": image["id"], "file_name": f"{name[:-4]}.png", "segments_info": segments})
    write_json(path, {**content, "annotations": annotations})


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def mask_png(mask):
    """A mask as labelme stores it: a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def make_images(folder, labels):
    for name, label in labels.items():
        save_image(folder / name, label.shape)


def prepare_from(*arguments):
    """Run the command in this process; returns its exit status."""
    return main(["from", *map(str, arguments), "--workers", "1"])


def converted(output):
    """Read the label maps of an output folder by their path in ``labels/``."""
    folder = output / "labels"
    paths = [path for path in folder.rglob("[!.]*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): read_label(path) for path in sorted(paths)}


def mean_iou(label, expected):
    values = [value for value in np.unique(expected).tolist() if value != IGNORED]
    overlaps = [((label == v) & (expected == v)).sum() / ((label == v) | (expected == v)).sum() for v in values]
    return float(np.mean(overlaps))
