"""Data sets that a package declares: ``streets_train``, ``streets_val`` and ``streets_test``.

They have the folders, names and labels of CamVid in the form with 11 classes that is widely used: ``streets/train`` and
``streets/trainannot`` under ``DATASETS.ROOT``, likewise ``val`` and ``test``. The import of a package may run any code,
so names and splits may also come from a file or from a program.
"""

from err_seg.data import register, spec_from_dict

__version__ = "1.0"

CLASSES = (
    *("sky", "building", "pole, column", "road", "pavement, sidewalk", "tree", "traffic sign", "fence", "car"),
    *("pedestrian, person", "bicyclist, cyclist"),
)
UNLABELLED = 11

for split in ("train", "val", "test"):
    register(
        spec_from_dict(
            {
                "name": f"streets_{split}",
                "image_dir": f"streets/{split}",
                "label_dir": f"streets/{split}annot",
                "image_ext": [".jpg", ".png"],
                "vocabulary": CLASSES,
                "ignore_label": UNLABELLED,
                "num_kept": len(CLASSES),  # most streets show nearly all of them
            }
        )
    )
