"""Read converted files again: sizes, bit depth and values are right, and how often each class occurs."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from err_seg.data.images import read_label
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.preparation.images import DamagedFileError, check_size, image_size, naming
from err_seg.data.preparation.parallel import for_each
from err_seg.data.preparation.sources import PreparationError, Split
from err_seg.data.spec import DatasetSpec
from err_seg.utils.files import write_json
from err_seg.utils.messages import listed


@dataclass
class SplitCheck:
    """What one split's converted label maps hold.

    Attributes:
        folder: of the label maps.
        labels: number of label maps that are sound.
        pixels, images: (classes,) int64, how many pixels each class has and how many images it occurs in.
        ignored: number of pixels with the ignore label.
        problems: (file stem, what is wrong) of the others.
    """

    split: Split
    folder: Path
    pixels: np.ndarray
    images: np.ndarray
    labels: int = 0
    ignored: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Number of label maps, sound or not."""
        return self.labels + len(self.problems)

    def add(self, label_map: tuple[str, np.ndarray | str]) -> None:
        """Count what :func:`count_label` found in one label map."""
        stem, found = label_map
        if isinstance(found, str):
            self.problems.append((stem, found))
            return
        self.labels += 1
        self.pixels += found[:-1]
        self.images += found[:-1] > 0
        self.ignored += int(found[-1])


def check(name: str, root: Path, *, workers: int = 1) -> list[SplitCheck]:
    """Read every converted label map and its image. The archive's raw label maps are not needed.

    Args:
        name: a key of ``CONVERSIONS``.
        root: the folder that holds the data sets' folders.
        workers: number of processes.

    Returns:
        One result a split; one without label maps has ``found`` 0.

    Raises:
        PreparationError: no split has converted label maps.
    """
    results = []
    for split in CONVERSIONS[name].splits:
        spec = split.spec
        counts = np.zeros((2, spec.num_evaluated_classes), dtype=np.int64)
        result = SplitCheck(split, spec.label_folder(root), *counts)
        if files := split.list_converted(root):
            title = f"check {name} {split.name}"
            for_each(partial(count_label, spec), files, result.add, workers=workers, title=title)
        results.append(result)
    if not any(result.found for result in results):
        folders = ", ".join(str(result.folder) for result in results)
        raise PreparationError(f"{name}: no converted label maps in {folders}; convert first: {_command(name)}")
    return results


def count_label(spec: DatasetSpec, files: tuple[Path, Path]) -> tuple[str, np.ndarray | str]:
    """Check and count one label map of a data set, given as (image, label map).

    Returns:
        Its file stem, and (classes + 1,) int64, how many pixels have each class and, last, the ignore label; or what is
        wrong with it.
    """
    dtype = np.min_scalar_type(spec.ignore_label)
    image, path = files
    classes = spec.num_evaluated_classes
    try:
        with naming(image):
            size = image_size(image)
        with naming(path):
            label = read_label(path)
            if label.dtype != dtype:
                raise ValueError(f"expected {dtype} values, found {label.dtype}")
            check_size(label, size)
            pixels = np.bincount(label.ravel(), minlength=spec.ignore_label + 1)
            wrong = [value for value in np.flatnonzero(pixels).tolist() if classes <= value != spec.ignore_label]
            if wrong:
                # The released works' evaluation of PC-459 ignores 459, so that a tree made for it may hold that label.
                foreign = wrong == [classes]
                raise ValueError(
                    f"holds values that are no class ({listed(wrong, 5)}); expected 0 to {classes - 1}, or "
                    f"{spec.ignore_label} where ignored; "
                    + f"some trees made for other code store {wrong[0]} there; " * foreign
                    + f"write it again: {_command(spec.preparation)} --force"
                )
    except DamagedFileError as error:
        return path.stem, str(error)
    return path.stem, np.append(pixels[:classes], pixels[spec.ignore_label])


def _command(name: str | None) -> str:
    return f"python datasets/prepare.py {name}"


def write_check(name: str, results: list[SplitCheck]) -> Path:
    """Write the results beside the first split's label folder, as ``<name>_check.json``, and return that path."""
    splits = []
    for result in results:
        classes = zip(result.split.spec.evaluated_classes, result.pixels.tolist(), result.images.tolist(), strict=True)
        splits.append(
            {
                "split": result.split.name,
                "labels": result.labels,
                "expected": result.split.expected,
                "ignored_pixels": result.ignored,
                "problems": [{"file": stem, "problem": problem} for stem, problem in result.problems],
                "classes": [
                    {"index": index, "name": class_name, "pixels": pixels, "pictures": images}
                    for index, (class_name, pixels, images) in enumerate(classes)
                ],
            }
        )
    path = results[0].folder.parent / f"{name}_check.json"
    write_json(path, {"name": name, "splits": splits})
    return path
