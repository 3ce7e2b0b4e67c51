"""Files for a whole job: a COCO data set, a page to look through, videos; joined from the parts that each image wrote.

Parts are results like any other, so that an interrupted job goes on, and several processes share one.
"""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from err_seg.data import read_image
from err_seg.drawing.colors import class_colors
from err_seg.drawing.text import first_synonym
from err_seg.files import write_json, write_text
from err_seg.inference.formats import result_paths
from err_seg.inference.manifest import OutputError, finished_results
from err_seg.inference.video import frame_rate, write_video
from err_seg.regions import join_coco

TEMPLATE = Path(__file__).with_name("page.html")


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
        ValueError: a frame cannot be read, or a video not be written; names it.
    """
    return [file for kind in formats if kind in GATHERED for file in GATHERED[kind](folder, classes)]


def _write_coco(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Write one COCO data set."""
    path = folder / "_annotations.coco.json"
    write_json(path, join_coco(_parts(folder, "coco"), classes), ensure_ascii=False)
    return [path]


def _write_page(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Write a page that needs nothing else: thumbnails, and the classes to filter them by."""
    path, names = folder / "index.html", [first_synonym(name) for name in classes]
    colors = {name: f"#{bytes(color).hex()}" for name, color in zip(names, class_colors(classes), strict=True)}
    facts = {"colors": colors, "images": list(_parts(folder, "html"))}
    data = json.dumps(facts, ensure_ascii=False).replace("<", "\\u003c")
    write_text(path, TEMPLATE.read_text(encoding="utf-8").replace("DATA", data, 1))
    return [path]


def _write_videos(folder: Path, classes: Sequence[str]) -> list[Path]:
    """Write a video of the overlays of each video's frames, as fast as the video they were taken from."""
    written = []
    frames = (result for result in finished_results(folder) if result.frame is not None)
    for (name, source), group in groupby(frames, key=lambda result: (result.name, result.source)):
        results = list(group)
        numbers = [result.frame or 0 for result in results]
        step = statistics.median_low([b - a for a, b in pairwise(numbers)] or [1])
        path = folder / name / "overlay.mp4"
        files = (file for result in results for file in result_paths(result.files, ["video"], folder))
        write_video((read_image(file) for file in files), path, frame_rate(Path(source)) / step)
        written.append(path)
    return written


GATHERED: dict[str, Callable[[Path, Sequence[str]], list[Path]]] = {
    "coco": _write_coco,
    "html": _write_page,
    "video": _write_videos,
}
"""Name of a format to the function that writes the job's files from the images' parts."""


def _parts(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    for result in finished_results(folder):
        (path,) = result_paths(result.files, [kind], folder)
        try:
            yield json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(f"{path} is damaged ({error}); delete it, so that its image is labelled again") from error
