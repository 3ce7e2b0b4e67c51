"""Read converted files again: sizes, bit depth and values are right, and how often each class occurs."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from err_seg.data.images import read_label
from err_seg.data.preparation.conversions import CONVERSIONS
from err_seg.data.preparation.images import DamagedFileError, check_size, image_size, naming
from err_seg.data.preparation.labels import IGNORE_8_BIT
from err_seg.data.preparation.parallel import for_each
from err_seg.data.preparation.sources import PreparationError
from err_seg.utils.files import write_json
from err_seg.utils.messages import listed


@dataclass
class SplitCheck:
    """What one split's converted label maps hold.

    Attributes:
        folder: of the label maps.
        class_names: in label order.
        labels: number of label maps that are sound; ``expected``: by the protocol.
        pixels, images: (classes,) int64, how many pixels each class has and how many images it occurs in.
        ignored: number of pixels with the ignore label.
        problems: (file stem, what is wrong) of the others.
    """

    split: str
    folder: Path
    class_names: tuple[str, ...]
    expected: int
    labels: int = 0
    pixels: np.ndarray = field(init=False)
    images: np.ndarray = field(init=False)
    ignored: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Number of label maps, sound or not."""
        return self.labels + len(self.problems)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(len(self.class_names), dtype=np.int64)
        self.images = np.zeros(len(self.class_names), dtype=np.int64)


@dataclass(frozen=True)
class _Counts:
    stem: str
    values: np.ndarray | None = None
    pixels: np.ndarray | None = None
    complaint: str = ""


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
    conversion = CONVERSIONS[name]
    results = []
    for split in conversion.splits:
        spec = split.spec
        result = SplitCheck(split.name, spec.label_folder(root), spec.evaluated_classes, split.expected)
        files = split.list_converted(root)
        if files:
            title = f"check {name} {split.name}"
            count = partial(count_label, name, split.name)
            for_each(count, files, partial(_add, result), workers=workers, title=title)
        results.append(result)
    if not any(result.found for result in results):
        folders = ", ".join(str(result.folder) for result in results)
        raise PreparationError(f"{name}: no converted label maps in {folders}; convert first: {_command(name)}")
    return results


def count_label(name: str, split_name: str, files: tuple[Path, Path]) -> _Counts:
    """Values of one label map, of which (image, label map) are given, and how many pixels have each."""
    spec = CONVERSIONS[name].split(split_name).spec
    dtype = np.dtype(np.uint8 if spec.ignore_label == IGNORE_8_BIT else np.uint16)
    image, path = files
    try:
        with naming(image):
            size = image_size(image)
        with naming(path):
            label = read_label(path)
            if label.dtype != dtype:
                raise ValueError(f"expected {dtype} values, found {label.dtype}")
            check_size(label, size)
            values, pixels = np.unique(label, return_counts=True)
            wrong = values[(values >= spec.num_evaluated_classes) & (values != spec.ignore_label)]
            if len(wrong):
                # The released works' evaluation of PC-459 ignores 459, so that a tree made for it may hold that label.
                foreign = wrong.tolist() == [spec.num_evaluated_classes]
                raise ValueError(
                    f"holds values that are no class ({listed(wrong, 5)}); expected 0 to "
                    f"{spec.num_evaluated_classes - 1}, or {spec.ignore_label} where ignored; "
                    + f"some trees made for other code store {wrong[0]} there; " * foreign
                    + f"write it again: {_command(name)} --force"
                )
    except DamagedFileError as error:
        return _Counts(path.stem, complaint=str(error))
    return _Counts(path.stem, values, pixels)


def _add(result: SplitCheck, counts: _Counts) -> None:
    if counts.values is None or counts.pixels is None:
        result.problems.append((counts.stem, counts.complaint))
        return
    classes = counts.values < len(result.pixels)
    result.labels += 1
    result.pixels[counts.values[classes]] += counts.pixels[classes]
    result.images[counts.values[classes]] += 1
    result.ignored += int(counts.pixels[~classes].sum())


def _command(name: str) -> str:
    return f"python datasets/prepare.py {name}"


def write_check(name: str, results: list[SplitCheck]) -> Path:
    """Write the results beside the first split's label folder, as ``<name>_check.json``, and return that path."""
    path = results[0].folder.parent / f"{name}_check.json"
    write_json(path, {"name": name, "splits": [_as_json(result) for result in results]})
    return path


def _as_json(result: SplitCheck) -> dict[str, Any]:
    classes = zip(result.class_names, result.pixels.tolist(), result.images.tolist(), strict=True)
    return {
        "split": result.split,
        "labels": result.labels,
        "expected": result.expected,
        "ignored_pixels": result.ignored,
        "problems": [{"file": stem, "problem": problem} for stem, problem in result.problems],
        "classes": [
            {"index": index, "name": name, "pixels": pixels, "pictures": images}
            for index, (name, pixels, images) in enumerate(classes)
        ],
    }
