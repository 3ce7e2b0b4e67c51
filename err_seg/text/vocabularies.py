"""Vocabularies by name, from files, and from lists that mix names of vocabularies with words.

A name may hold synonyms, separated by commas ("building, edifice"); they stay together here, as one class.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from err_seg.text.prompts import Color, Vocabulary, VocabularyError, as_texts, carrying, check_vocabulary, name_key
from err_seg.text.rows import ROWS_ENDING, read_rows
from err_seg.utils.messages import did_you_mean, listed

_TABLES = (
    *("coco_stuff", "ade20k_847", "ade20k_150", "pascal_context_459", "pascal_context_59"),
    *("pascal_voc_20", "pascal_voc_20b"),
)
_SHORT = {
    "ade150": "ade20k_150",
    "ade847": "ade20k_847",
    "coco": "coco_stuff",
    "pc59": "pascal_context_59",
    "pc459": "pascal_context_459",
    "voc20": "pascal_voc_20",
}
_KNOWN = {**_SHORT, **{name: name for name in _TABLES}}
VOCABULARY_ENDINGS = (".txt", ".json", ".yaml", ".yml", ROWS_ENDING)
_KEYS = ("name", "synonyms", "color")
# lines of other programs' lists: headers, tables, "0: cat", "1. cat", "cat,0", "road:128,64,128::", "road 128 64 128"
_FOREIGN = re.compile(
    r"""["'#\[{]|-\s|__\w+__$|\d+\s*[:;=,)|]|\d+\.\s|.*(\t|[:;,=]\s*\d+\s*([:;,]|$)|(\s\d{1,3}){3}$)"""
)
_NUMBERED = re.compile(r"\d+\s+\S|\S.*\s\d+$")  # of every line, "0 cat" or "cat 0"

VocabularySource = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def vocabulary_names() -> tuple[str, ...]:
    """Names of the vocabularies that come with the package, as data sets have them."""
    return _TABLES


def vocabularies() -> dict[str, int]:
    """Return the short names of the vocabularies that come with the package, and how many classes each has."""
    return {name: len(load_vocabulary(name)) for name in _SHORT}


@cache
def common_vocabulary() -> Vocabulary:
    """Return the names of all vocabularies that come with the package; of equal first synonyms the first name."""
    distinct: dict[str, str] = {}
    for name in expand_names(_TABLES):
        distinct.setdefault(synonym_key(name), name)
    return Vocabulary(distinct.values())


def read_vocabulary(words: VocabularySource) -> Vocabulary:
    """Read and check whatever may stand for a vocabulary, see :func:`expand_names`.

    Raises:
        VocabularyError: it cannot be used; see also :func:`err_seg.text.prompts.check_vocabulary`.
    """
    return check_vocabulary(expand_names(words))


def expand_names(words: VocabularySource) -> Vocabulary:
    """Put names in the place of what stands for them; they are not checked.

    Words are class names, in label order, names of vocabularies and paths; or one of the latter two. A string that is
    exactly the name of a vocabulary ("coco") stands for it, alone or in a list; the word is "Coco", since CLIP does not
    distinguish case. A path object stands for the names in a file; alone, a string may be a path
    as well. A name that several vocabularies, files and words of a list share is kept once, where it comes first; case
    and synonyms behind the first do not count.

    Raises:
        VocabularyError: nothing of all this, a file that cannot be used, or a word that ends as such a file does.
    """
    if isinstance(words, Vocabulary):
        return words
    if isinstance(words, (str, os.PathLike)):
        return load_vocabulary(words)
    names: list[Any] = []
    parts: list[Vocabulary] = []
    typed, listed = set[str](), set[str]()
    for word in as_texts("a vocabulary", words):
        if isinstance(word, os.PathLike) or (isinstance(word, str) and word in _KNOWN):
            part = load_vocabulary(word)
            names += [name for name in part if synonym_key(name) not in typed | listed]
            parts.append(part)
            listed |= {synonym_key(name) for name in part}
        elif isinstance(word, str) and word.lower().endswith(VOCABULARY_ENDINGS):
            raise VocabularyError(
                f"{word!r} in a list would be a class; for the names in the file give pathlib.Path({word!r}), on the "
                "command line --classes-file"
            )
        elif not isinstance(word, str) or synonym_key(word) not in listed:
            names.append(word)
            typed |= {synonym_key(word)} if isinstance(word, str) else set()
    return carrying(names, *parts)


