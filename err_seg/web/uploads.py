"""The one folder whose files the page serves and labels: uploads, samples and results."""

import os
import re
import secrets
import shutil
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from fastapi import HTTPException

LONGEST_NAME = 60


class NoSuchUpload(HTTPException):
    """A path that is not allowed: outside the folder, or absent. The answer does not say which."""

    def __init__(self) -> None:
        super().__init__(HTTPStatus.FORBIDDEN, "There is no such upload; choose the image again.")

    def __str__(self) -> str:
        return self.detail


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
