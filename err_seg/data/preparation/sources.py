"""The archives' own layouts: which raw image belongs to which raw label map, and how a raw label map is read."""

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as run_length_masks
from scipy.io import loadmat

from err_seg.data.images import read_image, read_label
from err_seg.data.spec import DatasetSpec
from err_seg.utils.errors import RunError
from err_seg.utils.messages import listed


class PreparationError(RunError):
    """Preparation cannot continue; the message says what was expected, what was found and what to do."""


class MissingFiles(PreparationError):
    """A folder or file of the archive is missing; the message says what was found instead."""


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    Attributes:
        name: what the archive calls it.
        spec: the catalog's declaration of the converted files.
        raw_images, raw_labels: folders of the archive's images and label maps, relative to the root.
    """

    name: str
    spec: DatasetSpec
    raw_images: str
    raw_labels: str

    @property
    def expected(self) -> int:
        """How many label maps the benchmark's protocol has."""
        assert self.spec.num_images is not None
        return self.spec.num_images

    def converted(self, root: Path, stem: str) -> tuple[Path, Path]:
        """Where an image and its converted label map are, or go."""
        image = self.spec.image_folder(root) / f"{stem}{self.spec.image_endings[0]}"
        return image, self.spec.label_folder(root) / f"{stem}{self.spec.label_ext}"

    def list_converted(self, root: Path) -> list[tuple[Path, Path]]:
        """Every converted label map that there is, with the path of its image: (image, label map)."""
        folder = self.spec.label_folder(root)
        stems = _files(folder, self.spec.label_ext) if folder.is_dir() else {}
        return [self.converted(root, stem) for stem in stems]


Regions = tuple[tuple[int, Mapping[str, Any]], ...]
"""A label map as (class id, COCO run-length mask) each; where masks overlap, the later one counts."""
LabelSource = Path | Regions


@dataclass(frozen=True)
class Pair:
    """A raw image and its raw label map; ``stem`` is the file name of both converted files, less the suffix."""

    stem: str
    image: Path
    label: LabelSource


@dataclass
class Listing:
    """What an archive holds of a split.

    Attributes:
        pairs: the complete ones.
        notes: remarks on what was used and what is left out.
        unlabelled: stems of the split's images that are there without their label maps.
    """

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)


def list_folders(root: Path, split: Split) -> Listing:
    """Pairs of a folder of label maps (``X.png``) and a folder of images (``X.jpg``)."""
    return _match(_files(root / split.raw_labels, ".png"), _files(root / split.raw_images, ".jpg"))


def list_ade20k_full(root: Path, split: Split) -> Listing:
    """Pairs ``X.jpg``, ``X_seg.png`` in any sub-folder (scene by scene), as the full ADE20K's releases have them."""
    folder = require(root / split.raw_labels)
    labels = {path.name.removesuffix("_seg.png"): path for path in folder.rglob("[!.]*_seg.png")}
    return _match(labels, {path.stem: path for path in folder.rglob("[!.]*.jpg")})


def list_voc(root: Path, split: Split) -> Listing:
    """Pairs of VOC 2012's own validation list; labels of ``SegmentationClassAug`` where it has them."""
    images = _files(root / split.raw_images, ".jpg")
    ids = require((root / split.raw_images).with_name("ImageSets") / "Segmentation" / "val.txt")
    plain = root / split.raw_labels
    augmented = plain.with_name(f"{plain.name}Aug")
    folders = [folder for folder in (augmented, plain) if folder.is_dir()] or [plain]
    labels: dict[str, Path] = {}
    for folder in reversed(folders):
        labels |= _files(folder, ".png")
    listing = _match(labels, images, ids.read_text(encoding="utf-8").split())
    listing.notes.insert(0, "label maps of " + ", else of ".join(folder.name for folder in folders))
    return listing


def list_context_459(root: Path, split: Split) -> Listing:
    """Pairs of PASCAL-Context's validation list with label maps in ``trainval/X.mat``."""
    return _match(_files(root / split.raw_labels, ".mat"), _files(root / split.raw_images, ".jpg"), _context_ids())


