#!/usr/bin/env python
"""``err-seg figures``, from a checkout."""

import sys

from err_seg.commands.figures import main

if __name__ == "__main__":
    sys.exit(main())
