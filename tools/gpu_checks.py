#!/usr/bin/env python
"""``err-seg gpu_checks``, from a checkout."""

import sys

from err_seg.commands.gpu_checks import main

if __name__ == "__main__":
    sys.exit(main())
