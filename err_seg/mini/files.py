"""The miniature world as a data set like any other.

"mini_world_train", "mini_world_val" and "mini_world_test" are its splits, and "mini_world_test_24" is the test
split with 24 scenes. A data set is drawn when it is first opened, to a folder under the data sets' root whose name
says all that the images depend on.
"""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image
from tqdm import tqdm

from err_seg.data.spec import DatasetSpec
from err_seg.drawing.saving import save_image
from err_seg.files import remove_partial_files, write_json
from err_seg.mini.scenes import SPLITS, MiniScenes

SCENES = {"train": 2400, "val": 240, "test": 320}
"""Scenes of each split, where a data set's name does not say how many."""
DRAWING = 1
"""Goes up when the same settings give other images, so that those drawn before are not taken for them."""
_NAME = re.compile(rf"mini_world_({'|'.join(SPLITS)})(?:_([1-9]\d*))?")


@dataclass(frozen=True)
class MiniWorldSpec(DatasetSpec):
    """Scenes as a data set: ``images/00000.png`` (RGB) and ``labels/00000.png`` (8-bit grey), losslessly.

    Attributes:
        scenes: what is drawn.
        drawing: version of how.
    """

    scenes: MiniScenes = field(kw_only=True)
    drawing: int = field(default_factory=lambda: DRAWING, kw_only=True)

    def make_available(self, root: str | os.PathLike[str] | None = None, workers: int = 2) -> None:
        """Draw the scenes unless they are there, with a bar; of several processes one draws and the others wait.

        ``vocabulary.json`` holds the class names in label order. ``scenes.json``, all that the images depend on, is
        written last: where it is, the data set is complete; else it is drawn anew, which leaves the same files.

        Args:
            root: of the data sets, see :func:`err_seg.data.spec.datasets_root`.
            workers: threads that draw.

        Raises:
            OSError: a file cannot be written.
        """
        folder = self.image_folder(root).absolute().parent
        if self._is_complete(folder):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not self._is_complete(folder):
                self._draw(folder, workers)

    def _facts(self) -> dict[str, Any]:
        return json.loads(json.dumps({"drawing": self.drawing, **asdict(self.scenes)}))

    def _is_complete(self, folder: Path) -> bool:
        try:
            facts = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return facts == self._facts() and all(
            len(list((folder / kind).glob("[!.]*.png"))) == len(self.scenes) for kind in ("images", "labels")
        )

    def _draw(self, folder: Path, workers: int) -> None:
        (folder / "scenes.json").unlink(missing_ok=True)
        for kind in ("images", "labels"):
            remove_partial_files(folder / kind)

        def write(index: int) -> None:
            sample = self.scenes[index]
            for kind, pixels in (("images", sample.image), ("labels", sample.label.astype(np.uint8))):
                save_image(Image.fromarray(pixels), folder / kind / f"{index:05d}.png", compress_level=1)

        with ThreadPoolExecutor(workers) as pool:
            try:
                drawn = pool.map(write, range(len(self.scenes)))
                for _ in tqdm(drawn, f"drawing {self.name} to {folder}", len(self.scenes), unit="scene"):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)
        for name, document in (("vocabulary", self.vocabulary), ("scenes", self._facts())):
            write_json(folder / f"{name}.json", document)


def mini_world_spec(scenes: MiniScenes) -> MiniWorldSpec:
    """Declare scenes as a data set, named by split and number."""
    smallest, largest = scenes.sides
    settings = (scenes.split, len(scenes), scenes.classes, scenes.level, smallest, largest, f"seed{scenes.seed}")
    folder = "mini_world/" + "-".join(map(str, settings))
    return MiniWorldSpec(
        name=mini_world_name(scenes.split, len(scenes)),
        image_dir=f"{folder}/images",
        label_dir=f"{folder}/labels",
        vocabulary=scenes.vocabulary,
        image_ext=".png",
        num_images=len(scenes),
        scenes=scenes,
    )


def mini_world_name(split: str, length: int) -> str:
    """Return the name of the data set of so many scenes of a split, without the number where that is the split's."""
    return f"mini_world_{split}" + (f"_{length}" if length != SCENES[split] else "")


LISTED = tuple(mini_world_name(split, length) for split, length in SCENES.items())
"""The names that a list of data sets shows."""


def named(name: str) -> MiniWorldSpec | None:
    """Declare the data set of a name of :func:`mini_world_name`; ``None`` for other names."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return mini_world_spec(MiniScenes(match[1], length=int(match[2] or SCENES[match[1]])))
