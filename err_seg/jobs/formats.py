"""Result files of one image: what each format holds, and how it is written."""

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from err_seg.evaluation.results import write_csv
from err_seg.jobs.label_set import UNLABELED, LabelSet, without_empty
from err_seg.jobs.result_names import file_name
from err_seg.jobs.review import review_part
from err_seg.prediction.attention import Attention, attention_figure
from err_seg.prediction.dense_features import DenseFeatures
from err_seg.prediction.kept_classes import kept_figure
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.files import atomic_write, write_json
from err_seg.utils.images import save_image
from err_seg.visualization.label_files import rle_segments, save_geotiff, save_label_png, save_rle_json
from err_seg.visualization.overlay import OPACITY, UNLABELED_NAME, overlay
from err_seg.visualization.regions import Region, coco_dataset, find_regions, to_geojson
from err_seg.visualization.text import first_synonym

THUMBNAIL, THUMBNAIL_QUALITY = 320, 80  # pixels of the longer side, and JPEG's quality


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """One image and its prediction.

    Attributes:
        name: of its files, a relative path without ending.
        source: where it came from.
        image: (H, W, 3) uint8 RGB; masked pixels, which hold no data, belong to no class.
        segmentation: the network's result.
        label_set: the classes.
        attention: what ESCF attends to, where it was recorded.
        point: (x, y), the pixel that the attention is shown for; ``None`` is the middle.
        region_names: whether the overlay has names on its regions.
        opacity: of the overlay's colours, in 0..1.
        weights: where the model's were read from, ``None`` if not known.
        features: of the image, on the CPU, and the digest of the weights that computed them, where they were asked for.
    """

    name: str
    source: str
    image: np.ndarray
    segmentation: Segmentation
    label_set: LabelSet
    attention: Attention | None = None
    point: tuple[int, int] | None = None
    region_names: bool = False
    opacity: float = OPACITY
    weights: Mapping[str, Any] | None = None
    features: tuple[DenseFeatures, str] | None = None

    @cached_property
    def labels(self) -> np.ndarray:
        """(H, W) integers: classes of ``label_set``, or ``UNLABELED``."""
        return without_empty(self.label_set.labels(self.segmentation), self.image)

    @cached_property
    def areas(self) -> dict[int, int]:
        """The number of pixels of every label that occurs, ``UNLABELED`` among them."""
        if not self.label_set.classes:
            return {}
        labels, pixels = np.unique(self.labels, return_counts=True)
        return dict(zip(labels.tolist(), pixels.tolist(), strict=True))

    @property
    def unlabeled(self) -> int:
        """The number of pixels of no class."""
        return self.areas.get(UNLABELED, 0)

    @cached_property
    def regions(self) -> list[Region]:
        """The connected parts of the classes, the largest first."""
        return find_regions(self.labels, self.label_set.classes, self.segmentation.scores.cpu().numpy())

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """The classes that occur, largest first: name, label, pixels, share of all pixels, mean probability."""
        return self.segmentation.summary(self.labels)

    def resized(self, size: tuple[int, int]) -> "Result":
        """Return this result at another size (H, W)."""
        image = np.asarray(Image.fromarray(self.image).resize(size[::-1]))
        return replace(self, image=image, segmentation=self.segmentation.resized(size))

    def overlay(self, **options: Any) -> Image.Image:
        """Draw the labels over the image; ``options`` are those of :func:`~err_seg.visualization.overlay.overlay`."""
        return overlay(np.asarray(self.image), self.labels, self.label_set.classes, opacity=self.opacity, **options)


def _overlay(result: Result, path: Path) -> None:
    save_image(result.overlay(unlabeled_name=UNLABELED_NAME, names=result.region_names), path)


def _labels(result: Result, path: Path) -> None:
    save_label_png(result.labels, path, result.label_set.classes, ignore_label=UNLABELED)


def _geotiff(result: Result, path: Path) -> None:
    save_geotiff(result.labels, result.label_set.classes, result.source, path)


