"""The miniature world: an open-vocabulary data set that is drawn rather than downloaded.

Sixty classes are named in words, "red star" or "pink dotted wall": 8 colours x 6 shapes of objects and 3 colours x 4
textures of walls. Segmentation training sees 24 of them. Of the 36 others, 20 are new combinations of words that it
has seen and 16 contain a word that it never meets ("purple", "ring", "dotted"), so that the two ways in which a
vocabulary is open are measured apart. A tiny CLIP learns all the words from captioned crops, as the large one does from
the web.

Every picture is a function of (seed, split, index): the same in any order and any process, and never the same in
two splits.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from err_seg.data.mini_scenes import SPLITS, MiniCrops, MiniScenes, render_crop
from err_seg.data.mini_vocabulary import (
    CLASS_SETS,
    NEW_WORDS,
    PROMPTS,
    SEEN,
    UNSEEN,
    UNSEEN_COMBINATIONS,
    UNSEEN_WORDS,
    VOCABULARY,
    WORDS,
)
from err_seg.data.spec import DatasetSpec
from err_seg.files import atomic_write

__all__ = [
    "CLASS_SETS",
    "NEW_WORDS",
    "PROMPTS",
    "SEEN",
    "SPLITS",
    "UNSEEN",
    "UNSEEN_COMBINATIONS",
    "UNSEEN_WORDS",
    "VOCABULARY",
    "WORDS",
    "MiniCrops",
    "MiniScenes",
    "dataset_spec",
    "render_crop",
    "write_to_disk",
]


def dataset_spec(folder: str | os.PathLike[str], scenes: MiniScenes) -> DatasetSpec:
    """The declaration of the data set that :func:`write_to_disk` makes, named "mini_world_train" and so on.

    Args:
        folder: as given to :func:`write_to_disk`, or relative to the data sets' root.
        scenes: what was, or will be, written there.
    """
    return DatasetSpec(
        name=f"mini_world_{scenes.split}",
        image_dir=str(Path(folder) / "images"),
        label_dir=str(Path(folder) / "labels"),
        vocabulary=scenes.vocabulary,
        image_ext=".png",
        num_images=len(scenes),
    )


def write_to_disk(
    folder: str | os.PathLike[str], scenes: MiniScenes, workers: int = 1, progress: bool = False
) -> DatasetSpec:
    """Write scenes as ``images/00000.png`` (RGB) and ``labels/00000.png`` (8-bit grey, class indices), losslessly.

    Writing the same scenes again leaves the same files. ``vocabulary.json``, the class names in label order, is
    written last: where it is, the data set is complete.

    Args:
        folder: made if it is missing.
        scenes: what to write.
        workers: threads.
        progress: show a progress bar.

    Returns:
        The declaration to :func:`err_seg.data.register`, with the folder's absolute path.

    Raises:
        FileExistsError: the folder holds pictures or labels that are not among those to be written.
        OSError: a file cannot be written.
    """
    folder = Path(folder).absolute()
    names = [f"{index:05d}.png" for index in range(len(scenes))]
    expected = set(names)
    present = {path for kind in ("images", "labels") for path in (folder / kind).glob("[!.]*")}
    if foreign := sorted(path for path in present if path.name not in expected):
        raise FileExistsError(
            f"{folder} holds {len(foreign)} files that are not among the {len(scenes)} scenes to be written, such as "
            f"{foreign[0].relative_to(folder)}; remove them or choose another folder"
        )
    (folder / "vocabulary.json").unlink(missing_ok=True)

    def write(index: int) -> None:
        sample = scenes[index]
        _write_png(folder / "images" / names[index], sample.image)
        _write_png(folder / "labels" / names[index], sample.label.astype(np.uint8))

    with ThreadPoolExecutor(workers) as pool:
        try:
            for _ in tqdm(pool.map(write, range(len(scenes))), str(folder), len(scenes), disable=not progress):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    with atomic_write(folder / "vocabulary.json") as partial:
        partial.write_text(json.dumps(scenes.vocabulary, indent=1) + "\n", encoding="utf-8")
    return dataset_spec(folder, scenes)


def is_complete(folder: str | os.PathLike[str], scenes: MiniScenes) -> bool:
    """Whether :func:`write_to_disk` has written these many scenes there, to the end."""
    folder = Path(folder)
    written = len(list((folder / "labels").glob("[!.]*.png")))
    return (folder / "vocabulary.json").is_file() and written == len(scenes)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", compress_level=1)
