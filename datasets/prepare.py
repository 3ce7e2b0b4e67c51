#!/usr/bin/env python
"""``err-seg prepare``, from a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a clone that is not installed, too

from err_seg.commands.prepare import main

if __name__ == "__main__":
    sys.exit(main())
