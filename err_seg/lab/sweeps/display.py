"""What a sweep shows while it works: a line when a step begins or ends, and the progress of each process.

On a terminal each process has a bar below the sweep's own. Elsewhere a line is printed from time to time.
"""

import datetime
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60.0
BYTES_READ = 4096
BAR = "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt}{postfix}"
# how tqdm's bars and detectron2's evaluation count: "name:  35%|███  | 112/320 [...", "... done 28/80. ..."
_COUNT = re.compile(r"(?:(?P<name>[^:]*): +\d+%\|.*\| *|done )(?P<done>\d+)/(?P<total>\d+)")


def state_of(folder: Path, iterations: int) -> tuple[int, int, str] | None:
    """Read the progress of an ``err-seg train`` process from the files in its folder.

    Args:
        folder: its ``OUTPUT_DIR``, where ``output.txt`` holds what it prints.
        iterations: of its training; 0 for an evaluation.

    Returns:
        How much is done, of how much, and further text: iterations with loss and remaining time, from
        ``metrics.json``; else the counts in its last line, such as the images of an evaluation or the scenes drawn;
        ``None`` if there is neither.
    """
    try:
        line = json.loads("".join(last_lines(folder / "metrics.json", 1))) if iterations else None
    except (OSError, ValueError):  # none yet, or half of one
        line = None
    if line is not None and line.get("total_loss") is not None:  # the line of an evaluation has none
        left = datetime.timedelta(seconds=round(line["eta_seconds"]))
        return line["iteration"] + 1, iterations, f"loss {line['total_loss']:.4f}, {left} left"
    try:
        count = _COUNT.search("".join(last_lines(folder / "output.txt", 1)))
    except OSError:
        return None
    return (int(count["done"]), int(count["total"]), count["name"] or "") if count else None


def last_lines(file: Path, count: int) -> list[str]:
    """Return the last lines of a file that are not blank, as far as its last 4 KiB hold them."""
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - BYTES_READ))
        lines = stream.read().decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()][-count:]


class Display:
    """Shows the progress of a sweep on a stream, by default the standard output; may be used by several threads."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = sys.stdout if stream is None else stream
        self.bars = self.stream.isatty()

    def tell(self, line: str) -> None:
        """Print a line, above the bars."""
        tqdm.write(line, file=self.stream)
        self.stream.flush()

    @contextmanager
    def process(self, title: str, folder: Path, iterations: int, place: int) -> Iterator[Callable[[], None]]:
        """Show the progress of a process during a ``with`` block; yields a function to call now and then.

        ``folder`` and ``iterations`` are as for :func:`state_of`; ``place`` is the bar's, from 0.
        """
        shown, next_line = None, time.monotonic() + SECONDS_BETWEEN_LINES
        with self.bar(title, place + 1, total=iterations or None) as bar:

            def look() -> None:
                nonlocal shown, next_line
                state = state_of(folder, iterations)
                if state is None or state == shown:
                    return
                bar.n, bar.total, text = state
                bar.set_postfix_str(text)
                if not self.bars and time.monotonic() >= next_line:
                    self.tell(f"{title}: {bar.n} of {bar.total}  {text}".rstrip())
                    next_line = time.monotonic() + SECONDS_BETWEEN_LINES
                shown = state

            yield look

    def bar(self, title: str, position: int, **counts: int | None) -> tqdm:
        """Return a bar in one of the lines, from 0, which is for the sweep's own."""
        return tqdm(
            desc=title,
            position=position,
            leave=False,
            disable=not self.bars,
            file=self.stream,
            bar_format=BAR,
            dynamic_ncols=True,
            **counts,
        )
