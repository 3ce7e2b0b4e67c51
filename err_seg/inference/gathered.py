"""Files for a whole job: a COCO data set and a page to look through, joined from the parts that each image wrote.

Parts are results like any other, so that an interrupted job goes on, and several processes share one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from err_seg.drawing.colors import class_colors
from err_seg.drawing.text import first_synonym
from err_seg.files import write_json, write_text
from err_seg.inference.formats import result_paths
from err_seg.inference.manifest import finished_results
from err_seg.regions import join_coco

TEMPLATE = Path(__file__).with_name("page.html")


def _write_coco(parts: Iterable[dict[str, Any]], classes: Sequence[str], path: Path) -> None:
    write_json(path, join_coco(parts, classes), ensure_ascii=False)


def _write_page(parts: Iterable[dict[str, Any]], classes: Sequence[str], path: Path) -> None:
    """Write a page that needs nothing else: thumbnails, and the classes to filter them by."""
    names = [first_synonym(name) for name in classes]
    colors = {name: f"#{bytes(color).hex()}" for name, color in zip(names, class_colors(classes), strict=True)}
    data = json.dumps({"colors": colors, "images": list(parts)}, ensure_ascii=False).replace("<", "\\u003c")
    write_text(path, TEMPLATE.read_text(encoding="utf-8").replace("DATA", data, 1))


GATHERED: dict[str, tuple[str, Callable[[Iterable[dict[str, Any]], Sequence[str], Path], None]]] = {
    "coco": ("_annotations.coco.json", _write_coco),
    "html": ("index.html", _write_page),
}
"""Name of a format to the job's file and the function that writes it from the images' parts."""


def gather_results(formats: Iterable[str], classes: Sequence[str], folder: Path) -> list[Path]:
    """Write the files of a whole job, of all results in its folder.

    Args:
        formats: those asked for; others than :data:`GATHERED` need nothing here.
        classes: the class names, in label order.
        folder: of the results.

    Returns:
        The files written.

    Raises:
        OSError: a part cannot be read, or a file not be written.
    """
    written = []
    for kind in formats:
        if kind in GATHERED:
            name, write = GATHERED[kind]
            write(_parts(folder, kind), classes, folder / name)
            written.append(folder / name)
    return written


def _parts(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for name in finished_results(folder):
        (path,) = result_paths(name, [kind], folder)
        yield json.loads(path.read_text(encoding="utf-8"))
