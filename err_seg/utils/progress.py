"""Progress bars, also in a process without standard streams."""

import sys
from typing import Any

from tqdm import tqdm


class ProgressBar(tqdm):
    """tqdm's bar; nothing is drawn where there is no standard error, as under pythonw and in services."""

    def __init__(self, *arguments: Any, disable: bool | None = False, **options: Any):
        super().__init__(*arguments, disable=sys.stderr is None or disable, **options)
