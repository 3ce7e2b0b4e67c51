"""The files of results, made when a visitor asks for one."""

import secrets
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from err_seg.data import read_image
from err_seg.jobs.formats import Result, result_paths, write_result
from err_seg.jobs.label_set import LabelSet
from err_seg.prediction.segmentation import Segmentation
from err_seg.utils.fingerprint import WeightsSource
from err_seg.web.uploads import NoSuchUpload, Uploads

MOST_RESULTS = 32  # each is the K maps at the network's resolution: some megabytes
FileKind = Literal["labels", "overlay", "coco"]
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)


class StoredResult(NamedTuple):
    """What the files of a result are made of.

    Attributes:
        path: the image.
        segmentation: its prediction, of the image's own size.
        label_set: the classes.
        region_names: whether the overlay has names on its regions.
    """

    path: Path
    segmentation: Segmentation
    label_set: LabelSet
    region_names: bool


class Downloads:
    """The latest results of all visitors. Only who has a result's key, which nobody can guess, gets its files.

    Args:
        uploads: the folder in which they are written.
        source: the model's weights, for the files to name; of a path on this machine, they name only the file.
    """

    def __init__(self, uploads: Uploads, source: WeightsSource | None = None):
        self.uploads = uploads
        self.weights = replace(source, file=Path(source.file).name).facts() if source else None
        self.results: OrderedDict[str, StoredResult] = OrderedDict()

    def keep(self, result: StoredResult) -> str:
        """Keep a result, in the place of the oldest if there are many; return its key."""
        key = secrets.token_hex(16)
        self.results[key] = result
        while len(self.results) > MOST_RESULTS:
            self.results.popitem(last=False)
        return key

    def write(self, key: str, kind: FileKind) -> Path:
        """Write a file of a result at the image's own size, unless it was written before; return its path.

        Raises:
            NoSuchUpload: the result or its image is gone.
        """
        stored = self.results.get(key)
        if stored is None:
            raise NoSuchUpload
        folder = self.uploads.folder / key
        (file,) = result_paths(stored.path.stem, [kind], folder)
        if not file.exists():
            result = Result(
                name=stored.path.stem,
                source=stored.path.name,
                image=read_image(self.uploads.find(str(stored.path))),
                segmentation=replace(stored.segmentation),  # whose labels do not stay in memory
                label_set=stored.label_set,
                region_names=stored.region_names,
                weights=self.weights,
            )
            folder.mkdir(exist_ok=True)
            write_result(result, [kind], folder)
        return file
