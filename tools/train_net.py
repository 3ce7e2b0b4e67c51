#!/usr/bin/env python
"""``err-seg train``, from a checkout."""

import sys

from err_seg.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
