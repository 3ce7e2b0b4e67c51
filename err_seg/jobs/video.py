"""Videos, read and written by PyAV if it is installed, else by OpenCV."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from err_seg.jobs.result_names import printable
from err_seg.utils.files import atomic_write

VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".f4v", ".flv", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4"),
        *(".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv"),
    )
)

USUAL_RATE = 25.0
# how much of a video may be missing: a share of it, yet no more than some seconds; sound may go on longer than pictures
MISSING_SHARE, MISSING_SECONDS = 0.05, 10.0

# decodes a frame to (H, W, 3) uint8 RGB when it is called
Frame = Callable[[], np.ndarray]
# at last: the number of frames, how long they last, and how long the video is as the file says (0: nothing), in seconds
Frames = Generator[Frame, None, tuple[int, float, float]]


class VideoError(ValueError):
    """A video that cannot be read or written; the message names the file."""


def is_video(path: Path) -> bool:
    """Whether a file's ending is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def video_frames(path: Path) -> Iterator[Frame]:
    """Yield the frames of a video in order; each is converted to RGB only when it is called.

    Raises:
        VideoError: no such file, or not a video; or, after all frames that can be read: damaged, or shorter than the
            file says, as when a download was cut.
    """
    if not path.is_file():
        raise VideoError(f"{printable(path)}: no such file")
    count, seconds, announced = yield from _frames_by_pyav(path) if find_spec("av") else _frames_by_opencv(path)
    if announced - seconds > min(MISSING_SHARE * announced + seconds / count, MISSING_SECONDS):
        raise VideoError(
            f"{printable(path)}: its {count} frames last {seconds:.1f} s, but the file announces {announced:.1f} s; it "
            "may be cut short, so fetch or copy it again"
        )


def frame_rate(path: Path) -> float:
    """Return a video's average frames per second; 25 where the file does not say, or is no longer there."""
    rate: float | None = None
    with suppress(Exception):  # some containers, files that are gone, and whatever the libraries raise for them
        if find_spec("av"):
            import av

            with open(path, "rb") as stream, av.open(stream) as container:
                rate = float(container.streams.video[0].average_rate or 0)
                # better, since some files say 1000, the unit of their frames' times
                times = sorted(one.pts * one.time_base for one in container.demux(video=0) if one.pts is not None)
                rate = float((len(times) - 1) / (times[-1] - times[0]))
        else:
            capture = cv2.VideoCapture(str(path))
            rate = capture.get(cv2.CAP_PROP_FPS)
            capture.release()
    return rate if rate and rate > 0 else USUAL_RATE


def write_video(frames: Iterable[np.ndarray], path: Path, rate: float) -> None:
    """Write frames as a video, complete or not at all: H.264 by PyAV, else MPEG-4 by OpenCV.

    Args:
        frames: (H, W, 3) uint8 RGB, at least one, all of the first one's size; an odd last row or column is repeated.
        path: its ending is .mp4.
        rate: frames per second.

    Raises:
        VideoError: it cannot be encoded.
        OSError: it cannot be written.
    """
    even = (np.pad(frame, [(0, side % 2) for side in frame.shape[:2]] + [(0, 0)], mode="edge") for frame in frames)
    first = next(even, None)
    if first is None:
        raise VideoError(f"{printable(path)}: there are no frames to write")
    try:
        with atomic_write(path) as temporary:
            write = _write_by_pyav if find_spec("av") else _write_by_opencv
            write(chain([first], even), (first.shape[1], first.shape[0]), temporary, rate)
    except OSError:
        raise
    except Exception as error:  # of the libraries that encode
        raise VideoError(f"{printable(path)}: cannot be written as a video ({error})") from error


def _write_by_pyav(frames: Iterable[np.ndarray], size: tuple[int, int], path: Path, rate: float) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


def _write_by_opencv(frames: Iterable[np.ndarray], size: tuple[int, int], path: Path, rate: float) -> None:
    named = path.with_suffix(".mp4")  # OpenCV goes by the ending
    try:
        writer = cv2.VideoWriter(str(named), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            raise VideoError("OpenCV cannot write MPEG-4 here, or the disk is full; pip install av")
        count = 0
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
            count += 1
        writer.release()
        written = max(0, int(cv2.VideoCapture(str(named)).get(cv2.CAP_PROP_FRAME_COUNT)))  # nothing else tells
        if written != count:
            raise VideoError(f"{written} of {count} frames were written: they differ in size, or the disk is full")
        named.replace(path)
    finally:
        named.unlink(missing_ok=True)


def _frames_by_pyav(path: Path) -> Frames:
    import av

    damaged: list[int] = []
    times: list[float] = []
    try:
        # the library takes names in UTF-8 only, but any open file
        with open(path, "rb") as stream, av.open(stream) as container:
            if not container.streams.video:
                sound = ", only sound" if container.streams.audio else ""
                raise VideoError(f"{printable(path)}: holds no pictures{sound}")
            video: Any = container.streams.video[0]
            rate = float(video.average_rate or USUAL_RATE)
            for packet in container.demux(video):
                for frame in packet.decode():
                    yield partial(_upright, frame)
                    damaged += [len(times)] * (frame.is_corrupt or packet.is_corrupt)
                    times.append(frame.time or 0.0)
            units = ((container.duration, 1 / av.time_base), (video.duration, video.time_base))
            announced = min((float(length * unit) for length, unit in units if length), default=0.0)
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{printable(path)}: cannot be read as a video after {len(times)} frames ({error})") from error
    if damaged:
        raise VideoError(
            f"{printable(path)}: frames are damaged ({len(damaged)} of {len(times)}, the first is number {damaged[0]})"
            ", so what they show may be wrong; fetch or copy it again"
        )
    if not times:
        raise VideoError(f"{printable(path)}: holds no frames")
    return len(times), max(times[-1] - times[0] + 1 / rate, len(times) / rate), announced


def _upright(frame: Any) -> np.ndarray:
    """Turn a frame of PyAV as viewers and OpenCV do: telephones note how they were held."""
    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return np.ascontiguousarray(turned)


def _frames_by_opencv(path: Path) -> Frames:
    if printable(path) != str(path):
        raise VideoError(f"{printable(path)}: OpenCV takes names in UTF-8 only; rename it, or pip install av")
    capture: Any = cv2.VideoCapture(str(path))
    count, last = 0, 0.0
    try:
        while True:
            found, frame = capture.read()
            if not found:
                break
            yield partial(np.ascontiguousarray, frame[:, :, ::-1])
            count, last = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        rate = capture.get(cv2.CAP_PROP_FPS) or USUAL_RATE
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT) / rate
    finally:
        capture.release()
    if count == 0:
        raise VideoError(
            f"{printable(path)}: OpenCV cannot read this as a video; if it holds pictures and not only sound, PyAV "
            "may: pip install av"
        )
    return count, max(last + 1 / rate, count / rate), announced
