"""Names of result files: unique on every file system, short enough for one, and printable."""

import os
import unicodedata

from err_seg.utils.fingerprint import content_digest

LONGEST = 255 - len("_attention.png")  # bytes that file systems allow, less the longest ending of a result
DIGITS = 8


def name_key(name: str) -> str:
    """Return a key that two names share if some file system takes them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def fitting_name(name: str, ending: str = "") -> str:
    """Append an ending to a name; a name that is too long for a file system is cut, and gets a digest."""
    folder, _, last = name.rpartition("/")
    if len(os.fsencode(last + ending)) > LONGEST:
        ending = f"-{content_digest(os.fsencode(name))[:DIGITS]}{ending}"
        last = os.fsencode(last)[: LONGEST - len(ending)].decode("utf-8", "ignore")
    return f"{folder}/{last}{ending}" if folder else f"{last}{ending}"


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return a file's name, or text with one, that every program can print: bytes outside UTF-8 become \xe9."""
    return os.fspath(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def file_name(text: str) -> str:
    """Make a part of a file's name of any text: letters, digits, "-" and "_"; at most 80 bytes."""
    plain = "".join(character if character.isalnum() or character in "-_" else "_" for character in text)
    return plain.encode("utf-8")[:80].decode("utf-8", "ignore")