def _masks(result: Result, path: Path) -> None:
    """Write a black and white image of each class that occurs, and at last the list of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for earlier in path.parent.glob("[0-9][0-9][0-9][0-9][0-9]_*.png"):
        earlier.unlink()
    listed = []
    for row in result.table:
        file = f"{row['label']:05d}_{file_name(first_synonym(row['name']))}.png"
        save_image(Image.fromarray(result.labels == row["label"]), path.parent / file)
        listed.append({"file": file, **row})
    write_json(path, listed, ensure_ascii=False)


def _json(result: Result, path: Path) -> None:
    facts = {
        "picture": result.source,
        "size": list(result.labels.shape),
        "classes": result.table,
        "nothing": {"pixels": result.unlabeled, "share": round(result.unlabeled / result.labels.size, 6)},
        "kept": [{"name": name, "crm_score": round(score, 3)} for name, score in kept_by_score(result.segmentation)],
        "weights": result.weights,
    }
    if names := result.segmentation.contrast.names:
        facts["contrast"] = {"names": len(names), "left_out": dict(result.segmentation.contrast.left_out)}
    write_json(path, facts, ensure_ascii=False)


def _csv(result: Result, path: Path) -> None:
    rows = [list(row.values()) for row in result.table]
    write_csv(path, ["class", "label", "pixels", "share", "mean_score"], rows)


def kept_by_score(segmentation: Segmentation) -> list[tuple[str, float]]:
    """Return the names of the kept classes and their CRM scores, the highest first."""
    scores = segmentation.class_scores.tolist()
    best = sorted(segmentation.kept.tolist(), key=lambda index: (-scores[index], index))
    return [(segmentation.names[index], scores[index]) for index in best]


def _rle(result: Result, path: Path) -> None:
    scores, classes = {row["label"]: row["score"] for row in result.table}, result.label_set.classes
    save_rle_json(rle_segments(result.labels, result.source, classes, scores=scores, ignore_label=UNLABELED), path)


def _coco(result: Result, path: Path) -> None:
    dataset = coco_dataset(result.source, result.segmentation.size, result.regions, result.label_set.classes)
    write_json(path, {"info": {"weights": result.weights}, **dataset}, ensure_ascii=False)


def _polygons(result: Result, path: Path) -> None:
    write_json(path, to_geojson(result.regions), ensure_ascii=False)


def _html(result: Result, path: Path) -> None:
    """Write an image's part of the page: a thumbnail of its overlay, and its classes."""
    shown = result.overlay(legend=False)
    shown.thumbnail((THUMBNAIL, THUMBNAIL))
    shown.save(file := io.BytesIO(), format="JPEG", quality=THUMBNAIL_QUALITY)
    facts = {
        "thumbnail": base64.b64encode(file.getvalue()).decode("ascii"),
        "classes": [{"name": first_synonym(row["name"]), "share": row["share"]} for row in result.table],
        "nothing": round(result.unlabeled / result.labels.size, 6),
    }
    write_json(path, facts, ensure_ascii=False)


def _review(result: Result, path: Path) -> None:
    """Write an image's part of the page of what is most worth a look."""
    part = review_part(result.segmentation, result.image, result.labels, result.label_set.classes)
    write_json(path, part, ensure_ascii=False)


def _video(result: Result, path: Path) -> None:
    """Write a frame of the video."""
    save_image(result.overlay(legend=False, names=result.region_names), path)


def _kept(result: Result, path: Path) -> None:
    save_image(kept_figure(np.asarray(result.image), result.segmentation), path)


def _attention(result: Result, path: Path) -> None:
    assert result.attention is not None
    save_image(attention_figure(np.asarray(result.image), result.segmentation, result.attention, result.point), path)


def _features(result: Result, path: Path) -> None:
    """Write the features in float16; the metadata are JSON but for the digest."""
    assert result.features is not None
    found, weights = result.features
    facts = {"stride": json.dumps(found.stride), "size": json.dumps(found.size), "weights": weights}
    with atomic_write(path) as partial:
        save_file({"features": found.embeddings.half().contiguous()}, partial, facts)


FORMATS: dict[str, tuple[str, Callable[[Result, Path], None]]] = {
    "overlay": ("_overlay.png", _overlay),
    "labels": ("_labels.png", _labels),
    "geotiff": ("_labels.tif", _geotiff),
    "masks": ("_masks/masks.json", _masks),
    "json": (".json", _json),
    "csv": (".csv", _csv),
    "rle": ("_rle.json", _rle),
    "coco": ("_coco.json", _coco),
    "polygons": (".geojson", _polygons),
    "html": ("_page.json", _html),
    "review": ("_review.json", _review),
    "video": ("_frame.jpg", _video),
    "kept": ("_kept.png", _kept),
    "attention": ("_attention.png", _attention),
    "features": (".safetensors", _features),
}
"""Name of a format to the ending of its files and the function that writes one.

Those of :data:`err_seg.jobs.job_outputs.GATHERED` are parts of one file for the whole job."""


def result_path(name: str, kind: str, folder: Path) -> Path:
    """Return the file of an image's results in one format."""
    return folder / f"{name}{FORMATS[kind][0]}"


def write_result(result: Result, formats: Iterable[str], folder: Path) -> None:
    """Write the files of an image's results, each complete or not at all.

    Raises:
        OSError: one cannot be written.
    """
    for kind in formats:
        FORMATS[kind][1](result, result_path(result.name, kind, folder))
