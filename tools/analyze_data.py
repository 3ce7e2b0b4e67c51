#!/usr/bin/env python
"""``err-seg analyze``, from a checkout."""

import sys

from err_seg.commands.analyze import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
