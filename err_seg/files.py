"""Writing files so that each is complete or absent, even where the process is killed in between."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL_SUFFIX = ".partial"
_BLOCK = 1 << 20


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file aside, then rename it into place.

    Yields a path in the same folder (a hidden name that ends in ".partial", so no reader takes it for the file; tell
    writers that go by the suffix the format, or hand them an open file). When the block ends well, the file written
    there replaces ``path`` in one step; when it raises, that file is removed and ``path`` is as before. Missing
    folders are made. Processes that write the same path do not disturb each other: the last one wins.

        with atomic_write("results.json") as partial:
            partial.write_text(json.dumps(results))

    Args:
        path: the file to write.

    Raises:
        OSError: the file cannot be written, or the block wrote none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL_SUFFIX}")
    try:
        yield partial
        partial.chmod(0o666 & ~_umask())  # some writers make files that nobody else may read
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _umask() -> int:
    umask = os.umask(0o077)  # there is no way to read it without setting it
    os.umask(umask)
    return umask


def remove_partial_files(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of :func:`atomic_write` in a folder that nobody else is writing to."""
    for partial in Path(folder).glob(f".*{_PARTIAL_SUFFIX}"):
        partial.unlink(missing_ok=True)


def read_blocks(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield a file's content in pieces."""
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    digest = hashlib.sha256()
    for block in read_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def cache_dir() -> Path:
    """Return the folder of what is kept between runs: ``$ERR_SEG_CACHE``, else ``~/.cache/err_seg``."""
    return Path(os.environ.get("ERR_SEG_CACHE") or Path.home() / ".cache" / "err_seg")
