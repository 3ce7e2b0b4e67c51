"""The one folder whose files the page serves and labels: uploads, samples, and results, made when one is asked for."""

import multiprocessing
import os
import re
import secrets
import shutil
from collections import OrderedDict
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import numpy as np
from fastapi import HTTPException

from err_seg.data.images import ImageReadError, read_image
from err_seg.jobs.formats import Result, result_path, write_result
from err_seg.prediction.segmentation import ROOM_FOR_NAMES
from err_seg.utils.fingerprint import WeightsSource
from err_seg.utils.processes import start_method
from err_seg.visualization.grid import fitting_size
from err_seg.visualization.overlay import OPACITY

LONGEST_NAME = 60  # of an upload
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


class NoSuchUpload(HTTPException):
    """A path that is not allowed: outside the folder, or absent. The answer does not say which."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.FORBIDDEN, "There is no such upload; choose the image again.")

    def __str__(self) -> str:
        return self.detail


class Uploads:
    """The server's folder.

    Args:
        folder: an existing folder. Links in its own path are followed; links inside it may only lead to files inside
            it.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()

    def find(self, path: str) -> Path:
        """Return the file that a client names, with links resolved; nothing outside the folder is looked at.

        Raises:
            NoSuchUpload: it is not in the folder, absent, or no file.
        """
        try:
            # first by the text alone, so that not even the time taken tells whether a file outside exists
            if not Path(os.path.normpath(path)).is_relative_to(self.folder):
                raise NoSuchUpload
            found = Path(path).resolve(strict=True)
            if found.is_relative_to(self.folder) and found.is_file():
                return found
        except (OSError, ValueError, RuntimeError):  # absent or too long; a null character; links in a circle
            pass
        raise NoSuchUpload

    def store(self, name: str, content: BinaryIO) -> Path:
        """Write a file under a path that nobody can guess; of its name, letters, digits, ``.`` and ``-`` are kept."""
        safe = re.sub(r"[^\w.-]+", "_", Path(name).name)[-LONGEST_NAME:].lstrip(".") or "image"
        path = self.folder / secrets.token_hex(16) / safe
        path.parent.mkdir()
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        return path


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
