"""How fast training images are read and transformed, or label maps prepared.

One process reads, as each worker of the loader does, so the result is images per second and core. A profile lists the
most expensive functions.
"""

import cProfile
import os
import pstats
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter

from err_seg.data import (
    DatasetSpec,
    SegmentationPairs,
    TrainingDataset,
    TrainingSampler,
    TrainingTransform,
    get_dataset,
    load_vocabulary,
    read_image,
)
from err_seg.data.preparation.convert import prepare
from err_seg.evaluation.results import text_table
from err_seg.lab.benchmarks.machine import timed

NUM_GENERATED = 8
ROUNDS = 25
TOP_COSTS = 3


def benchmark_reading(dataset_name: str | None, root: str | None, images: int, crop_size: int) -> None:
    """Read so many training images of a registered data set, and print a table.

    A name of ``None`` stands for a few generated images, a root of ``None`` for the default. The crop size is a side in
    pixels.
    """
    with tempfile.TemporaryDirectory() as folder, one_thread():
        spec = get_dataset(dataset_name) if dataset_name else generate(Path(folder))
        pairs = SegmentationPairs(spec, root)
        transform = TrainingTransform(crop_size, min_sizes=(crop_size,), ignore_label=spec.ignore_label)
        dataset = TrainingDataset(pairs, transform, seed=0)
        positions = list(islice(TrainingSampler(len(pairs), seed=0), images))
        dataset[positions[0]]  # a warm-up
        seconds = [timed(partial(dataset.__getitem__, position), torch.device("cpu")) for position in positions]
        costs = _profile(lambda: [dataset[position] for position in positions])
    rows = [
        ("images per second and core", f"{len(seconds) / sum(seconds):.1f}"),
        ("milliseconds an image, median", f"{np.median(seconds) * 1e3:.1f}"),
        ("milliseconds an image, 95th percentile", f"{np.percentile(seconds, 95) * 1e3:.1f}"),
    ]
    _print(f"Training images: {spec.name}, {images} read, crop {crop_size}", rows, costs)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread during a ``with`` block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def benchmark_preparation(count: int) -> None:
    """Time and profile the conversion of generated label maps in COCO-Stuff's raw layout, in one process."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        generate(Path(folder))
        raw = Path(folder) / "coco-stuff"
        for split in ("train2017", "val2017"):
            for source, kind, suffix in (("images", "images", "jpg"), ("labels", "annotations", "png")):
                (raw / kind / split).mkdir(parents=True)
                for index in range(count // 2):
                    file = Path(folder, source, f"{index % NUM_GENERATED}.{suffix}")
                    shutil.copy(file, raw / kind / split / f"{index:012}.{suffix}")
        start = time.perf_counter()
        reports = prepare("coco-stuff", Path(folder))
        seconds = time.perf_counter() - start
        written = sum(report.written for report in reports)
        costs = _profile(lambda: prepare("coco-stuff", Path(folder), force=True))
    rows = [("files per second and core", f"{written / seconds:.0f}")]
    _print(f"Preparation: generated COCO-Stuff, {written} label maps", rows, costs)


def compare_decoders(folder: Path, most: int) -> None:
    """Decode JPEGs with Pillow and as the package does, by OpenCV, in turns; compare time and pixels.

    The first ``most`` in the folder and all folders below are taken.

    Raises:
        FileNotFoundError: there is no JPEG.
    """
    files = sorted(folder.rglob("*.jpg"))[:most]
    if not files:
        raise FileNotFoundError(f"no .jpg under {folder}")

    def by_pillow(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            return read_image(image)

    decoders: dict[str, Callable[[Path], np.ndarray]] = {"Pillow": by_pillow, "OpenCV": read_image}
    equal = sum(np.array_equal(by_pillow(file), read_image(file)) for file in files)
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(ROUNDS):
        for name, decode in decoders.items():
            start = time.process_time()
            for file in files:
                decode(file)
            seconds[name].append((time.process_time() - start) / len(files))
    rows = [(f"{name}, milliseconds an image, median", f"{np.median(s) * 1e3:.2f}") for name, s in seconds.items()]
    rows.append(("of which the pixels are the same", f"{equal} of {len(files)}"))
    _print(f"JPEGs of {folder}, {ROUNDS} rounds, processor time", rows, [])


def generate(folder: Path) -> DatasetSpec:
    """Write a few pairs of the size that is usual in COCO, 640x480, with photograph-like detail."""
    generator = np.random.default_rng(0)
    vocabulary = load_vocabulary("coco_stuff")
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for index in range(NUM_GENERATED):
        coarse = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        grain = Image.effect_noise((640, 480), 40).convert("RGB").filter(ImageFilter.GaussianBlur(1))
        Image.blend(image, grain, 0.3).save(folder / "images" / f"{index}.jpg", quality=90)
        classes = generator.integers(0, len(vocabulary), (6, 8), dtype=np.uint8)
        label = Image.fromarray(classes).resize((640, 480), Image.Resampling.NEAREST)
        label.save(folder / "labels" / f"{index}.png")
    return DatasetSpec("generated", str(folder / "images"), str(folder / "labels"), vocabulary)


def _profile(work: Callable[[], object]) -> list[tuple[str, float]]:
    """The functions that take the most time themselves, and their shares of the total."""
    profile = cProfile.Profile()
    with profile:
        work()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    ranked = sorted(stats.items(), key=lambda entry: entry[1][2], reverse=True)[:TOP_COSTS]
    return [
        (name if file == "~" else f"{os.path.basename(file)}:{line} {name}", entry[2] / total)
        for (file, line, name), entry in ranked
    ]


def _print(title: str, rows: list[tuple[str, str]], costs: list[tuple[str, float]]) -> None:
    shares = [(f"time in {function}", f"{share:.0%}") for function, share in costs]
    print(f"{title}\n\n{text_table(['what', 'value'], [*rows, *shares])}")
