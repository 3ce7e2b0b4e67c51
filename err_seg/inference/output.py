"""The folder of results: what is done there already, and for which settings."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from err_seg.files import atomic_write

SETTINGS = "settings.json"


class OutputError(OSError):
    """Results that cannot be written; the message names the file and the reason."""


def claim_output(folder: Path, settings: Mapping[str, Any], *, force: bool = False, main: bool = True) -> float:
    """Make a folder ready for the results of some settings, which are kept in its ``settings.json``.

    Args:
        folder: made if it is missing.
        settings: all that results depend on, JSON-able.
        force: count nothing that is there as done.
        main: whether this process writes the settings; the others of a job compare them.

    Returns:
        The time (seconds since the epoch) since which results count as done.

    Raises:
        OutputError: the folder holds results of other settings (names one), or cannot be written.
    """
    file = folder / SETTINGS
    settings = json.loads(json.dumps(settings))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.is_file() and not force:
            try:
                present = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                present = None
            if present == settings:
                return file.stat().st_mtime
            raise OutputError(
                f"{folder} holds results of other settings ({_first_difference(present, settings)}); choose another "
                "--output, or replace them with --force"
            )
        if not main:
            return time.time()
        with atomic_write(file) as partial:
            partial.write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return file.stat().st_mtime
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from error


def is_done(files: Iterable[Path], since: float) -> bool:
    """Whether all of these files are there, none older than ``since``."""
    try:
        return all(os.stat(file).st_mtime >= since for file in files)
    except FileNotFoundError:
        return False


def _first_difference(present: Any, settings: Mapping[str, Any]) -> str:
    if not isinstance(present, dict):
        return f"{SETTINGS} is damaged"
    key = next(key for key in {**settings, **present} if present.get(key) != settings.get(key))
    return f"{key} is {_short(settings.get(key))} now and was {_short(present.get(key))}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
