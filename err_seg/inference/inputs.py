"""What to predict: pictures, folders, globs, videos and standard input, in one order that all processes share."""

import glob
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from err_seg.data import ImageReadError, read_image
from err_seg.inference.video import VideoError, is_video, video_frames

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """A picture or video; ``path`` is ``None`` for standard input, ``relative`` its name as far as the user gave it."""

    path: Path | None
    relative: Path

    def name(self, level: int) -> str:
        """Return the name of its results: the longer the higher the level, from "cat" to "home/me/pictures/cat.jpg"."""
        if self.path is None:
            return "stdin"
        if level == 0:
            return self.relative.with_suffix("").as_posix()
        parts = self.path.absolute().parts[1:]
        return Path(*parts[-(len(self.relative.parts) + level - 1) :]).as_posix()


@dataclass(frozen=True)
class Item:
    """A picture to predict.

    Attributes:
        name: of its results, unique, a relative path without ending.
        source: what to call it in messages.
        read: returns (H, W, 3) uint8 RGB; raises ``ImageReadError``.
    """

    name: str
    source: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """An input that could not be used, and why."""

    source: str
    message: str


def collect_sources(inputs: Iterable[str], exclude: Path | None = None) -> tuple[list[Source], list[Problem]]:
    """Resolve what the user named; each file counts once.

    Args:
        inputs: files, folders (with all pictures and videos below), glob patterns, or "-" for standard input.
        exclude: a folder that nothing is taken from, the results' own.

    Returns:
        The sources, in order, and what is missing or empty.
    """
    sources: dict[Path | None, Source] = {}
    problems = []
    for text in inputs:
        found = _expand(text)
        if not found:
            kind = "holds no pictures or videos" if Path(text).is_dir() else "no such file"
            problems.append(Problem(text, f"{text}: {kind}"))
        for source in found:
            resolved = source.path.resolve() if source.path else None
            if resolved is None or exclude is None or exclude.resolve() not in resolved.parents:
                sources.setdefault(resolved, source)
    return list(sources.values()), problems


def _expand(text: str) -> list[Source]:
    if text == STDIN:
        return [Source(None, Path("stdin"))]
    path = Path(text).expanduser()
    if path.is_dir():
        return [Source(file, file.relative_to(path)) for file in _pictures_below(path)]
    if path.exists() or path.is_symlink():
        return [Source(path, Path(path.name))]
    files = (Path(found) for found in sorted(glob.glob(str(path), recursive=True)))
    return [Source(file, Path(file.name)) for file in files if file.is_file()]


def _pictures_below(folder: Path) -> list[Path]:
    endings = Image.registered_extensions().keys()
    files = (path for path in folder.rglob("*") if not any(p.startswith(".") for p in path.relative_to(folder).parts))
    return sorted(path for path in files if path.is_file() and (path.suffix.lower() in endings or is_video(path)))


def name_sources(sources: Sequence[Source]) -> list[str]:
    """Give each source a name of its own, no longer than needed: "cat", or "cat.jpg" and "cat.png", or "a/cat.jpg".

    The frames of a video get a folder with the video's whole name, which no picture's results can have.
    """
    levels = [1 if source.path and is_video(source.path) else 0 for source in sources]
    while True:
        names = [source.name(level) for source, level in zip(sources, levels, strict=True)]
        count = Counter(name.casefold() for name in names)  # some file systems do not tell cases apart
        if max(count.values(), default=1) == 1:
            return names
        levels = [level + (count[name.casefold()] > 1) for name, level in zip(names, levels, strict=True)]
        if max(levels) > 100:  # paths that differ in nothing but case
            raise ValueError(f"pictures whose paths differ in case only: {sorted(n for n in names if count[n] > 1)}")


def iterate_items(
    sources: Sequence[Source], *, rank: int = 0, world_size: int = 1, every: int = 1
) -> Iterator[Item | Problem]:
    """Yield the items of one process: number ``rank``, ``rank + world_size``, ... of all, in the sources' order.

    Args:
        sources: see :func:`collect_sources`.
        rank, world_size: this process and the number of all.
        every: take each n-th frame of a video.

    Yields:
        Items, and problems with videos.
    """
    number = 0
    for source, name in zip(sources, name_sources(sources), strict=True):
        for item in _items_of(source, name, every):
            if number % world_size == rank:
                yield item
            number += 1


def _items_of(source: Source, name: str, every: int) -> Iterator[Item | Problem]:
    if source.path is None:
        yield Item(name, "standard input", _read_stdin)
    elif not is_video(source.path):
        yield Item(name, str(source.path), partial(read_image, source.path))
    else:
        try:
            for number, read in enumerate(video_frames(source.path)):
                if number % every == 0:
                    yield Item(f"{name}/{number:06d}", f"{source.path}, frame {number}", read)
        except VideoError as error:
            yield Problem(str(source.path), str(error))


def _read_stdin() -> np.ndarray:
    data = sys.stdin.buffer.read()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return read_image(image)
    except (UnidentifiedImageError, ImageReadError) as error:
        what = "is empty" if not data else f"is not a picture, or a damaged one ({len(data)} bytes)"
        raise ImageReadError(f"standard input: {what}") from error
