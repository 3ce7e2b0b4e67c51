#!/usr/bin/env python
"""``err-seg mini draw``, from a checkout."""

import sys

from err_seg.commands.mini import main

if __name__ == "__main__":
    sys.exit(main(["draw", *sys.argv[1:]]))
