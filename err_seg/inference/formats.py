"""Result files of one image: what each format holds, and how it is written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from err_seg.drawing.overlay import overlay
from err_seg.drawing.saving import save_image
from err_seg.evaluation import rle_segments, save_label_png, save_rle_json
from err_seg.files import write_json
from err_seg.inference.attention import Attention, attention_figure
from err_seg.inference.kept import kept_figure
from err_seg.inference.words import NOTHING, Words
from err_seg.modeling.segmentation import Segmentation

NOTHING_NAME = "none of these"


@dataclass(frozen=True, eq=False)
class Result:
    """One image and its prediction.

    Attributes:
        name: of its files, a relative path without ending.
        source: where it came from.
        image: (H, W, 3) uint8 RGB.
        segmentation: the network's result.
        labels: (H, W) integers, classes of ``words`` or ``NOTHING``.
        words: the classes.
        attention: what ESCF attends to, where it was recorded.
        point: (x, y), the pixel that the attention is shown for; ``None`` is the middle.
    """

    name: str
    source: str
    image: np.ndarray
    segmentation: Segmentation
    labels: np.ndarray
    words: Words
    attention: Attention | None = None
    point: tuple[int, int] | None = None

    @cached_property
    def areas(self) -> dict[int, int]:
        """The number of pixels of every label that occurs, ``NOTHING`` among them."""
        labels, pixels = np.unique(self.labels, return_counts=True)
        return dict(zip(labels.tolist(), pixels.tolist(), strict=True))

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        """The classes that occur, largest first: name, label, pixels, share of all pixels, mean probability."""
        best = self.segmentation.scores.cpu().numpy()
        rows = []
        for label, pixels in self.areas.items():
            if label != NOTHING:
                rows.append(
                    {
                        "name": self.words.classes[label],
                        "label": label,
                        "pixels": pixels,
                        "share": round(pixels / self.labels.size, 6),
                        "score": round(float(best[self.labels == label].mean()), 4),
                    }
                )
        return sorted(rows, key=lambda row: (-row["pixels"], row["label"]))


def _overlay(result: Result, path: Path) -> None:
    save_image(overlay(result.image, result.labels, result.words.classes, nothing=NOTHING_NAME), path)


def _labels(result: Result, path: Path) -> None:
    save_label_png(result.labels, path, result.words.classes, ignore_label=NOTHING)


def _json(result: Result, path: Path) -> None:
    height, width = result.labels.shape
    scores, vocabulary = result.segmentation.class_scores, result.segmentation.vocabulary
    kept = sorted(result.segmentation.kept.tolist(), key=lambda i: (-scores[i].item(), i))
    nothing = result.areas.get(NOTHING, 0)
    facts = {
        "picture": result.source,
        "size": [height, width],
        "classes": result.table,
        "nothing": {"pixels": nothing, "share": round(nothing / result.labels.size, 6)},
        "kept": [{"name": vocabulary[i], "crm_score": round(scores[i].item(), 3)} for i in kept],
    }
    write_json(path, facts, ensure_ascii=False)


def _rle(result: Result, path: Path) -> None:
    scores = {row["label"]: row["score"] for row in result.table}
    segments = rle_segments(result.labels, result.source, result.words.classes, scores=scores, ignore_label=NOTHING)
    save_rle_json(segments, path)


def _kept(result: Result, path: Path) -> None:
    save_image(kept_figure(result.image, result.segmentation), path)


def _attention(result: Result, path: Path) -> None:
    assert result.attention is not None
    save_image(attention_figure(result.image, result.segmentation, result.attention, result.point), path)


FORMATS: dict[str, tuple[str, Callable[[Result, Path], None]]] = {
    "overlay": ("_overlay.png", _overlay),
    "labels": ("_labels.png", _labels),
    "json": (".json", _json),
    "rle": ("_rle.json", _rle),
    "kept": ("_kept.png", _kept),
    "attention": ("_attention.png", _attention),
}
"""Name of a format to the ending of its files and the function that writes one."""


def result_paths(name: str, formats: Iterable[str], folder: Path) -> list[Path]:
    """Return the files of an image's results."""
    return [folder / f"{name}{FORMATS[kind][0]}" for kind in formats]


def write_result(result: Result, formats: Iterable[str], folder: Path) -> None:
    """Write the files of an image's results, each complete or not at all.

    Raises:
        OSError: one cannot be written.
    """
    kinds = list(formats)
    for kind, path in zip(kinds, result_paths(result.name, kinds, folder), strict=True):
        FORMATS[kind][1](result, path)
