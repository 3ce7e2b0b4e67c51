"""Writing files so that each is complete or absent, even where the process is killed in between."""

import functools
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from err_seg.utils.disk import writing

_PARTIAL_SUFFIX = ".partial"
_BLOCK = 1 << 20
_GIVEN_UP_AFTER = 24 * 3600.0  # seconds
_tidied: set[Path] = set()  # folders that this process has looked through: once is enough


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file aside, then rename it into place.

    Yields a path in the same folder, a hidden name that ends in ".partial". (Writers that choose the format by the
    suffix need it as an argument, or an open file.) When the block succeeds, the file written there replaces ``path``
    in one step; when it raises, that file is removed and ``path`` is as before. Missing folders are made. If several
    threads or processes write the same path, the last one wins. What killed processes left in the folder is removed,
    see :func:`remove_partial_files`.

        with atomic_write("image.png") as partial:
            image.save(partial, format="PNG")

    Args:
        path: the file to write; it may begin with "~".

    Raises:
        OSError: the file cannot be written, or the block wrote none.
    """
    path = Path(os.path.expanduser(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _tidied and remove_partial_files(path.parent):
        _tidied.add(path.parent)
    partial = path.with_name(f".{secrets.token_hex(8)}{_PARTIAL_SUFFIX}")
    with _writing_to(path.parent):
        try:
            with writing(path):
                yield partial
            partial.chmod(0o666 & ~_umask())  # some writers make files that other users may not read
            os.replace(partial, path)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename == str(partial):
                raise OSError(error.errno, error.strerror, str(path)) from error  # the name that was asked for
            raise


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of safetensors, by its name or by its beginning: the length of a header, and the header."""
    with open(path, "rb") as file:
        return Path(path).suffix == ".safetensors" or file.read(9)[8:] == b"{"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text in UTF-8, complete or not at all, see :func:`atomic_write`."""
    write_pieces(path, [text])


def write_pieces(path: str | os.PathLike[str], pieces: Iterable[str]) -> None:
    """Write a text in UTF-8, complete or not at all, of pieces that need not be in memory together."""
    with atomic_write(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


def write_json(path: str | os.PathLike[str], document: Any, **options: Any) -> None:
    """Write a document as JSON, complete or not at all; ``options`` are those of :func:`json.dumps`."""
    write_text(path, json.dumps(document, **{"indent": 1, **options}) + "\n")


@functools.cache
def _umask() -> int:
    umask = os.umask(0o077)  # there is no way to read it without setting it
    os.umask(umask)
    return umask


def remove_partial_files(folder: str | os.PathLike[str]) -> bool:
    """Remove what killed processes left of :func:`atomic_write` in a folder, and nothing that is being written.

    A writer holds a shared lock on the folder from before its file exists until after that is renamed. So if the lock
    can be taken exclusively, no process writes the files that were found before. Where the file system has no locks,
    files that were not written to for a day are removed.

    Returns:
        Whether none are left; ``False`` if some process is writing there.
    """
    found = [path for path in Path(folder).glob(f".*{_PARTIAL_SUFFIX}") if path.is_file()]
    if found:
        with _opened(folder) as descriptor:
            free = try_lock(descriptor)
        if free is False:
            return False
        for path in found:
            with suppress(FileNotFoundError):  # another process may be first
                if free or time.time() - path.stat().st_mtime > _GIVEN_UP_AFTER:
                    path.unlink()
    return True


def try_lock(descriptor: int | None, *, shared: bool = False) -> bool | None:
    """Lock an open file or folder until it is closed, in this process and in those that it is handed on to.

    Args:
        descriptor: of the file or folder; ``None`` cannot be locked.
        shared: let others have shared locks at the same time.

    Returns:
        Whether it is locked now; ``False``: another process holds the lock; ``None``: there are no locks here.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    if descriptor is None:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, shared, for the time of a ``with`` block."""
    with _opened(folder) as descriptor:
        for pause in (0.001, 0.01, 0.1, 0.0):  # it is never held exclusively for longer, unless by a foreign program
            if try_lock(descriptor, shared=True) is not False:
                break
            time.sleep(pause)
        yield


@contextmanager
def _opened(folder: str | os.PathLike[str]) -> Iterator[int | None]:
    """Open a folder for the time of a ``with`` block; yields a descriptor, or ``None`` where that is not allowed."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def hash_file(path: str | os.PathLike[str], digest: "hashlib._Hash | hashlib.blake2b") -> str:
    """Add a file's content to a new hash of :mod:`hashlib`; return the hash in hexadecimal digits."""
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return hash_file(path, hashlib.sha256())


def file_signature(path: str | os.PathLike[str]) -> list[int]:
    """Return a file's size and its times of last write and last change (ns); JSON-able.

    No program can set the time of change. So if a file is replaced by one of equal size and its time of writing is
    set back, the signature still differs.

    Raises:
        OSError: there is no such file.
    """
    facts = os.stat(path)
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def datasets_root(root: str | os.PathLike[str] | None = None) -> Path:
    """What relative folders lie under: ``root`` if not empty, else ``$DETECTRON2_DATASETS``, else ``./datasets``."""
    return Path(os.path.expanduser(root or os.environ.get("DETECTRON2_DATASETS") or "datasets"))


def cache_dir() -> Path:
    """Return the folder of what is kept between runs: ``$ERR_SEG_CACHE``, else ``~/.cache/err_seg``."""
    return Path(os.path.expanduser(os.environ.get("ERR_SEG_CACHE") or Path.home() / ".cache" / "err_seg"))
