"""The one folder whose files the page serves and labels: uploads, samples and results."""

import mimetypes
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 60
# what a browser may show; anything else, such as a page with scripts, is only offered as a download
SHOWN = {"image/avif", "image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp"}


class NoSuchUpload(LookupError):
    """A path that is not allowed: outside the folder, or absent. The message does not say which."""

    def __init__(self) -> None:
        super().__init__("There is no such upload; choose the image again.")


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


def media_type(path: Path) -> str | None:
    """Return an image's media type for a browser to show it, ``None`` for what it should not."""
    guessed = mimetypes.guess_type(path.name)[0]
    return guessed if guessed in SHOWN else None
