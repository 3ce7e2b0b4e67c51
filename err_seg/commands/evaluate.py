"""Evaluate weights, or any function of an image and class names, on any number of benchmarks, without training.

    err-seg evaluate --config-file configs/err_seg_convnext_b.yaml MODEL.WEIGHTS model_final.pth
    err-seg evaluate --config-file configs/err_seg_convnext_b.yaml --num-gpus 4 DATASETS.TEST "['ade20k_150_val']"
    err-seg evaluate --predictor examples/predictors/clipseg.py:CLIPSeg DATASETS.TEST "['ade20k_150_val']"

err_seg/evaluation/predictors.py says what such a function takes and returns. An evaluation that was killed continues
with the same command, which skips the finished images.
"""

from collections.abc import Sequence

from err_seg.commands import train


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return train.main(argv, "evaluate", __doc__)
