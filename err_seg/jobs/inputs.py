"""The inputs: images, folders, globs, videos, addresses and standard input, in the same order for all processes."""

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from err_seg.data import read_masked_image
from err_seg.data.download import fetch, is_url, shown_url
from err_seg.jobs.failures import Problem
from err_seg.jobs.input_digest import BytesContent, Content, FileContent
from err_seg.jobs.result_names import DIGITS, fitting_name, name_key, printable
from err_seg.jobs.unsupported_formats import is_readable, why_unreadable
from err_seg.jobs.video import VideoError, is_video, video_frames
from err_seg.utils.fingerprint import content_digest

STDIN = "-"
# with ".json" behind it, this is a file of another image or of the whole job
_ENDS_AS_FILES_DO = re.compile(r"(_rle|_coco|_page|^_annotations\.coco)$", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """An image or video.

    Attributes:
        path: of the file; ``None`` of what is none.
        relative: its path below the input.
        text: the address of what is to be fetched, or "-" for standard input.
    """

    path: Path | None
    relative: Path
    text: str = ""

    @property
    def whole(self) -> str:
        """What no other source has: the path from the root, or the address."""
        return str(self.path.absolute()) if self.path else self.text

    def name(self, level: int) -> str:
        """Return a name for its results, longer with each level: from "cat" to "home/me/images/cat.jpg"."""
        if level == 0:
            return self.relative.with_suffix("").as_posix()
        if self.path:
            parts = Path(os.path.abspath(self.path)).parts[1:]  # without "..", which would lead out of the results
        else:
            parts = _address_parts(self.text) or self.relative.parts
        wanted = len(self.relative.parts) + level - 1
        name = Path(*parts[-wanted:]).as_posix()
        return name if wanted <= len(parts) else f"{name}-{content_digest(os.fsencode(self.whole))}"


@dataclass(frozen=True)
class Item:
    """An image to predict.

    Attributes:
        name: of the results, a relative path without ending, unique among the sources.
        frame: number of the frame, if the file is a video.
        source: its name in messages.
        content: what identifies the file.
        read: returns (H, W, 3) uint8 RGB, masked where there is no data; raises ``ImageReadError``.
    """

    name: str
    frame: int | None
    source: str
    content: Content
    read: Callable[[], np.ndarray]


def collect_sources(inputs: Iterable[str], exclude: Path | None = None) -> tuple[list[Source], list[Problem]]:
    """Resolve the user's inputs; each file counts once.

    Args:
        inputs: files, folders (with all images and videos below), glob patterns, https addresses of images, or "-"
            for standard input.
        exclude: a folder to leave out, that of the results.

    Returns:
        The sources, in order, and the problems: what is missing or empty, or looks like an image but cannot be read.
    """
    sources: dict[Path | str, Source] = {}
    problems: list[Problem] = []
    own = exclude.resolve() if exclude else None
    for text in inputs:
        found = _expand(text, problems)
        outside = [source for source in found if not (own and source.path and own in source.path.resolve().parents)]
        if not found:
            kind = "holds no images or videos" if Path(text).is_dir() else "no such file"
            problems.append(Problem(text, f"{printable(text)}: {kind}"))
        elif not outside:
            place = f"lies in the results' own folder {exclude}; choose another --output"
            problems.append(Problem(text, f"{printable(text)}: {place}"))
        for source in outside:
            if source.path and (reason := why_unreadable(source.path)):
                problems.append(Problem(str(source.path), f"{printable(source.path)}: {reason}"))
            else:
                sources.setdefault(source.path.resolve() if source.path else source.text, source)
    return list(sources.values()), problems


def _expand(text: str, problems: list[Problem]) -> list[Source]:
    if text == STDIN:
        return [Source(None, Path("stdin"), STDIN)]
    if is_url(text):
        return [Source(None, Path((_address_parts(text) or ("image",))[-1]), text)]
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        return [Source(file, file.relative_to(path)) for file in sorted(_images_below(path, problems))]
    if path.exists() or path.is_symlink():
        return [Source(path, Path(path.name))]
    files = (Path(found) for found in sorted(glob.glob(str(path), recursive=True)))
    return [Source(file, Path(file.name)) for file in files if file.is_file()]


def _images_below(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    """Yield files that look like an image or video and are not hidden; folders without permission become problems."""

    def report(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"{printable(error.filename)}: {error.strerror}"))

    for below, folders, names in os.walk(folder, onerror=report):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(below, name) for name in names if not name.startswith(".")):
            # a link to nowhere is reported later, a pipe is left out
            if (is_readable(path) or why_unreadable(path)) and (path.is_file() or not path.exists()):
                yield path


