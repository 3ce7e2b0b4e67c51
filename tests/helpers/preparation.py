"""Small archives of all data sets, to prepare."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as run_length_masks
from scipy.io import savemat

from err_seg.commands.prepare import main

CONTEXT_ID = "2008_000002"


def save_image(path, size, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)


def save_label(path, label, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(label, dtype=np.uint8))
    if palette:
        image = image.copy()
        image.putpalette([value for k in range(256) for value in (255 - k, k, (7 * k) % 256)])
    image.save(path)


def make_coco(root, split="val2017", stem="000000000001", label=((0, 10, 255), (11, 181, 12))):
    save_image(root / f"coco-stuff/images/{split}/{stem}.jpg", np.shape(label))
    save_label(root / f"coco-stuff/annotations/{split}/{stem}.png", label)


def make_ade150(root):
    save_image(root / "ADEChallengeData2016/images/validation/ADE_val_1.jpg", (2, 3))
    save_label(root / "ADEChallengeData2016/annotations/validation/ADE_val_1.png", [[0, 1, 2], [149, 150, 0]])


def make_ade847(root, size=(600, 900), stem="ADE_val_1", **options):
    folder = root / "ADE20K_2021_17_01/images/ADE/validation/urban/street"
    save_image(folder / f"{stem}.jpg", size, **options)
    colours = np.zeros((*size, 3), np.uint8)
    colours[:, : size[1] // 2] = (110, 162, 9)  # wall, 0
    Image.fromarray(colours).save(folder / f"{stem}_seg.png")


def make_context(root, mat=True, merged=False):
    folder = root / "VOCdevkit/VOC2010"
    save_image(folder / f"JPEGImages/{CONTEXT_ID}.jpg", (2, 3))
    label = np.array([[0, 2, 9], [431, 459, 458]], dtype=np.uint16)
    if mat:
        (folder / "trainval").mkdir()
        savemat(folder / f"trainval/{CONTEXT_ID}.mat", {"LabelMap": label})
    if merged:
        masks = [(2, np.ones((2, 3), bool)), (9, np.array([[0, 0, 1], [0, 0, 0]]))]  # the later one overwrites
        entries = [{"image_id": 2008000002, "category_id": k, "segmentation": run_length(mask)} for k, mask in masks]
        image = {"image_id": 2008000002, "file_name": f"{CONTEXT_ID}.jpg"}
        content = {"images": [image], "annos_segmentation": entries}
        (folder / "trainval_merged.json").write_text(json.dumps(content))


def run_length(mask):
    encoded = run_length_masks.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def make_voc(root, labels=None, folder="SegmentationClass"):
    labels = labels or {"2007_000001": [[0, 1, 20], [255, 255, 0]]}
    voc = root / "VOCdevkit/VOC2012"
    for stem, label in labels.items():
        save_image(voc / f"JPEGImages/{stem}.jpg", np.shape(label))
        save_label(voc / folder / f"{stem}.png", label, palette=True)
    (voc / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    (voc / "ImageSets/Segmentation/val.txt").write_text("\n".join(labels) + "\n")


MAKERS = {
    "coco-stuff": make_coco,
    "ade150": make_ade150,
    "ade847": make_ade847,
    "pc59": make_context,
    "pc459": make_context,
    "voc20": make_voc,
    "voc20b": make_voc,
}


def prepare(root, *arguments):
    return main([*arguments, "--root", str(root), "--workers", "1"])


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def read(path):
    return np.asarray(Image.open(path)).tolist()


def files(root):
    """Bytes of every visible file."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("[!.]*") if p.is_file()}


CONVERTED = {
    "coco-stuff": ("coco-stuff/annotations_detectron2/val2017/000000000001.png", [[0, 10, 255], [255, 170, 11]]),
    "ade150": ("ADEChallengeData2016/annotations_detectron2/validation/ADE_val_1.png", [[255, 0, 1], [148, 149, 255]]),
    "pc59": (f"VOCdevkit/VOC2010/annotations_detectron2/pc59_val/{CONTEXT_ID}.png", [[255, 0, 1], [255, 255, 58]]),
    "pc459": (
        f"VOCdevkit/VOC2010/annotations_detectron2/pc459_val/{CONTEXT_ID}.tif",
        [[65535, 1, 8], [430, 458, 457]],
    ),
    "voc20": ("VOCdevkit/VOC2012/annotations_detectron2/val/2007_000001.png", [[255, 0, 19], [255, 255, 255]]),
    "voc20b": ("VOCdevkit/VOC2012/annotations_detectron2_bg/val/2007_000001.png", [[20, 0, 19], [255, 255, 20]]),
}
