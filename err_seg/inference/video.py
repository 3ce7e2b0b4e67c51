"""Frames of a video, by PyAV if it is installed, else by OpenCV."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from err_seg.inference.names import printable

VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv"),
    )
)

# decodes a frame to (H, W, 3) uint8 RGB when it is called
Frame = Callable[[], np.ndarray]


class VideoError(ValueError):
    """A video that cannot be read; the message names the file."""


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video in order; each is converted to RGB only when it is called for.

    Raises:
        VideoError: no library, no such file, not a video, or damaged (after the frames before the damage).
    """
    if not path.is_file():
        raise VideoError(f"{printable(path)}: no such file")
    if find_spec("av"):
        yield from _by_pyav(path)
    elif find_spec("cv2"):
        yield from _by_opencv(path)
    else:
        raise VideoError(
            f"{printable(path)}: reading videos needs PyAV (pip install av) or OpenCV (pip install opencv-python)"
        )


def _by_pyav(path: Path) -> Iterator[Frame]:
    import av

    count = 0
    try:
        # the library takes names in UTF-8 only, but any open file
        with open(path, "rb") as stream, av.open(stream) as container:
            for frame in container.decode(video=0):
                yield partial(frame.to_ndarray, format="rgb24")
                count += 1
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise VideoError(f"{printable(path)}: cannot be read as a video after {count} frames ({error})") from error
    if count == 0:
        raise VideoError(f"{printable(path)}: holds no frames")


def _by_opencv(path: Path) -> Iterator[Frame]:
    import cv2

    if printable(path) != str(path):
        raise VideoError(f"{printable(path)}: OpenCV takes names in UTF-8 only; rename it, or pip install av")
    capture: Any = cv2.VideoCapture(str(path))
    count = 0
    try:
        while True:
            found, frame = capture.read()
            if not found:
                break
            yield partial(np.ascontiguousarray, frame[:, :, ::-1])
            count += 1
    finally:
        capture.release()
    if count == 0:
        raise VideoError(f"{printable(path)}: cannot be read as a video")
