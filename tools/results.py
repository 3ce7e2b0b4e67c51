#!/usr/bin/env python
"""``err-seg results``, from a checkout."""

import sys

from err_seg.commands.results import main

if __name__ == "__main__":
    sys.exit(main())
