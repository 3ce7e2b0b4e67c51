"""A web page on this machine: upload or draw an image, name classes, see the labels.

    pip install -e ".[web]"
    err-seg web --model err-seg-b
    err-seg web --model mini --port 8000

then open http://127.0.0.1:7860. --model mini needs no download, but can encode only the class names of the
small synthetic data set.
"""

import argparse
import os
import re
import signal
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from err_seg.commands.options import add_model_options, command_parser, complain, positive, reporting_errors

WORDS = "person, cat, dog, car, building, road, tree, grass, sky, table, cup, wall, floor"
MINI_SAMPLES = 4


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser("web", __doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (127.0.0.1)")
    add("--port", type=positive, default=7860, help="(7860)")
    add("--classes", metavar="NAMES", help="class names that the page shows at first")
    add("--samples", metavar="DIR", help="a folder of sample images")
    sites = "a site whose pages may show this one in a frame, such as https://huggingface.co; several times: several"
    add("--framed-by", type=origin, action="append", default=[], metavar="ORIGIN", help=sites)
    names = "a further name of this server, such as that of a proxy in front of it; several times: several"
    add("--allowed-host", type=str.lower, action="append", default=[], metavar="NAME", help=names)
    add_model_options(parser)
    return parser.parse_args(argv)


def origin(text: str) -> str:
    """Read the address of a site: scheme, host and perhaps a port."""
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:\d+)?", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a site's address, such as https://huggingface.co")
    return text


def draw_samples(folder: Path) -> tuple[list[Path], str]:
    """Draw scenes of the synthetic data set; return their files and its class names."""
    from PIL import Image

    from err_seg.mini.scenes import MiniScenes
    from err_seg.mini.vocabulary import VOCABULARY

    scenes = MiniScenes("test", length=MINI_SAMPLES, seed=0)
    files = [folder / f"scene_{i}.png" for i in range(MINI_SAMPLES)]
    for i, file in enumerate(files):
        Image.fromarray(scenes[i].image).save(file)
    return files, ", ".join(VOCABULARY)


@reporting_errors(2)
def main(argv: Sequence[str] | None = None) -> int:
    """Load the model and serve the page."""
    arguments = parse_arguments(argv)
    if find_spec("gradio") is None:
        return complain("the web page needs Gradio: pip install 'err_seg[web]'", 2)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with tempfile.TemporaryDirectory(prefix="err_seg_web_") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        # Gradio reads these settings when it is imported
        from err_seg.commands.models import load_model
        from err_seg.jobs.inputs import collect_sources
        from err_seg.web import create_app, serve

        model = load_model(arguments)
        samples, words = draw_samples(Path(folder)) if arguments.model == "mini" else ([], WORDS)
        if arguments.samples:
            found, _ = collect_sources([arguments.samples])
            samples = [source.path for source in found if source.path]
        sites = arguments.framed_by, arguments.allowed_host
        app = create_app(model, arguments.classes or words, folder, samples, *sites)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the folder with the uploads goes
        print(f"open http://{arguments.host}:{arguments.port}", flush=True)
        serve(app, arguments.host, arguments.port)
    return 0
