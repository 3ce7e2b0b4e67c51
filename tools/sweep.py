#!/usr/bin/env python
"""``err-seg sweep``, from a checkout."""

import sys

from err_seg.commands.sweep import main

if __name__ == "__main__":
    sys.exit(main())
