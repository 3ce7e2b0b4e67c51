#!/usr/bin/env python
"""``err-seg benchmark``, from a checkout."""

import sys

from err_seg.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
