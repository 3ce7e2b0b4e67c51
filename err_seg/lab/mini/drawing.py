"""The stage ``err-seg mini draw``: scenes as files, and sheets of them to look at."""

import argparse

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from err_seg.mini.crops import render_crop
from err_seg.mini.files import mini_world_spec
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import SEEN, UNSEEN_COMBINATIONS, VOCABULARY
from err_seg.utils.images import save_image
from err_seg.visualization.grid import sheet
from err_seg.visualization.overlay import overlay


def scene_sheet(scenes: MiniScenes, columns: int = 3, rows: int = 4, zoom: int = 2) -> Image.Image:
    """Draw the first scenes of a data set, each image beside its labels and their legend."""
    panels = []
    for index in range(min(columns * rows, len(scenes))):
        image, labels = (np.repeat(np.repeat(pixels, zoom, 0), zoom, 1) for pixels in scenes[index][:2])
        panels += [Image.fromarray(image), overlay(image, labels, scenes.vocabulary)]
    cell = max(panel.width for panel in panels) + 4, max(panel.height for panel in panels) + 4
    return sheet(panels, 2 * columns, cell)


def class_sheet(level: str, seed: int, columns: int = 5, crops: int = 4, size: int = 64) -> Image.Image:
    """Draw crops of all sixty classes under their names; a star marks a seen class, a plus an unseen combination."""
    width, height = crops * (size + 2) + 12, size + 28
    panels, font = [], ImageFont.load_default(15)
    rng = np.random.default_rng(seed)
    for index, name in enumerate(VOCABULARY):
        mark = " *" if index in SEEN else " +" if index in UNSEEN_COMBINATIONS else ""
        drawn = [Image.fromarray(render_crop(index, rng, size, level)) for _ in range(crops)]
        panel = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(panel).text((2, 3), name + mark, "black", font)
        panel.paste(sheet(drawn, crops, (size + 2, size)), (0, 24))
        panels.append(panel)
    return sheet(panels, columns, (width, height))


def run(arguments: argparse.Namespace, command: str) -> None:
    """Write scenes and sheets of them, as far as asked for.

    Raises:
        ValueError, OSError: nothing to write, scenes that cannot be drawn, or a file that cannot be written.
    """
    if not (arguments.output or arguments.sheet):
        raise ValueError("nothing to do: give --output or --sheet")
    size, level, seed = tuple(arguments.size), arguments.level, arguments.seed
    scenes = MiniScenes(arguments.split, size, arguments.classes, level, arguments.count, seed)
    if arguments.output:
        spec = mini_world_spec(scenes)
        spec.make_available(arguments.output, arguments.workers)
        folder = spec.image_folder(arguments.output).parent
        print(f"{len(scenes)} scenes of {len(scenes.vocabulary)} classes are in {folder}")
    if arguments.sheet:
        classes = arguments.sheet.with_stem(f"{arguments.sheet.stem}_classes")
        for image, path in ((scene_sheet(scenes), arguments.sheet), (class_sheet(level, seed), classes)):
            save_image(image, path)
            print(f"wrote {path}")
