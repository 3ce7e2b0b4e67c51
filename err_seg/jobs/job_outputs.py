"""Files for a whole job: a COCO data set, a page to look through, videos; joined from the parts that each image wrote.

Parts are results like any other, so that an interrupted job goes on, and several processes share one.
"""

import heapq
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from err_seg.data import read_image
from err_seg.jobs.formats import result_path
from err_seg.jobs.job_report import Finished
from err_seg.jobs.manifest import OutputError
from err_seg.jobs.result_names import printable
from err_seg.jobs.video import frame_rate, write_video
from err_seg.models.checkpoint import reason_of
from err_seg.utils.files import write_pieces
from err_seg.utils.progress import ProgressBar
from err_seg.visualization.colors import class_colors, hex_color
from err_seg.visualization.regions import join_coco
from err_seg.visualization.text import first_synonym

TEMPLATE = Path(__file__).with_name("page.html")
LISTED = 300  # regions of the page to review
FILES = {"coco": "_annotations.coco.json", "html": "index.html", "review": "review.html"}
"""Name of a format to that of its only file."""
REVIEW_NOTES = (
    "The model is not calibrated: a percentage is the lead of the class over the next best one, and no probability; "
    "err-seg calibrate makes it the probability that the label is right.",
    "A percentage is the probability that the label is right. The regions are those in which most wrong pixels are "
    "expected.",
)
"""What the page says of models that are not calibrated, and of those that are."""
GATHERED = (*FILES, "video")
"""The formats of which each image has a part of the job's files."""


def gather_results(
    formats: Iterable[str], classes: Sequence[str], folder: Path, results: Iterable[Finished]
) -> tuple[list[Path], list[str]]:
    """Write the files of a whole job; one that cannot be written does not keep the others from being written.

    Args:
        formats: of :data:`GATHERED`.
        classes: the class names, in label order.
        folder: of the results.
        results: of all images of the job.

    Returns:
        The files written, and for each other file why it could not be.
    """
    ordered = sorted(results, key=lambda result: (result.place.name, result.place.frame or 0))
    written, failed = [], []
    for kind in formats:
        for file, write in _files(kind, folder, classes, ordered):
            try:
                write()
                written.append(file)
            except (OSError, ValueError) as error:
                failed.append(printable(str(error)))
            except Exception as error:  # of any library that draws or encodes
                failed.append(printable(f"{file}: cannot be written ({reason_of(error)})"))
    return written, failed


def _files(
    kind: str, folder: Path, classes: Sequence[str], results: Sequence[Finished]
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield the files of a format, each with the function that writes it."""
    if kind == "video":
        yield from _videos(folder, results)
    else:
        path, pieces = folder / FILES[kind], {"coco": _coco, "html": _page, "review": _review}[kind]
        yield path, lambda: write_pieces(path, pieces(folder, classes, results))


def _coco(folder: Path, classes: Sequence[str], results: Sequence[Finished]) -> Iterator[str]:
    """One COCO data set."""
    parts = (
        {**part, "images": [{**image, "file_name": result.source} for image in part["images"]]}
        for result, part in _parts(folder, results, "coco", {"images", "annotations"})
    )
    return join_coco(parts, classes)


def _page(folder: Path, classes: Sequence[str], results: Sequence[Finished]) -> Iterator[str]:
    """A page of all images."""
    parts = _parts(folder, results, "html", {"thumbnail", "classes", "nothing"})
    return _document(classes, ({**part, **_named(result)} for result, part in parts), {"what": "images"})


def _review(folder: Path, classes: Sequence[str], results: Sequence[Finished]) -> Iterator[str]:
    """A page of the regions most worth a look, of all images."""
    cards: list[dict[str, Any]] = []
    found, note = 0, ""
    for result, part in _parts(folder, results, "review", {"cards", "found", "calibrated"}):
        cards += [{**card, **_named(result)} for card in part["cards"]]
        cards = heapq.nlargest(LISTED, cards, key=lambda card: card["errors"])
        found, note = found + part["found"], REVIEW_NOTES[part["calibrated"]]
    note = f"{len(cards)} of {found:,} doubtful regions, the most doubtful ones first. {note}"
    return _document(classes, cards, {"what": "regions", "note": note})


def _named(result: Finished) -> dict[str, str]:
    return {"source": result.source, "title": Path(result.source).name}


def _document(classes: Sequence[str], cards: Iterable[dict[str, Any]], facts: dict[str, str]) -> Iterator[str]:
    """A page that needs nothing else: thumbnails, which are not looked into until they are shown, then all else."""
    begin, middle, end = re.split("THUMBNAILS|DATA", TEMPLATE.read_text(encoding="utf-8"))
    names, images = [first_synonym(name) for name in classes], []
    colors = {name: hex_color(color) for name, color in zip(names, class_colors(classes), strict=True)}
    yield begin
    for card in cards:
        yield f'<script type="text/plain" class="thumbnail">{card.pop("thumbnail")}</script>\n'
        images.append(card)
    yield middle
    yield json.dumps({"colors": colors, "images": images, **facts}, ensure_ascii=False).replace("<", "\\u003c")
    yield end


def _videos(folder: Path, results: Sequence[Finished]) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A video of the overlays of each video's frames, as fast as the video they were taken from."""
    frames = (result for result in results if result.place.frame is not None)
    for (name, source), group in groupby(frames, key=lambda result: (result.place.name, result.place.source)):
        path = folder / name / "overlay.mp4"
        yield path, partial(_write_video, folder, path, Path(source), list(group))


def _write_video(folder: Path, path: Path, source: Path, results: Sequence[Finished]) -> None:
    numbers = [result.place.frame or 0 for result in results]
    step = statistics.median_low([b - a for a, b in pairwise(numbers)] or [1])
    files = [result_path(result.place.files, "video", folder) for result in results]
    shown = ProgressBar(files, desc=printable(path), unit="frame", disable=None)
    write_video((read_image(file) for file in shown), path, frame_rate(source) / step)


def own_files(name: str, formats: Iterable[str], folder: Path) -> list[Path]:
    """Return an image's result files, each mask among them, but no part of a file of the job: joining checks those."""
    files = [result_path(name, kind, folder) for kind in formats if kind not in GATHERED]
    for listing in (file for file in files if file.name == "masks.json"):
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            files += [listing.parent / row["file"] for row in json.loads(listing.read_bytes())]
    return files


def _parts(
    folder: Path, results: Iterable[Finished], kind: str, keys: set[str]
) -> Iterator[tuple[Finished, dict[str, Any]]]:
    for result in results:
        path = result_path(result.place.files, kind, folder)
        try:
            part = json.loads(path.read_text(encoding="utf-8"))
            if missing := keys.difference(part if isinstance(part, dict) else ()):
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        except ValueError as error:
            raise OutputError(f"{path} is damaged ({error}); delete it, so that its image is labelled again") from error
        yield result, part
