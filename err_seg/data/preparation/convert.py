"""From raw pairs to converted files: one runner for all data sets."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from err_seg.data.preparation.conversions import CONVERSIONS, Conversion
from err_seg.data.preparation.images import (
    DamagedFileError,
    check_size,
    image_size,
    naming,
    shrink_image,
    shrink_label,
    write_label,
)
from err_seg.data.preparation.parallel import for_each
from err_seg.data.preparation.sources import Listing, MissingFiles, Pair, PreparationError, Split, read_raw_label
from err_seg.utils.files import atomic_write, remove_partial_files
from err_seg.utils.images import save_image

LOCK = ".prepare.lock"  # in each folder of label maps that is, or was, written


@dataclass(frozen=True)
class Outcome:
    """A pair that is written, left out (no complaint), or damaged; stale: with a label map of an earlier run."""

    stem: str
    written: bool = False
    complaint: str = ""
    stale: bool = False


@dataclass
class SplitReport:
    """What became of one split.

    Attributes:
        folder: of the converted label maps.
        converted: label maps that the folder holds now, stale ones aside; ``expected``: by the protocol.
        written, kept: label maps made by this run, and those it found done.
        left_out: file stems of label maps without any class.
        failed: what is wrong with each damaged pair.
        stale: how many of the damaged pairs still have the label map of an earlier run.
        listing: what the archive holds of it.
    """

    split: str
    folder: Path
    expected: int
    listing: Listing
    converted: int = 0
    written: int = 0
    kept: int = 0
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stale: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one pair that this run has tried to convert."""
        if outcome.complaint:
            self.failed.append(outcome.complaint)
            self.stale += outcome.stale
        elif outcome.written:
            self.written += 1
        else:
            self.left_out.append(outcome.stem)


def prepare(name: str, root: Path, *, workers: int = 1, force: bool = False) -> list[SplitReport]:
    """Convert one data set. Files that are done are kept, so an interrupted run continues where it ended.

    Args:
        name: a key of ``CONVERSIONS``.
        root: the folder that holds the archives' folders; converted files go beside the raw ones.
        workers: number of processes.
        force: write finished files again. Where a raw file is damaged now, what an earlier run made of it is kept, as
            it may be all that is left, and is reported as stale.

    Returns:
        One report a split. A damaged pair does not stop the others; a split that the archive lacks is reported as
        absent, unless all are lacking.

    Raises:
        PreparationError: no split's archive is there, another run is writing to the same folder, or a worker died.
        OSError: a converted file cannot be written.
    """
    conversion = CONVERSIONS[name]
    reports = []
    for split, listing in zip(conversion.splits, _list_splits(conversion, root), strict=True):
        report = SplitReport(split.name, split.spec.label_folder(root), split.expected, listing)
        done = set() if force else {label.stem for image, label in split.list_converted(root) if image.exists()}
        pending = [pair for pair in listing.pairs if pair.stem not in done]
        report.kept = len(listing.pairs) - len(pending)
        if pending:
            convert = partial(convert_pair, conversion, split, root)
            with only_run(report.folder):
                for_each(convert, pending, report.add, workers=workers, title=f"{name} {split.name}")
        report.converted = len(split.list_converted(root)) - report.stale
        reports.append(report)
    return reports


def _list_splits(conversion: Conversion, root: Path) -> list[Listing]:
    """Return what the archive holds of each split; of one that is missing a note says so."""
    listings = []
    for split in conversion.splits:
        try:
            listing = conversion.list_pairs(root, split)
            if not listing.pairs:
                raise MissingFiles(
                    f"no image with its label map under {root / split.raw_images} and {root / split.raw_labels}"
                    + "".join(f"; {note}" for note in listing.notes)
                    + f"; no label map for {len(listing.unlabelled):,} images" * bool(listing.unlabelled)
                )
        except MissingFiles as error:
            listing = Listing([], [str(error)])
        listings.append(listing)
    if not any(listing.pairs for listing in listings):
        folders = dict.fromkeys(folder for s in conversion.splits for folder in (s.raw_images, s.raw_labels))
        raise MissingFiles(
            f"{conversion.name}: the archive was not found (datasets/README.md shows the tree)"
            + "".join(f"\n  expected {root / folder}" for folder in folders)
            + "".join(f"\n  found    {complaint}" for listing in listings for complaint in listing.notes)
            + "".join(f"\n  get      {page}" for page in conversion.pages)
        )
    return listings


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Let no other run write to a folder of label maps during a ``with`` block.

    Raises:
        PreparationError: another run does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):  # which the system releases when the process ends, however it ends
            remove_partial_files(folder)
            yield
    except Timeout as error:
        raise PreparationError(f"another run is preparing {folder} at this moment; wait for it to end") from error


def convert_pair(conversion: Conversion, split: Split, root: Path, pair: Pair) -> Outcome:
    """Convert one pair; what is wrong with its files goes into the outcome; what is wrong with the disk is raised."""
    side = conversion.shorter_side
    image = None
    image_target, label_target = split.converted(root, pair.stem)
    try:
        with naming(pair.image):
            size = image_size(pair.image, upright=side is None)
            if side is not None:
                image = shrink_image(pair.image, side)
        with naming(pair.label if isinstance(pair.label, Path) else f"{pair.stem} in trainval_merged.json"):
            label = conversion.convert(read_raw_label(pair.label))
            check_size(label, size)
    except DamagedFileError as error:
        is_stale = label_target.exists()
        kept = f"; the file that an earlier run made of it is kept: {label_target}" * is_stale
        return Outcome(pair.stem, complaint=f"{error}{kept}", stale=is_stale)
    if conversion.leave_out_ignored and (label == split.spec.ignore_label).all():
        label_target.unlink(missing_ok=True)
        return Outcome(pair.stem)
    if image is not None:
        save_image(image, image_target, "JPEG")
    elif side is not None:
        with atomic_write(image_target) as partial_file:
            shutil.copyfile(pair.image, partial_file)
    # The label map comes last: where it exists, everything that belongs to it does.
    write_label(label if side is None else shrink_label(label, side), label_target)
    return Outcome(pair.stem, written=True)