def load_vocabulary(name_or_path: str | os.PathLike[str]) -> Vocabulary:
    """Class names, at least one, in label order, exactly as written; synonyms stay within their string.

    The package's own tables keep the oddities that all cost-based works share (a trailing space in ADE20K-150's
    "bed ", "airconditioner" in PASCAL-Context-459), so that results compare.

    Args:
        name_or_path: a key of :func:`vocabularies`, one of :func:`vocabulary_names`, or a file in UTF-8. A ``.txt``
            file has a class on each line and nothing else; blank lines do not count. A ``.json``, ``.yaml`` or ``.yml``
            file has a list of names; instead of a name, a mapping with the keys ``name``, ``synonyms`` (a list) and
            ``color`` ("#70a0ff" or three numbers in 0..255), of which the last two may be missing. A ``.safetensors``
            file is one of :func:`err_seg.save_vocabulary`.

    Raises:
        VocabularyError: an unknown name, no such file, or one that holds anything but class names.
    """
    name = os.fsdecode(name_or_path)
    if name in _KNOWN:
        table = resources.files(__package__) / "tables" / f"{_KNOWN[name]}.json"
        return _from_data(json.loads(table.read_text(encoding="utf-8")), name)
    path = Path(os.path.expanduser(name))
    ending = path.suffix.lower()
    if ending not in VOCABULARY_ENDINGS:
        hint = did_you_mean(name, _KNOWN, f"known names: {', '.join(_KNOWN)};")
        several = f" for one class, {[word.strip() for word in name.split(',')]} for several" if "," in name else ""
        raise VocabularyError(
            f"unknown vocabulary {name!r}; {hint} Own classes come as a list, not one string, [{name!r}]{several}, or "
            f"in a file: {', '.join(VOCABULARY_ENDINGS)}"
        )
    if ending == ROWS_ENDING:
        return check_vocabulary(read_rows(path), str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise VocabularyError(f"no vocabulary file at {path.absolute()}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    if ending == ".txt":
        return check_vocabulary(plain_names(text, str(path)), str(path))
    kind, parse = ("JSON", json.loads) if ending == ".json" else ("YAML", yaml.safe_load)
    try:
        data = parse(text)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise VocabularyError(
            f"{path}: expected a {kind} list of class names, but it is not {kind} ({error})"
        ) from error
    return _from_data(data, str(path))


def plain_names(text: str, source: str) -> list[str]:
    """Return the lines of a list of names that are not blank.

    Raises:
        VocabularyError: a line has more than a name, as in lists of other programs, which would shift the indices.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    is_numbered = len(lines) > 1 and all(_NUMBERED.match(line.strip()) for _, line in lines)
    for number, line in lines:
        if is_numbered or _FOREIGN.match(line.strip()):
            raise VocabularyError(
                f"{source}, line {number}: {line!r} is not a class name alone; expected one name on each line, in "
                "label order, without numbers, colours, comments and headers (a name that looks like this may stand "
                "in a .json or .yaml file, which also take colours)"
            )
    return [line for _, line in lines]


def find_class(vocabulary: Sequence[str], name: str) -> int:
    """Return the index of a class, named by all its synonyms or by the first, in any case.

    Raises:
        ValueError: there is none.
    """
    if name in vocabulary:
        return vocabulary.index(name)
    names = {synonym_key(entry): i for i, entry in reversed(list(enumerate(vocabulary)))}
    names |= {name_key(entry): i for i, entry in enumerate(vocabulary)}
    if (wanted := name_key(str(name))) not in names:
        hint = did_you_mean(wanted, names, f"they are {listed(entry.split(',')[0] for entry in vocabulary)}")
        raise ValueError(f"{name!r} is not one of the {len(vocabulary)} classes; {hint}")
    return names[wanted]


def synonym_key(name: str) -> str:
    """Return what identifies the first synonym of a name; case does not count."""
    return name_key(name.split(",")[0])


def _from_data(data: Any, file: str) -> Vocabulary:
    if not isinstance(data, list):
        raise VocabularyError(f"{file}: expected a list of class names, found {type(data).__name__}")
    names: list[str] = []
    colors: dict[str, Color] = {}
    for index, entry in enumerate(data):
        where = f"{file}: class {index}"
        if isinstance(entry, str):
            names.append(entry)
            continue
        if not isinstance(entry, Mapping):
            raise VocabularyError(f"{where} is {entry!r}; expected a name, in quotes if it looks like something else")
        for key in entry:
            if key not in _KEYS:
                hint = did_you_mean(key, _KEYS, f"known keys: {', '.join(_KEYS)}")
                raise VocabularyError(f"{where}: unknown key {key!r}; {hint}")
        synonyms = entry.get("synonyms", [])
        if not isinstance(synonyms, list):
            raise VocabularyError(f"{where}: synonyms must be a list, found {synonyms!r}")
        words = [entry.get("name"), *synonyms]
        if not all(isinstance(word, str) and word.strip() for word in words):
            raise VocabularyError(
                f"{where}: name and synonyms must be texts that are not blank, in quotes if they look like something "
                f"else, found {words!r}"
            )
        names.append(", ".join(words))
        if "color" in entry:
            colors[name_key(names[-1])] = _color(entry["color"], where)
    return check_vocabulary(Vocabulary(names, colors), file)


def _color(value: Any, where: str) -> Color:
    if isinstance(value, str) and re.fullmatch("#[0-9a-fA-F]{6}", value):
        value = list(bytes.fromhex(value[1:]))
    is_color = isinstance(value, list) and all(type(number) is int and 0 <= number <= 255 for number in value)
    if not is_color or len(value) != 3:
        raise VocabularyError(
            f'{where}: color must be "#rrggbb", in quotes, or three numbers in 0..255, found {value!r}'
        )
    red, green, blue = value
    return red, green, blue
