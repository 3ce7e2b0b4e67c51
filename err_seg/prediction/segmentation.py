"""The result of an image: the numbers, and how they become pictures, files, regions, and what other programs read."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from err_seg.data.image_sources import image_to_tensor
from err_seg.data.images import ImageReadError
from err_seg.modeling.crm import NOT_KEPT
from err_seg.prediction.calibration import Calibration
from err_seg.prediction.class_maps import UNLABELED, ClassMaps
from err_seg.utils.files import write_json
from err_seg.utils.images import save_image
from err_seg.utils.validation import ArgumentError, check_number, check_text
from err_seg.visualization import regions
from err_seg.visualization.label_files import save_label_png
from err_seg.visualization.overlay import UNLABELED_NAME, overlay

if TYPE_CHECKING:
    import fiftyone
    import supervision
ROOM_FOR_NAMES = 480  # pixels; the longer side of a smaller image is enlarged to at least this much in pictures
IN_A_NOTEBOOK, NOTEBOOK_QUALITY = 960, 90  # pixels of the longer side, and JPEG's quality, so that notebooks stay small
SAVED = ("overlay", "labels", "coco", "polygons")
BY_SUFFIX = {".png": "overlay", ".jpg": "overlay", ".jpeg": "overlay", ".json": "coco", ".geojson": "polygons"}


class Segmentation(ClassMaps):
    """What the network says about one image: classes and probabilities, pictures, regions, files.

    ``probabilities``, ``kept``, ``vocabulary``, ``size``, ``class_scores``, ``source`` and ``calibration`` are
    described in :class:`~err_seg.prediction.class_maps.ClassMaps`.
    """

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the image that was labelled, at the result's size; a file is read again at every call.

        Raises:
            ArgumentError: the result was not made by ``predict``, and holds no image.
            ImageReadError: the file is no longer there, or has changed.
        """
        if self.source is None:
            raise ArgumentError("only results of predict hold their image; give it: plot(image)")
        return fitted(self.source(), self.size)

    def plot(self, image: Any = None, *, names: bool = True, legend: bool = True) -> Image.Image:
        """Draw the labels over the image: colours, contours, names on the regions and a legend by area.

        A small image is enlarged by a whole number, so that names can be read.

        Args:
            image: anything that ``predict`` takes, instead of the image that was labelled.
            names: write the names on the regions.
            legend: add a legend below, the largest area first.

        Raises:
            ArgumentError, ImageReadError: see :attr:`image`.
        """
        shown = self.image if image is None else fitted(image_to_tensor(image), self.size)
        factor = -(-ROOM_FOR_NAMES // max(self.size))
        if factor > 1:
            larger = self.resized((factor * self.size[0], factor * self.size[1]))
            return larger.plot(shown, names=names, legend=legend)
        labels, nothing = self.labels.cpu().numpy(), UNLABELED_NAME if self.contrast.names else None
        return overlay(shown, labels, self.vocabulary, names=names, legend=legend, unlabeled_name=nothing)

    def show(self, image: Any = None, **options: Any) -> None:
        """Open the picture that :meth:`plot` draws in the system's viewer."""
        self.plot(image, **options).show()

    def save(self, path: str | Path, what: str | None = None) -> None:
        """Write the result to a file, complete or not at all.

        Args:
            path: an existing file is replaced.
            what: "overlay", the picture of :meth:`plot` (JPEG if the ending says so, else PNG); "labels", a PNG file of
                class indices, see :func:`~err_seg.visualization.label_files.save_label_png`; "coco", :meth:`to_coco`
                (JSON); "polygons", :meth:`polygons` (GeoJSON). ``None``: as the ending says, of .png, .jpg, .json and
                .geojson.

        Raises:
            ArgumentError: ``path`` is none, ``what`` is none of these, or the ending does not tell.
            OSError: the file cannot be written.
        """
        path = Path(check_text("path", path))
        what = what or BY_SUFFIX.get(path.suffix.lower())
        if what not in SAVED:
            raise ArgumentError(
                f"cannot tell what to save as {path}: name it .png, .jpg, .json or .geojson, or give what= one of "
                f"{', '.join(SAVED)}"
            )
        if what == "overlay":
            save_image(self.plot(), path)
        elif what == "labels":
            save_label_png(self.labels.cpu().numpy(), path, self.vocabulary, ignore_label=UNLABELED)
        else:
            write_json(path, self.to_coco() if what == "coco" else self.polygons(), ensure_ascii=False)

    def regions(self, min_area: float = 1) -> list[regions.Region]:
        """Return the connected parts of at least ``min_area`` pixels: class, area, box, mean probability and mask.

        The largest comes first.

        Raises:
            ArgumentError: ``min_area`` is no number.
        """
        check_number("min_area", min_area)
        labels, scores = self.labels.cpu().numpy(), self.scores.cpu().numpy()
        return regions.find_regions(labels, self.vocabulary, scores, min_area=min_area)

    def summary(self, labels: np.ndarray | None = None) -> list[dict[str, Any]]:
        """List the classes that occur, largest first: name, label, pixels, share of all pixels, mean :attr:`scores`.

        ``labels``, (H, W) integers, may take the place of the result's own; negative ones are no classes.
        """
        labels, scores = self.labels.cpu().numpy() if labels is None else labels, self.scores.cpu().numpy()
        pixels = np.bincount(labels[labels >= 0])
        return [
            {
                "name": self.vocabulary[label],
                "label": label,
                "pixels": int(pixels[label]),
                "share": round(int(pixels[label]) / labels.size, 6),
                "score": round(float(scores[labels == label].mean()), 4),
            }
            for label in (-pixels).argsort(kind="stable").tolist()
            if pixels[label]
        ]

    def polygons(self, simplify: float = 0.0, min_area: float = 1) -> dict[str, Any]:
        """Return the outlines of the :meth:`regions` as a GeoJSON ``FeatureCollection`` in pixels (x, y down).

        Args:
            simplify: how far an outline may move, in pixels, to have fewer points; see :meth:`regions.Region.outlines`.
            min_area: leave out what has fewer pixels.

        Raises:
            ArgumentError: one of them is no number.
        """
        check_number("simplify", simplify)
        return regions.to_geojson(self.regions(min_area), simplify)

    def to_coco(self, file_name: str = "", min_area: float = 1) -> dict[str, Any]:
        """Return a COCO data set of this image, named ``file_name``: its :meth:`regions` as annotations.

        They are run-length coded, and have at least ``min_area`` pixels.
        """
        return regions.coco_dataset(file_name, self.size, self.regions(min_area), self.vocabulary)

    def to_supervision(self) -> "supervision.Detections":
        """Return supervision's ``Detections``: a mask, a box and a mean probability for each class that occurs."""
        from err_seg.integrations.supervision import detections

        return detections(self)

    def to_fiftyone(self) -> "fiftyone.Segmentation":
        """Return FiftyOne's ``Segmentation``; see :mod:`err_seg.integrations.fiftyone` for the table of its values."""
        from err_seg.integrations.fiftyone import segmentation

        return segmentation(self)

    def _repr_jpeg_(self) -> bytes | None:
        """Return what a notebook shows: the plot, at a moderate size; ``None`` (it shows text) if the image is gone."""
        scale = min(1.0, IN_A_NOTEBOOK / max(self.size))
        smaller = self.resized((max(1, round(scale * self.size[0])), max(1, round(scale * self.size[1]))))
        try:
            plot = smaller.plot()
        except (ArgumentError, ImageReadError):
            return None
        plot.save(file := io.BytesIO(), format="JPEG", quality=NOTEBOOK_QUALITY)
        return file.getvalue()


def fitted(image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Return an image (3, h, w) as (H, W, 3) uint8."""
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if pixels.shape[:2] == size:
        return pixels
    return np.array(Image.fromarray(pixels).resize((size[1], size[0]), reducing_gap=2.0))


def split_results(
    probabilities: Tensor,
    kept: Tensor,
    class_scores: Tensor,
    vocabulary: tuple[str, ...],
    sizes: Sequence[tuple[int, int]],
    is_adaptive: bool,
    calibration: Calibration | None = None,
) -> list[Segmentation]:
    """Make a result for each of B images of probabilities (B, K, h, w), kept (B, K) and class_scores (B, T).

    With ``is_adaptive``, rows of ``kept`` may be filled up (see :class:`err_seg.modeling.CRM`); filled places are left
    out.
    """
    numbers = (kept != NOT_KEPT).sum(dim=1).tolist() if is_adaptive else [kept.shape[1]] * len(kept)
    rows = zip(numbers, probabilities, kept, class_scores, sizes, strict=True)
    return [
        Segmentation(maps[:number], classes[:number], vocabulary, size, scores, calibration=calibration)
        for number, maps, classes, scores, size in rows
    ]
