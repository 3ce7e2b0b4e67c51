"""The one folder whose files the page serves and labels: uploads, samples and results."""

import mimetypes
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 60
# what a browser may show; anything else, a page with scripts say, is handed out as a download
SHOWN = {"image/avif", "image/bmp", "image/gif", "image/jpeg", "image/png", "image/tiff", "image/webp"}


class NoSuchUpload(LookupError):
    """A path that a client may not have: outside the folder or absent, which the message does not tell apart."""

    def __init__(self) -> None:
        super().__init__("There is no such upload; choose the picture again.")


class Uploads:
    """A folder of this server's own.

    Args:
        folder: an existing folder. Links in its own path are followed, links in it lead to files in it or nowhere.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()

    def find(self, path: str) -> Path:
        """Return the file, links resolved, that a client means; nothing outside the folder is looked at.

        Raises:
            NoSuchUpload: it is not in the folder, absent, or no file.
        """
        try:
            # first by the letters alone: whether a file outside is there cannot be told even from the time taken
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
        safe = re.sub(r"[^\w.-]+", "_", Path(name).name)[-LONGEST_NAME:].lstrip(".") or "picture"
        path = self.folder / secrets.token_hex(16) / safe
        path.parent.mkdir()
        with path.open("wb") as file:
            shutil.copyfileobj(content, file)
        return path


def media_type(path: Path) -> str | None:
    """Return a picture's media type for a browser to show it, ``None`` for what it should not."""
    guessed = mimetypes.guess_type(path.name)[0]
    return guessed if guessed in SHOWN else None
