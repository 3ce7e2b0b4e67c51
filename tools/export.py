#!/usr/bin/env python
"""``err-seg export``, from a checkout."""

import sys

from err_seg.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
