"""A record of the results in a folder, which stays correct after kills and with several processes.

Each process has its own manifest: ``manifest.jsonl`` for the first or only one, ``manifest-<rank>.jsonl`` for the
others. It is a line of settings, then one line for each result, written when all files of the result are complete; the
sizes and times in it tell files that were written to since. Lines are only added. A kill therefore costs at most the
line being written, and no process waits for another.

The name of a result belongs to one image, known by its content. If the name already belongs to another
image, a digest is added at the end. An image that replaces another at the same path takes over its name.
"""

import errno
import io
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import safe_open

from err_seg.jobs.input_digest import Content
from err_seg.jobs.result_names import DIGITS, fitting_name, name_key


class OutputError(OSError):
    """Results that cannot be written; the message names the file or folder and the reason."""


@dataclass(frozen=True)
class Place:
    """The place of one image's results.

    Attributes:
        name: of the image's or video's results; it belongs to this content.
        frame: of the video.
        source: path of the image or video.
        digest, signature: of its content; the signature may save computing the digest next time.
        version: how many images have had the name, including this one.
    """

    name: str
    frame: int | None
    source: str
    digest: str
    signature: list[int] | None
    version: int

    @property
    def files(self) -> str:
        """The name of its result files, a relative path without ending."""
        return self.name if self.frame is None else f"{self.name}/{self.frame:06d}"


@dataclass
class _Owner:
    """The image that a name belongs to; ``digest`` is ``None`` if manifests disagree, and no result counts then."""

    source: str
    digest: str | None
    version: int
    frames: dict[int | None, Any] = field(default_factory=dict)  # to the sizes and times of the files


class Manifest:
    """The results in a folder, including those added from now on; see ``open_output``.

    Args:
        folder: where results go.
        descriptor: this process's manifest, open for appending and locked.
    """

    def __init__(self, folder: Path, descriptor: int):
        self.folder = folder
        self._descriptor = descriptor
        self._owners: dict[str, _Owner] = {}
        self._digests: dict[tuple[Any, ...], str] = {}
        self._lock = threading.Lock()

    def place(self, wanted: str, frame: int | None, content: Content) -> Place:
        """Find the place of an image's results, reading the image only if nothing else identifies it.

        Args:
            wanted: the name for its results, unless that belongs to another image.
            frame: of a video.
            content: the image or video.

        Raises:
            OSError: it cannot be read.
            OutputError: the manifest cannot be written.
        """
        signature = content.signature
        digest = (self._digests.get((content.path, *signature)) if signature else None) or content.digest
        with self._lock:
            for ending in ("", f"-{digest[:DIGITS]}", f"-{digest}"):
                name = fitting_name(wanted, ending)
                owner = self._owners.get(name_key(name))
                if owner is None or owner.digest in (None, digest) or owner.source == content.path:
                    break
            if owner is None:
                owner = self._owners[name_key(name)] = _Owner(content.path, digest, 1)
            elif owner.digest != digest:
                owner = self._owners[name_key(name)] = _Owner(content.path, digest, owner.version + 1)
                taken_over = Place(name, frame, content.path, digest, signature, owner.version)
                write_line(self._descriptor, {**asdict(taken_over), "done": False})
            return Place(name, frame, content.path, digest, signature, owner.version)

    def is_done(self, place: Place, files: Iterable[Path]) -> bool:
        """Whether the results are recorded as done, and these files of them are all there and can be read.

        A file is read only if it was written to since; one that somebody has edited stays.
        """
        files = list(files)
        with self._lock:
            frames = self._owners[name_key(place.name)].frames
            is_recorded, recorded = place.frame in frames, frames.get(place.frame)
        if not is_recorded or not all(file.is_file() for file in files):
            return False
        is_same = recorded == _signatures(files)
        if not is_same and not all(map(is_readable_result, files)):
            return False
        if not is_same or (place.signature and (place.source, *place.signature) not in self._digests):
            self.add(place, files)  # next time neither is needed
        return True

    def add(self, place: Place, files: Iterable[Path] = ()) -> None:
        """Record that the results of an image are complete: these files.

        Raises:
            OutputError: the manifest cannot be written.
        """
        signatures = _signatures(files)
        with self._lock:
            write_line(self._descriptor, {**asdict(place), "files": signatures})
            self._note(place, signatures)

    def read(self, lines: Iterable[bytes]) -> None:
        """Read the lines of a manifest."""
        for line in lines:
            try:
                facts = dict(json.loads(line))
                signatures, done = facts.pop("files", None), facts.pop("done", True)
                self._note(Place(**facts), signatures, done)
            except (ValueError, TypeError, RecursionError):
                continue  # cut short by a kill

    def _note(self, place: Place, signatures: Any, done: bool = True) -> None:
        """Take in a line; which of two lines about a name counts does not depend on their order."""
        owner = self._owners.get(name_key(place.name))
        if owner is None or owner.version < place.version:
            owner = self._owners[name_key(place.name)] = _Owner(place.source, place.digest, place.version)
        if owner.version == place.version and owner.digest != place.digest:  # by jobs that ran at the same time
            owner.digest, owner.frames = None, {}
        elif owner.version == place.version and done:
            owner.frames[place.frame] = signatures
        if place.signature:
            self._digests[(place.source, *place.signature)] = place.digest


def _signatures(files: Iterable[Path]) -> dict[str, list[int]]:
    """Return the size and the time of last write (ns) of each file; copies may keep both."""
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def is_readable_result(file: Path) -> bool:
    """Whether a file can be read as what its ending says: a table, JSON, features, else an image."""
    with suppress(Exception):  # of any decoder
        if file.suffix == ".csv":
            return b"class" in file.read_bytes()[:9]  # also behind what Excel puts before it
        if "json" in file.suffix:
            json.loads(file.read_bytes())
        elif file.suffix == ".safetensors":
            safe_open(file, framework="numpy")
        else:
            Image.open(io.BytesIO(file.read_bytes())).load()
        return True
    return False


def write_line(descriptor: int, line: Mapping[str, Any]) -> None:
    """Append a line to a manifest.

    Raises:
        OutputError: the disk is full, or the like.
    """
    data = json.dumps(line).encode() + b"\n"
    try:
        if os.write(descriptor, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise OutputError(f"cannot write to the results' manifest: {error}") from error
