"""The miniature world as a data set like any other.

"mini_world_train", "mini_world_val" and "mini_world_test" are its splits, and "mini_world_test_24" is the test
split with 24 scenes. "mini_world_10000_test" is a test split with a vocabulary of 10,000 names, 96 pixels a side: its
scenes show the first 100 names, all others are distractors, and the evaluation counts these as one class. A data set
is drawn when it is first opened, to a folder under the data sets' root whose name says all that the images depend on.
"""

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image

from err_seg.data.spec import DatasetSpec
from err_seg.mini.sampling import SPLITS
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import MOST_NAMES, NUM_SHOWN, SIXTY
from err_seg.utils.files import remove_partial_files, write_json
from err_seg.utils.images import save_image
from err_seg.utils.ordered_map import ordered_map
from err_seg.utils.progress import ProgressBar

SCENES = {"train": 2400, "val": 240, "test": 320}
"""Scenes of each split, where a data set's name does not say how many."""
SCENES_OF_MANY = {"train": 800, "val": 48, "test": 96}
"""The same with more than sixty names."""
SIDE_OF_MANY = 96
DRAWING = 1
"""Goes up when the same settings give other images, so that those drawn before are not taken for them."""
_NAME = re.compile(rf"mini_world_(?:([1-9]\d*)_)?({'|'.join(SPLITS)})(?:_([1-9]\d*))?")
_GREY = 255  # names that 8 bits hold beside the ignore label


@dataclass(frozen=True)
class MiniWorldSpec(DatasetSpec):
    """Scenes as a data set: ``images/00000.png`` (RGB) and ``labels/00000.png`` (grey), losslessly.

    Labels have 8 bits, or 16 where these are too few.

    Attributes:
        scenes: what is drawn.
        drawing: version of how.
    """

    is_drawn = True

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

        kind_of_label = np.uint8 if self.num_evaluated_classes <= _GREY else np.uint16

        def write(index: int) -> None:
            sample = self.scenes[index]
            for kind, pixels in (("images", sample.image), ("labels", sample.label.astype(kind_of_label))):
                save_image(Image.fromarray(pixels), folder / kind / f"{index:05d}.png", compress_level=1)

        drawn = ordered_map(write, range(len(self.scenes)), threads=workers, ahead=2 * workers)
        for _ in ProgressBar(drawn, f"drawing {self.name} to {folder}", len(self.scenes), unit="scene"):
            pass
        for name, document in (("vocabulary", self.vocabulary), ("scenes", self._facts())):
            write_json(folder / f"{name}.json", document)


def mini_world_spec(scenes: MiniScenes) -> MiniWorldSpec:
    """Declare scenes as a data set, named by split and number."""
    settings = (scenes.split, len(scenes), scenes.classes, scenes.level, *scenes.sides, f"seed{scenes.seed}")
    further = (f"{scenes.names}names",) if scenes.names != SIXTY else ()
    folder = "mini_world/" + "-".join(map(str, settings + further))
    has_distractors = len(scenes.vocabulary) > len(scenes.full_vocabulary.drawn(scenes.classes))
    return MiniWorldSpec(
        name=mini_world_name(scenes.split, len(scenes), scenes.names),
        image_dir=f"{folder}/images",
        label_dir=f"{folder}/labels",
        vocabulary=scenes.vocabulary,
        image_ext=".png",
        ignore_label=255 if has_distractors or len(scenes.vocabulary) <= _GREY else 65535,
        variant="background" if has_distractors else "standard",
        num_foreground=NUM_SHOWN if has_distractors else None,
        num_images=len(scenes),
        scenes=scenes,
    )


def mini_world_name(split: str, length: int, names: int = SIXTY) -> str:
    """Return the name of the data set of so many scenes of a split, without the numbers that are the usual ones."""
    prefix = "mini_world" if names == SIXTY else f"mini_world_{names}"
    return f"{prefix}_{split}" + (f"_{length}" if length != _usual(names)[split] else "")


def _usual(names: int) -> dict[str, int]:
    return SCENES if names == SIXTY else SCENES_OF_MANY


LISTED = (
    *(mini_world_name(split, length) for split, length in SCENES.items()),
    *(mini_world_name(split, length, 100) for split, length in SCENES_OF_MANY.items()),
    *(mini_world_name("test", SCENES_OF_MANY["test"], names) for names in (1000, 10000)),
)
"""The names that a list of data sets shows."""


def named(name: str) -> MiniWorldSpec | None:
    """Declare the data set of a name of :func:`mini_world_name`; ``None`` for other names."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    names, split, length = int(match[1] or SIXTY), match[2], match[3]
    if match[1] and not NUM_SHOWN <= names <= MOST_NAMES:
        return None
    size = (128, 192) if names == SIXTY else SIDE_OF_MANY
    return mini_world_spec(MiniScenes(split, size, length=int(length or _usual(names)[split]), names=names))
