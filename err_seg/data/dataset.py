"""The pairs of image and label map of one data set."""

import logging
import os
import shlex
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np

from err_seg.data.images import read_image, read_label
from err_seg.data.spec import DatasetError, DatasetSpec, PairError, datasets_root
from err_seg.utils.fingerprint import fingerprint
from err_seg.utils.messages import listed

logger = logging.getLogger(__name__)


class Sample(NamedTuple):
    """An image and its label map.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        label: (H, W) int64, class indices and the ignore label.
        image_path, label_path: the files that they were read from.
    """

    image: np.ndarray
    label: np.ndarray
    image_path: str
    label_path: str


class SegmentationPairs:
    """Map-style data set over the pairs that the split lists, or whose image and label map both exist, sorted by name.

    Without a split, images without a label map and label maps without an image are left out, and counted in a warning
    where the data set is not known to be complete. Relative folders lie under ``root``, see
    :func:`err_seg.data.spec.datasets_root`.

    Attributes:
        names: name of each pair: its path inside the image folder, without the ending.
        selection: what results must say of a part of the pairs: their number, as "num_images"; empty if all are here.

    Raises:
        DatasetError: a folder is missing, no pair is found, two images have the same name, or the split cannot be used.
    """

    def __init__(self, spec: DatasetSpec, root: str | os.PathLike[str] | None = None) -> None:
        spec.make_available(root)
        self.spec = spec
        self._advice = _advice(spec, root)
        image_folder, label_folder = spec.image_folder(root), spec.label_folder(root)
        for kind, folder in (("images", image_folder), ("label maps", label_folder)):
            if not folder.is_dir():
                raise DatasetError(
                    f"data set {spec.name!r}: no folder of {kind} at {folder.absolute()} (the data sets' root is "
                    f"{datasets_root(root).absolute()}; without one given, $DETECTRON2_DATASETS, else ./datasets). "
                    f"{self._advice}"
                )
        images = _files_by_name(image_folder, spec.image_endings, spec)
        labels = _files_by_name(label_folder, (spec.label_ext,), spec)
        pairs = {name: (images[name], labels[name]) for name in images.keys() & labels.keys()}
        if spec.split is not None:
            pairs = _listed_pairs(spec, root, images, labels)
        self.names = sorted(pairs)
        if not self.names:
            raise DatasetError(
                f"data set {spec.name!r}: no image has a label map of the same name. Found "
                f"{_inventory(images, spec.image_endings, image_folder)} and "
                f"{_inventory(labels, (spec.label_ext,), label_folder)}. {self._advice}"
            )
        self._paths = [pairs[name] for name in self.names]
        self.selection: dict[str, int] = {}
        unlabelled, imageless, expected = len(images) - len(self), len(labels) - len(self), spec.num_images
        if spec.split is None and (unlabelled or imageless if expected is None else len(self) != expected):
            wanted = "" if expected is None else f", expected {expected}"
            logger.warning(
                "data set %r: %d pairs%s; left out %d images without label map and %d label maps without image",
                *(spec.name, len(self), wanted, unlabelled, imageless),
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Sample:
        """Read one pair, see :func:`read_sample`."""
        return read_sample(self.spec, *self._paths[index], self._advice)

    def load_label(self, index: int) -> np.ndarray:
        """Read one label map alone, see :func:`read_checked_label`."""
        return read_checked_label(self.spec, self._paths[index][1], self._advice)

    def paths(self, index: int) -> tuple[str, str]:
        """Files of one pair: image, label map."""
        return self._paths[index]

    def spread(self, count: int) -> "SegmentationPairs":
        """Return so many of the pairs, spread evenly over the sorted names, always the same; all for 0 or too many."""
        if not 0 < count < len(self):
            return self
        by_name = sorted(range(len(self)), key=self.names.__getitem__)
        chosen = sorted(by_name[number * len(self) // count] for number in range(count))
        part = copy(self)
        part.names, part._paths = [self.names[i] for i in chosen], [self._paths[i] for i in chosen]
        part.selection = {"num_images": count}
        return part


def digest_of_files(spec: DatasetSpec, root: str | os.PathLike[str] | None = None) -> str | None:
    """Hash names, sizes and times of writing, in whole seconds, of the files of a data set; their content is not read.

    ``None`` if the data set is drawn, so that its declaration identifies it, or is not on disk.
    """
    if spec.is_drawn:
        return None
    try:
        pairs = SegmentationPairs(spec, root)
    except DatasetError:
        return None
    files = [os.stat(path) for index in range(len(pairs)) for path in pairs.paths(index)]
    return fingerprint({"names": pairs.names, "files": [(file.st_size, int(file.st_mtime)) for file in files]})


def read_sample(spec: DatasetSpec, image_path: str, label_path: str, advice: str = "") -> Sample:
    """Read one pair of a data set; ``advice`` is what errors say to do.

    Raises:
        ImageReadError: a file cannot be read.
        PairError: the two differ in size, or the label map holds a value that is neither class nor ignore label.
    """
    image, label = read_image(image_path, as_stored=True), read_checked_label(spec, label_path, advice)
    if image.shape[:2] != label.shape:
        turned = image.shape[1::-1] == label.shape
        raise PairError(
            f"sizes differ: the image {image_path} is {image.shape[1]}x{image.shape[0]} (width x height), its "
            f"label map {label_path} is {label.shape[1]}x{label.shape[0]}"
            + ("; the image is shown upright by its EXIF orientation, turn the label map likewise" * turned)
        )
    return Sample(image, label, image_path, label_path)


def read_checked_label(spec: DatasetSpec, path: str, advice: str = "") -> np.ndarray:
    """Read one label map of a data set, as int64 (H, W).

    It holds class indices 0..num_evaluated_classes - 1 and the ignore label; for training also ``BACKGROUND``.

    Raises:
        ImageReadError: the file cannot be read.
        PairError: it holds another value.
    """
    if (rule := spec.label_rule) is not None:
        no_data = next((value for value, label in rule.labels if label == spec.ignore_label), None)
        label = read_label(path, no_data, is_color=rule.is_color)
        try:
            return rule(label)
        except ValueError as error:
            keys = "palette" if rule.is_color else "label_map or ignore_label"
            raise PairError(f"{path}: {error}; list them in {keys} of its entry (others: ignore). {advice}") from error
    label = read_label(path, no_data=spec.ignore_label)
    strange = ((label < 0) | (label >= spec.num_evaluated_classes)) & (label != spec.ignore_label)
    if strange.any():
        values = listed(np.unique(label[strange]), 5)
        raise PairError(
            f"{path}: {np.count_nonzero(strange)} pixels hold {values}; the data set {spec.name!r} allows "
            f"0..{spec.num_evaluated_classes - 1} and the ignore label {spec.ignore_label}. {advice}".rstrip()
        )
    return label.astype(np.int64)


def _listed_pairs(
    spec: DatasetSpec, root: str | os.PathLike[str] | None, images: dict[str, str], labels: dict[str, str]
) -> dict[str, tuple[str, str]]:
    """Read the split: (image, label map) by name; ``images`` and ``labels`` are the files by name."""
    file = datasets_root(root) / os.path.expanduser(spec.split or "")
    where, names = f"data set {spec.name!r}: split {file}", {path: x for x, path in [*images.items(), *labels.items()]}

    def find(text: str, folder: Path, files: dict[str, str], problem: str) -> str:
        for path in (text.lstrip("/"), f"/{text}".rpartition(f"/{folder.name}/")[2]):
            if (name := path if path in files else names.get(str(folder / path))) in files:
                return str(name)
        raise DatasetError(f"{where}, line {number}: {problem} {text!r} in {folder}. {_advice(spec, root)}")

    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    pairs: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        columns = [line] if line in images or len(line.split()) != 2 else line.split()  # a name may hold spaces
        image = find(columns[0], spec.image_folder(root), images, "no image")
        label = find((*columns, image)[1], spec.label_folder(root), labels, "no label map")
        if image in pairs:
            raise DatasetError(f"{where}, line {number} lists {image!r} again")
        pairs[image] = images[image], labels[label]
    if not pairs:
        raise DatasetError(f"{where} lists no pair")
    return pairs


def _files_by_name(folder: Path, endings: tuple[str, ...], spec: DatasetSpec) -> dict[str, str]:
    """Files below a folder that have one of the endings, by their path inside it without the ending."""
    found: dict[str, str] = {}
    for parent, _, files in os.walk(folder):
        for file in files:
            ending = next((ending for ending in endings if file.lower().endswith(ending.lower())), None)
            if ending is None or file.startswith("."):  # hidden files are left behind by other programs
                continue
            path = os.path.join(parent, file)
            name = path[len(os.path.join(folder, "")) : -len(ending)].replace(os.sep, "/")
            if name in found:
                raise DatasetError(f"data set {spec.name!r}: two files for one name: {found[name]} and {path}")
            found[name] = path
    return found


def _inventory(found: dict[str, str], endings: tuple[str, ...], folder: Path) -> str:
    if found:
        example = f", such as {os.path.basename(min(found.values()))!r}"
    else:
        first = min((entry.name for entry in os.scandir(folder)), default=None)
        example = " (the folder is empty)" if first is None else f" (the folder holds {first!r})"
    return f"{len(found)} files ending with {' or '.join(endings)} in {folder.absolute()}{example}"


def _advice(spec: DatasetSpec, root: str | os.PathLike[str] | None) -> str:
    if spec.preparation is None:
        return "Check image_dir, label_dir, image_ext, label_ext and ignore_label of its declaration."
    option = f" --root {shlex.quote(os.fspath(root))}" if root else ""
    return f"Prepare it with: python datasets/prepare.py {spec.preparation}{option}"
