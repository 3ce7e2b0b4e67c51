"""Names of result files: unique on every file system, short enough for one, and printable."""

import os
import unicodedata

from err_seg.identity import content_digest

LONGEST = 255 - len("_attention.png")  # bytes that file systems allow, less the longest ending of a result
DIGITS = 8


def name_key(name: str) -> str:
    """Return what two names have in common that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def fitting_name(name: str, ending: str = "") -> str:
    """Append an ending to a name; one that is too long for a file system is cut, and has a digest of the whole."""
    folder, _, last = name.rpartition("/")
    if len(os.fsencode(last + ending)) > LONGEST:
        ending = f"-{content_digest(os.fsencode(name))[:DIGITS]}{ending}"
        last = os.fsencode(last)[: LONGEST - len(ending)].decode("utf-8", "ignore")
    return f"{folder}/{last}{ending}" if folder else f"{last}{ending}"


def printable(text: str | os.PathLike[str]) -> str:
    r"""Return a file's name, or text with one, as every program can print it: what is not UTF-8 becomes \xe9 or so."""
    return os.fspath(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
