"""The web page as a Hugging Face Space, which listens at port 7860 and is shown within huggingface.co."""

import os
import sys

from err_seg.commands.web import main

PLACE = ["--host", "0.0.0.0", "--port", "7860", "--framed-by", "https://huggingface.co"]
NAME = ["--allowed-host", os.environ.get("SPACE_HOST", "localhost")]

if __name__ == "__main__":
    sys.exit(main([*PLACE, *NAME, "--model", os.environ.get("ERR_SEG_MODEL", "err-seg-b")]))
