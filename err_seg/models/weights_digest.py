"""The digest of a file of weights, remembered between runs."""

import os
from contextlib import suppress
from pathlib import Path

from err_seg.models.checkpoint import open_checkpoint
from err_seg.utils.files import cache_dir, file_signature, write_text
from err_seg.utils.fingerprint import fingerprint, is_settled, weights_digest


def weights_file_digest(file: str | os.PathLike[str]) -> str:
    """Hash the tensors in a file of weights as :func:`weights_digest` does; metadata and file format do not count.

    The digest is remembered in the cache folder under the file's path and signature.

    Raises:
        CheckpointError: the file cannot be read.
    """
    path = Path(file).resolve()
    if not path.is_file():
        return weights_digest(open_checkpoint(path).weights)  # its error says what is wrong
    signature = file_signature(path)
    known = cache_dir() / "digests" / fingerprint({"path": str(path), "signature": signature})
    try:
        return known.read_text(encoding="ascii")
    except (OSError, ValueError):
        # by the name that was given, which tells the format; a link's target may not
        digest = weights_digest(open_checkpoint(Path(file)).weights)
    if is_settled(signature) and file_signature(path) == signature:
        with suppress(OSError):  # without this the digest is only computed again
            write_text(known, digest)
    return digest
