"""Frames of a video, by PyAV if it is installed, else by OpenCV."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

VIDEO_SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv", ".ts"))

# decodes a frame to (H, W, 3) uint8 RGB when it is called
Frame = Callable[[], np.ndarray]


class VideoError(ValueError):
    """A video that cannot be read; the message names the file."""


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video in order; turning one into RGB waits until it is asked for.

    Raises:
        VideoError: no library, no such file, not a video, or damaged (after the frames before the damage).
    """
    if not path.is_file():
        raise VideoError(f"{path}: no such file")
    if find_spec("av"):
        yield from _by_pyav(path)
    elif find_spec("cv2"):
        yield from _by_opencv(path)
    else:
        raise VideoError(f"{path}: reading videos needs PyAV (pip install av) or OpenCV (pip install opencv-python)")


def _by_pyav(path: Path) -> Iterator[Frame]:
    import av

    count = 0
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield partial(frame.to_ndarray, format="rgb24")
                count += 1
    except (av.error.FFmpegError, IndexError) as error:
        raise VideoError(f"{path}: cannot be read as a video after {count} frames ({error})") from error
    if count == 0:
        raise VideoError(f"{path}: holds no frames")


def _by_opencv(path: Path) -> Iterator[Frame]:
    import cv2

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
        raise VideoError(f"{path}: cannot be read as a video")
