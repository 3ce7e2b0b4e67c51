"""The files of results, made when a visitor asks for one."""

import multiprocessing
import secrets
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from err_seg.data.images import ImageReadError, read_image
from err_seg.jobs.formats import Result, result_path, write_result
from err_seg.prediction.segmentation import ROOM_FOR_NAMES
from err_seg.utils.fingerprint import WeightsSource
from err_seg.utils.processes import start_method
from err_seg.visualization.grid import fitting_size
from err_seg.visualization.overlay import OPACITY
from err_seg.web.uploads import NoSuchUpload, Uploads

PROCESSES = multiprocessing.get_context(start_method())
PROCESSES.set_forkserver_preload(["err_seg.data.images"])
DECODING_SECONDS = 20
SHOWN_SIDE = 1400
PERCENT = round(100 * OPACITY)
MOST_RESULTS = 32  # each is the K maps at the network's resolution: some megabytes
FileKind = Literal["labels", "overlay", "coco", "video"]  # the last is what the page shows: without a legend
FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size (H, W) at which an image is shown: large enough for names, and no larger than needed."""
    longer = max(size)
    return fitting_size(size, min(SHOWN_SIDE, longer) * max(1, -(-ROOM_FOR_NAMES // longer)))


def read_upload(path: Path) -> np.ndarray:
    """Read an image in a process of its own, since decoders may hang or crash.

    Raises:
        ImageReadError: see :func:`~err_seg.data.images.read_image`; also if it takes longer.
    """
    with PROCESSES.Pool(1) as pool:
        try:
            return pool.apply_async(read_image, [path]).get(DECODING_SECONDS)
        except multiprocessing.TimeoutError as error:
            raise ImageReadError(f"{path}: is not decoded within {DECODING_SECONDS} s; save it as PNG") from error


class Downloads:
    """The latest results of all visitors. Only who has a result's key, which nobody can guess, gets its files.

    Args:
        uploads: the folder in which they are written.
        source: the model's weights, for the files to name; of a path on this machine, they name only the file.
    """

    def __init__(self, uploads: Uploads, source: WeightsSource | None = None):
        self.uploads = uploads
        self.weights = replace(source, file=Path(source.file).name).facts() if source else None
        self.results: OrderedDict[str, Result] = OrderedDict()

    def keep(self, result: Result, path: Path) -> str:
        """Keep the result of an upload, in the place of the oldest if there are many; return its key."""
        key = secrets.token_hex(16)
        self.results[key] = replace(result, image=np.empty(0), source=str(path), weights=self.weights)
        while len(self.results) > MOST_RESULTS:
            self.results.popitem(last=False)
        return key

    def write(self, key: str, kind: FileKind, percent: int = PERCENT) -> Path:
        """Write a file of a result, with colours of an opacity in percent, unless it was written before.

        Returns:
            Its path. All but "video" are of the image's own size.

        Raises:
            NoSuchUpload: the result or its image is gone.
        """
        stored = self.results.get(key)
        if stored is None:
            raise NoSuchUpload
        folder = self.uploads.folder / f"{key}-{percent}"
        file = result_path(stored.name, kind, folder)
        if not file.exists():
            path = self.uploads.find(stored.source)
            segmentation = replace(stored.segmentation)  # whose labels do not stay in memory
            image, opacity = read_upload(path), percent / 100
            result = replace(stored, image=image, segmentation=segmentation, source=path.name, opacity=opacity)
            folder.mkdir(exist_ok=True)
            write_result(result.resized(shown_size(segmentation.size)) if kind == "video" else result, [kind], folder)
        return file