def name_sources(sources: Sequence[Source]) -> list[str]:
    """Give each source a different name, no longer than needed: "cat", or "cat.jpg" and "cat.png", or "a/cat.jpg".

    The names differ on every file system. Of paths that differ only in case, all but the first get a digest at the end.
    Names that are too long for a file are cut and get one as well. The frames of a video get a folder with the video's
    whole name. Neither that folder nor any file of a result can be another result's.
    """
    first: dict[str, Source] = {}
    endings = []
    for source in sources:
        is_first = first.setdefault(name_key(source.whole), source) is source
        endings.append("" if is_first else f"-{content_digest(os.fsencode(source.whole))[:DIGITS]}")
    levels = [1 if source.path and is_video(source.path) else 0 for source in sources]
    while True:
        named = zip(sources, levels, endings, strict=True)
        names = [fitting_name(_distinct(source.name(level)), ending) for source, level, ending in named]
        count = Counter(name_key(name) for name in names)
        if max(count.values(), default=1) == 1:
            return names
        levels = [level + (count[name_key(name)] > 1) for name, level in zip(names, levels, strict=True)]


def _distinct(name: str) -> str:
    """Put "-" behind the parts of a name by which results could be others': of "photo_rle.png", frames or the job."""
    *folders, last = name.split("/")
    inside = [f"{part}-" if part.lower().endswith("_masks") or is_video(Path(part)) else part for part in folders]
    return "/".join([*inside, f"{last}-" if _ENDS_AS_FILES_DO.search(last) else last])


def iterate_items(
    sources: Sequence[Source], *, rank: int = 0, world_size: int = 1, whole_videos: bool = False, **reading: Any
) -> Iterator[Item | Problem]:
    """Yield the items of one process: number ``rank``, ``rank + world_size``, ... of all, in the sources' order.

    Args:
        sources: see :func:`collect_sources`.
        rank, world_size: this process and the number of all.
        whole_videos: leave all frames of a video to one process.
        reading: ``every``, to take each n-th frame of a video, and options of
            :func:`err_seg.data.read_masked_image`.

    Yields:
        Items, and problems with videos.
    """
    number = 0
    for source, name in zip(sources, name_sources(sources), strict=True):
        for item in _items_of(source, name, **reading):
            if number % world_size == rank:
                yield item
            number += not whole_videos
        number += whole_videos


def _items_of(source: Source, name: str, every: int = 1, **reading: Any) -> Iterator[Item | Problem]:
    if source.path is None:
        if source.text == STDIN:
            title, data = "standard input", BytesContent(STDIN, sys.stdin.buffer.read)
        else:
            title = shown_url(source.text)
            # addresses may differ only in what is not shown, such as a key
            hidden = "" if title == source.text else f"#{content_digest(os.fsencode(source.text))}"
            data = BytesContent(title + hidden, partial(fetch, source.text))
        yield Item(name, None, title, data, lambda: read_masked_image(data.data, title, **reading))
        return
    content, title = FileContent(source.path), printable(source.path)
    if not is_video(source.path):
        read = partial(read_masked_image, source.path, **reading)
        yield Item(name, None, title, content, partial(content.read, read))
        return
    with suppress(OSError):
        _ = content.signature  # taken before the file is opened
    try:
        for number, decode in enumerate(video_frames(source.path)):
            if number % every == 0:
                yield Item(name, number, f"{title}, frame {number}", content, partial(content.read, decode))
    except VideoError as error:
        yield Problem(title, str(error))


def _address_parts(text: str) -> tuple[str, ...]:
    """Split an address into the server and the folders and file there; nothing, if it is none."""
    return tuple(part for part in shown_url(text).partition("://")[2].split("/") if part.strip("."))
