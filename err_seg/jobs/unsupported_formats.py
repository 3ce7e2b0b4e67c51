"""Files that look like images or videos and cannot be read here: what they are, and what to do about it."""

import mimetypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from err_seg.jobs.video import is_video

HEIC_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")
RAW_SUFFIXES = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw"),
        *(".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    )
)
ADVICE = {
    **dict.fromkeys(HEIC_SUFFIXES, "HEIC images need pillow-heif: pip install pillow-heif"),
    **dict.fromkeys(
        RAW_SUFFIXES, "this is a raw file of a camera; develop it to TIFF or JPEG, for example with darktable-cli"
    ),
    **dict.fromkeys((".svg", ".svgz"), "drawings cannot be read; convert it to PNG, for example with rsvg-convert"),
    ".avif": "AVIF images need a newer Pillow: pip install --upgrade pillow",
    ".exr": "OpenEXR images have no defined white; save it with 8 bits a channel, for example as PNG",
    ".hdr": "Radiance images have no defined white; save it with 8 bits a channel, for example as PNG",
    ".jxl": "JPEG XL images cannot be read; convert it to PNG, for example with djxl",
    ".xcf": "GIMP's own files cannot be read; export it as PNG",
}
WRITTEN_ONLY = ("PDF", "PALM")  # formats that Pillow does not read
BUILTIN_TYPES = mimetypes.MimeTypes()  # Python's own, the same on every machine


@cache
def image_suffixes() -> frozenset[str]:
    """Return the endings, in lower case, of the images that can be read; HEIC's where pillow-heif is installed."""
    if find_spec("pillow_heif"):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    suffixes = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in suffixes if kind not in WRITTEN_ONLY) - RAW_SUFFIXES


def is_readable(path: Path) -> bool:
    """Whether a file's ending is that of an image or video that can be read."""
    return path.suffix.lower() in image_suffixes() or is_video(path)


def why_unreadable(path: Path) -> str | None:
    """Say what is needed to read what looks like an image or video; ``None`` if it can be read, or is neither."""
    suffix = path.suffix.lower()
    if is_readable(path):
        return None
    if suffix in ADVICE:
        return ADVICE[suffix]
    kind = BUILTIN_TYPES.guess_type(f"file{suffix}")[0] or ""
    if kind.startswith(("image/", "video/")):
        return f"{kind} cannot be read; convert it to {'PNG' if kind.startswith('image/') else 'MP4'}"
    return None
