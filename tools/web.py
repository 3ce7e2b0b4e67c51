#!/usr/bin/env python
"""``err-seg web``, from a checkout."""

import sys

from err_seg.commands.web import main

if __name__ == "__main__":
    sys.exit(main())
