"""``python -m err_seg`` is the command ``err-seg``."""

import sys

from err_seg.commands import main

sys.exit(main())
