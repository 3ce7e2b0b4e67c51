"""What a run of predictions did."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from err_seg.jobs.failures import Problem
from err_seg.jobs.formats import Result
from err_seg.jobs.label_set import UNLABELED
from err_seg.jobs.manifest import Place
from err_seg.utils.ordered_map import TimeShare
from err_seg.utils.processes import gather_launched


class Finished(NamedTuple):
    """A complete result: its place, which may be from an earlier run, and the image's name in messages of this run."""

    place: Place
    source: str


@dataclass
class Report:
    """What a run did.

    Attributes:
        done: images whose results were written; ``skipped``: those whose results were already there.
        finished: the results of both, in order.
        pixels: number of pixels in the images done, by class name; ``unlabeled``: those of no class.
        images: in how many of the images done a class occurs.
        problems: what could not be used, in order.
        renamed: image or video to the name of its results, if its usual name belongs to another one.
        network: how much of the time the network took, of all processes together.
    """

    done: int = 0
    skipped: int = 0
    unlabeled: int = 0
    pixels: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    finished: list[Finished] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    network: TimeShare = field(default_factory=TimeShare)

    def add(self, finished: Finished, result: Result) -> None:
        """Add an image's results, and count its pixels."""
        self.done += 1
        self.finished.append(finished)
        self.unlabeled += result.unlabeled
        areas = {result.label_set.classes[label]: n for label, n in result.areas.items() if label != UNLABELED}
        self.pixels.update(areas)
        self.images.update(areas.keys())

    def skip(self, finished: Finished) -> None:
        """Add results that were there before."""
        self.skipped += 1
        self.finished.append(finished)


def gather_reports(report: Report) -> Report | None:
    """Add up what all processes did; in process 0, and ``None`` in the others."""
    reports = gather_launched(report)
    if reports is None:
        return None
    whole, *others = reports
    for other in others:
        whole.done += other.done
        whole.skipped += other.skipped
        whole.unlabeled += other.unlabeled
        whole.pixels += other.pixels
        whole.images += other.images
        whole.finished += other.finished
        whole.problems += other.problems
        whole.renamed |= other.renamed
        whole.network.add(other.network)
    return whole
