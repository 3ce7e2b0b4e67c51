#!/usr/bin/env python
"""``err-seg predict``, from a checkout."""

import sys

from err_seg.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
