"""Draw the miniature world: write a split, look at it, or measure how fast it is drawn.

    python tools/render_mini_world.py --split val --count 240 --output datasets
    python tools/render_mini_world.py --split val --sheet sheet.png
    python tools/render_mini_world.py --benchmark

Pictures and label maps go to a folder of OUTPUT/mini_world that is named by split, number and the other settings; where
OUTPUT is the data sets' folder, the data sets mini_world_train, mini_world_val and mini_world_test are found there. A
sheet comes in two: FILE.png with scenes beside their labels, and FILE_classes.png with crops of all sixty classes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from err_seg.colors import class_colors
from err_seg.data.mini_shapes import LEVELS
from err_seg.data.mini_world import (
    CLASS_SETS,
    SEEN,
    SPLITS,
    UNSEEN_COMBINATIONS,
    VOCABULARY,
    MiniCrops,
    MiniScenes,
    mini_world_spec,
    render_crop,
)
from err_seg.files import atomic_write


def scene_sheet(scenes: MiniScenes, columns: int = 3, rows: int = 4, zoom: int = 2) -> Image.Image:
    """Draw the first scenes of a data set, each picture beside its label map with the classes' names."""
    side = scenes.sides[1] * zoom + 4
    cell = side * 2, side
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    colours = class_colors(scenes.vocabulary)
    for index in range(min(columns * rows, len(scenes))):
        sample = scenes[index]
        size = sample.label.shape[1] * zoom, sample.label.shape[0] * zoom
        x, y = index % columns * cell[0], index // columns * cell[1]
        overlay = (sample.image // 3 + colours[sample.label] // 3 * 2).astype(np.uint8)
        sheet.paste(Image.fromarray(sample.image).resize(size, Image.Resampling.NEAREST), (x, y))
        named = Image.fromarray(overlay).resize(size, Image.Resampling.NEAREST)
        _write_names(named, sample.label, scenes.vocabulary, zoom)
        sheet.paste(named, (x + cell[0] // 2, y))
    return sheet


def _write_names(picture: Image.Image, label: np.ndarray, vocabulary: tuple[str, ...], zoom: int) -> None:
    """Write each class's name where its region is widest, the objects' after the walls'."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    for index in np.unique(label)[::-1]:
        depth = distance_transform_edt(np.pad(label == index, 1))[1:-1, 1:-1]
        y, x = np.array(np.unravel_index(depth.argmax(), label.shape)) * zoom
        half = draw.textlength(vocabulary[index], font) / 2
        place = min(max(float(x), half + 3), picture.width - half - 3), float(y)
        draw.text(place, vocabulary[index], "white", font, "mm", stroke_width=2, stroke_fill="black")


def class_sheet(level: str, seed: int, columns: int = 5, crops: int = 4, size: int = 64) -> Image.Image:
    """Draw crops of all sixty classes under their names; a star marks a seen class, a plus an unseen combination."""
    width, height = crops * (size + 2) + 12, size + 28
    sheet = Image.new("RGB", (columns * width, -(-len(VOCABULARY) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    rng = np.random.default_rng(seed)
    for index, name in enumerate(VOCABULARY):
        x, y = index % columns * width, index // columns * height
        mark = " *" if index in SEEN else " +" if index in UNSEEN_COMBINATIONS else ""
        draw.text((x + 2, y + 3), name + mark, "black", font)
        for place in range(crops):
            crop = render_crop(index, rng, size, level)
            sheet.paste(Image.fromarray(crop), (x + place * (size + 2), y + 24))
    return sheet


def benchmark(scenes: MiniScenes, crops: MiniCrops) -> str:
    """Draw 300 scenes and 1200 crops on one thread and say how long it takes."""
    lines = []
    for name, data, count in (("scenes", scenes, 300), ("crops", crops, 1200)):
        start = time.perf_counter()
        for index in range(count):
            data[index % len(data)]
        seconds = (time.perf_counter() - start) / count
        lines.append(f"{name}: {1e3 * seconds:.2f} ms each, {1 / seconds:.0f} a second")
    return "\n".join(lines)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_write(path) as partial:
        picture.save(partial, format="PNG")
    print(f"wrote {path}")


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the scenes to DIR/mini_world")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw contact sheets")
    parser.add_argument("--benchmark", action="store_true", help="measure the speed of drawing")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--count", type=int, default=1000, help="number of scenes (default: 1000)")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 192), metavar=("MIN", "MAX"), help="sides in pixels")
    parser.add_argument(
        "--classes", choices=CLASS_SETS, default="", help='default: "seen" for train, "all" for val and test'
    )
    parser.add_argument("--level", choices=LEVELS, default="easy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="threads that write (default: 2)")
    arguments = parser.parse_args(argv)
    if not (arguments.output or arguments.sheet or arguments.benchmark):
        parser.error("nothing to do: give --output, --sheet or --benchmark")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    args = _arguments(argv)
    try:
        scenes = MiniScenes(args.split, tuple(args.size), args.classes, args.level, args.count, args.seed)
        if args.output:
            spec = mini_world_spec(scenes)
            spec.make_available(args.output, args.workers)
            folder = spec.image_folder(args.output).parent
            print(f"{len(scenes)} scenes of {len(scenes.vocabulary)} classes are in {folder}")
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    if args.sheet:
        _save(scene_sheet(scenes), args.sheet)
        _save(class_sheet(args.level, args.seed), args.sheet.with_stem(f"{args.sheet.stem}_classes"))
    if args.benchmark:
        print(benchmark(scenes, MiniCrops(args.split, seed=args.seed, level=args.level)))


if __name__ == "__main__":
    main()
