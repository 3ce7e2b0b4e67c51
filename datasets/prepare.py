"""Convert the data sets' archives to what training and evaluation read: python datasets/prepare.py --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a clone that is not installed, too

from err_seg.data.preparation.command import main

if __name__ == "__main__":
    sys.exit(main())
