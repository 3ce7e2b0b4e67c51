"""The list of pairs that training skips with ``DATALOADER.SKIP_DAMAGED``."""

import logging
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock

from err_seg.utils.files import write_text

logger = logging.getLogger(__name__)


class SkippedSamples:
    """``OUTPUT_DIR/damaged.txt``: one line for each skipped pair, saying what is wrong with it.

    Args:
        output: ``OUTPUT_DIR``, which several processes of the run may share.
    """

    def __init__(self, output: Path):
        self.file = output / "damaged.txt"

    def add(self, problems: Sequence[str]) -> None:
        """Add pairs to the list, and log the new ones."""
        if not problems:
            return
        with FileLock(self.file.with_name(f".{self.file.name}.lock")):
            listed = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
            lines = dict.fromkeys(" ".join(problem.splitlines()) for problem in problems)
            new = [line for line in lines if line not in listed]
            if not new:
                return
            write_text(self.file, "".join(f"{line}\n" for line in (*listed, *new)))
        for line in new:
            logger.warning("skipping a damaged pair, the next one takes its place: %s", line)
        logger.warning("damaged pairs so far: %d, listed in %s", len(listed) + len(new), self.file)

    def remove_list(self) -> None:
        """Remove the list of an earlier run."""
        self.file.unlink(missing_ok=True)
