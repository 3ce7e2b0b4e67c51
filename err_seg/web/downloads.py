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


class Labelled(NamedTuple):
    """What the files of a result are made of.

    Attributes:
        path: the image.
        segmentation: its prediction, of the image's own size.
        words: the classes.
        names: whether the overlay has names on its regions.
    """

    path: Path
    segmentation: Segmentation
    words: LabelSet
    names: bool


class Downloads:
    """The latest results of all visitors. Only who has a result's key, which nobody can guess, gets its files.

    Args:
        uploads: the folder in which they are written.
        source: the model's weights, for the files to name; of a path on this machine, they name only the file.
    """

    def __init__(self, uploads: Uploads, source: WeightsSource | None = None):
        self.uploads = uploads
        self.weights = replace(source, file=Path(source.file).name).facts() if source else None
        self.results: OrderedDict[str, Labelled] = OrderedDict()

    def keep(self, labelled: Labelled) -> str:
        """Keep a result, in the place of the oldest if there are many; return its key."""
        key = secrets.token_hex(16)
        self.results[key] = labelled
        while len(self.results) > MOST_RESULTS:
            self.results.popitem(last=False)
        return key

    def write(self, key: str, kind: FileKind) -> Path:
        """Write a file of a result at the image's own size, unless it was written before; return its path.

        Raises:
            NoSuchUpload: there is no such result any more, or its image is gone.
        """
        labelled = self.results.get(key)
        if labelled is None:
            raise NoSuchUpload
        path, segmentation, words, names = labelled
        folder = self.uploads.folder / key
        (file,) = result_paths(path.stem, [kind], folder)
        if not file.exists():
            image = read_image(self.uploads.find(str(path)))
            whole = replace(segmentation)  # its labels do not stay in memory
            labels, shown = words.labels(whole), (None, None, names, self.weights)
            result = Result(path.stem, path.name, image, whole, labels, words, *shown)
            folder.mkdir(exist_ok=True)
            write_result(result, [kind], folder)
        return file