def list_context_59(root: Path, split: Split) -> Listing:
    """Pairs of PASCAL-Context's validation list: label maps of ``trainval_merged.json``, else of ``trainval/X.mat``."""
    images = _files(root / split.raw_images, ".jpg")
    merged = (root / split.raw_labels).with_name("trainval_merged.json")
    ids = _context_ids()
    labels: dict[str, LabelSource] = {}
    if not merged.is_file() or (root / split.raw_labels).is_dir():
        labels |= _files(root / split.raw_labels, ".mat")
    if merged.is_file():
        labels |= _read_regions(merged, frozenset(ids))
    listing = _match(labels, images, ids)
    from_json = sum(not isinstance(pair.label, Path) for pair in listing.pairs)
    listing.notes.insert(
        0, f"label maps: {from_json:,} of {merged.name}, {len(listing.pairs) - from_json:,} of {split.raw_labels}/*.mat"
    )
    return listing


def read_raw_label(source: LabelSource) -> np.ndarray:
    """Read a raw label map with the values that the archive stores.

    Returns:
        (H, W) uint8 or uint16 class ids: indices of a palette, never its colours, except for the full ADE20K's
        ``X_seg.png``, whose red and green code the id, (R // 10) · 256 + G; blue tells instances apart.

    Raises:
        Exception: whatever the format's decoder raises for a damaged file.
    """
    if not isinstance(source, Path):
        return _paint(source)
    if source.suffix == ".mat":
        return loadmat(source, variable_names=["LabelMap"])["LabelMap"]
    if source.name.endswith("_seg.png"):
        red, green, _ = np.moveaxis(read_image(source), 2, 0)
        return (red // 10).astype(np.uint16) * 256 + green
    return read_label(source)


def require(path: Path) -> Path:
    """The path itself, which must exist.

    Raises:
        MissingFiles: it does not; the message lists the nearest folder that does.
    """
    if path.exists():
        return path
    parent = next(folder for folder in path.parents if folder.is_dir())
    names = sorted(entry.name + "/" * entry.is_dir() for entry in parent.iterdir() if not entry.name.startswith("."))
    raise MissingFiles(f"{path} does not exist; {parent} {f'holds {listed(names)}' if names else 'is empty'}")


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Visible files of a folder, which must exist, by their stem, in sorted order."""
    names = sorted(name for name in os.listdir(require(folder)) if name.endswith(suffix) and not name.startswith("."))
    return {name.removesuffix(suffix): folder / name for name in names}


def _match(
    labels: Mapping[str, LabelSource], images: Mapping[str, Path], ids: Collection[str] | None = None
) -> Listing:
    """Pairs of the ids (by default all, sorted) that have both, in the ids' order."""
    ids = sorted(labels.keys() | images.keys()) if ids is None else ids
    listing = Listing([Pair(x, images[x], labels[x]) for x in ids if x in labels and x in images])
    listing.unlabelled = [x for x in ids if x in images and x not in labels]
    if lonely := [x for x in ids if x in labels and x not in images]:
        listing.notes.append(f"{len(lonely):,} label maps without an image left out (the first: {lonely[0]})")
    return listing


def _context_ids() -> list[str]:
    table = resources.files("err_seg.data") / "tables" / "pascal_context_val_ids.txt"
    return table.read_text(encoding="utf-8").split()


def _read_regions(path: Path, ids: frozenset[str]) -> dict[str, Regions]:
    """The masks in ``trainval_merged.json`` of the images asked for, by the image's stem."""
    try:
        content = json.loads(path.read_bytes())
        stems = {image["image_id"]: Path(image["file_name"]).stem for image in content["images"]}
        masks: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
        for region in content["annos_segmentation"]:
            stem = stems[region["image_id"]]
            if stem in ids:
                masks.setdefault(stem, []).append((region["category_id"], region["segmentation"]))
    except (ValueError, KeyError, TypeError) as error:
        raise PreparationError(
            f"{path} is damaged or not PASCAL-Context's ({type(error).__name__}: {error}); fetch it again, or remove "
            "it: trainval/*.mat serve as well"
        ) from error
    return {stem: tuple(entries) for stem, entries in masks.items()}


def _paint(regions: Regions) -> np.ndarray:
    if not regions:
        raise ValueError("holds no mask at all")
    label = np.zeros(regions[0][1]["size"], dtype=np.uint16)
    for class_id, mask in regions:
        label[run_length_masks.decode(mask).astype(bool)] = class_id
    return label
