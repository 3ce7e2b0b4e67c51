"""Vocabularies: the class names of a data set, in label order.

A name may hold synonyms, separated by ", " ("building, edifice"); they stay together here, as one class.
"""

import json
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from err_seg import prompts
from err_seg.messages import did_you_mean

_TABLES = {
    "coco_stuff": "vocabulary_coco.json",
    "ade20k_847": "vocabulary_ade847.json",
    "ade20k_150": "vocabulary_ade150.json",
    "pascal_context_459": "vocabulary_pc459.json",
    "pascal_context_59": "vocabulary_pc59.json",
    "pascal_voc_20": "vocabulary_voc20.json",
    "pascal_voc_20b": "vocabulary_voc20b.json",
}


def vocabulary_names() -> tuple[str, ...]:
    """Names of the vocabularies that come with the package."""
    return tuple(_TABLES)


def load_vocabulary(name_or_path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names, in label order, exactly as written.

    The package's own tables keep the oddities that all cost-based works share (a trailing space in ADE20K-150's
    "bed ", "airconditioner" in PASCAL-Context-459), so that results compare.

    Args:
        name_or_path: one of :func:`vocabulary_names`, a ``.json`` file (a list of strings), or a ``.txt`` file (one
            class per line; blank lines do not count).

    Returns:
        One string per class, at least one; synonyms stay within their string.

    Raises:
        ValueError: an unknown name, or a file that holds anything but class names.
        FileNotFoundError: no such file.
    """
    name = os.fspath(name_or_path)
    if name in _TABLES:
        table = resources.files(__package__) / "tables" / _TABLES[name]
        return _from_json(table.read_text(encoding="utf-8"), name)
    readers = {".json": _from_json, ".txt": _from_text}
    path = Path(name)
    if path.suffix.lower() not in readers:
        hint = did_you_mean(name, _TABLES, f"known names: {', '.join(_TABLES)};")
        raise ValueError(f"unknown vocabulary {name!r}; {hint} Own classes come in a .json or .txt file.")
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary file at {path.absolute()}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text ({error})") from error
    return readers[path.suffix.lower()](text, str(path))


def _from_json(text: str, name: str) -> tuple[str, ...]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{name}: expected a JSON list of class names, but it is not JSON ({error})") from error
    if not isinstance(entries, list):
        raise ValueError(f"{name}: expected a JSON list of class names, found {type(entries).__name__}")
    return check_vocabulary(entries, name)


def _from_text(text: str, name: str) -> tuple[str, ...]:
    return check_vocabulary([line for line in text.splitlines() if line.strip()], name)


def check_vocabulary(entries: Sequence[str], name: str) -> tuple[str, ...]:
    """Class names as a tuple, after the check that :func:`err_seg.prompts.check_vocabulary` makes.

    Args:
        entries: the class names.
        name: what to call them in an error.

    Raises:
        VocabularyError: a ValueError that names ``name`` and what is wrong.
    """
    try:
        return prompts.check_vocabulary(entries)
    except prompts.VocabularyError as error:
        raise prompts.VocabularyError(f"{name}: {error}") from error
