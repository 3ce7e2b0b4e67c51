"""The text file that lists the pairs of a split, one a line; blank lines and those that begin with # do not count.

A line is the name of a pair ("aachen/0001"), or image and label map ("train/0001.png trainannot/0001.png"). Each may be
given with or without its ending, as the path inside its folder, or as a path that leads there through the folder's own
name ("/SegNet/CamVid/train/0001.png" for the image folder ".../train").
"""

import os
from collections.abc import Mapping
from pathlib import Path

from err_seg.data.spec import DatasetError, DatasetSpec


def listed_pairs(
    spec: DatasetSpec, file: Path, root: str | os.PathLike[str] | None, *found: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Read the split file of a data set.

    Args:
        found: the files of images, then those of label maps, by their path inside the folder without the ending.

    Returns:
        (image, label map) by the image's name.

    Raises:
        DatasetError: the file cannot be read or lists nothing; or a line lists a pair again, or a file that is missing.
    """
    where = f"data set {spec.name!r}: split {file}"
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{where} cannot be read: {error}") from error
    folders = spec.image_folder(root), spec.label_folder(root)
    known = [
        {**{Path(path).relative_to(folder).as_posix(): path for path in files.values()}, **files}
        for folder, files in zip(folders, found, strict=True)
    ]
    names = {path: name for name, path in found[0].items()}
    pairs: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        at = f"{where}, line {number}:"
        columns = [line] if line in known[0] else line.split()  # names may hold spaces
        if len(columns) > 2:
            raise DatasetError(f"{at} {line!r}; expected a name, or image and label map")
        image = _find(columns[0], folders[0], known[0], f"{at} no image ending with {' or '.join(spec.image_endings)}")
        name = names[image]
        if name in pairs:
            raise DatasetError(f"{at} {name!r} is listed twice")
        label = (*columns, name)[1]
        pairs[name] = image, _find(label, folders[1], known[1], f"{at} no label map ending with {spec.label_ext}")
    if not pairs:
        raise DatasetError(f"{where} lists no pair")
    return pairs


def _find(text: str, folder: Path, files: Mapping[str, str], problem: str) -> str:
    path = files.get(text.lstrip("/")) or files.get(f"/{text}".rpartition(f"/{folder.name}/")[2])
    if path is None:
        raise DatasetError(f"{problem} is {text!r} in {folder.absolute()}")
    return path
