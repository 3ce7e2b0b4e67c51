"""Does an exported file compute what the network computes?"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from err_seg.export.exporting import ExportError
from err_seg.export.network import INPUTS, OUTPUTS, example_inputs
from err_seg.modeling.err_seg import ERRSeg

TOLERANCE = 2e-3
CASES = ((3, 3), (5, 2), (40, 12))  # T and K
TURNS = 3

Runner = Callable[[Tensor, Tensor, Tensor], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """How well the two agree, over several image sizes and vocabularies.

    Attributes:
        cases: how many were compared.
        largest_difference: the largest of any probability, over the cases in which the same classes were kept.
        same_kept: in how many cases the same classes were kept.
        time_ratio: the file's time as a share of the network's, on this processor: the median over a few turns.
    """

    cases: int
    largest_difference: float
    same_kept: int
    time_ratio: float

    @property
    def holds(self) -> bool:
        """Whether the same classes are kept, and probabilities differ by no more than 0.002."""
        return self.same_kept == self.cases and self.largest_difference <= TOLERANCE


def compare(model: ERRSeg, run: Runner) -> Parity:
    """Compare an exported file with :meth:`ERRSeg.forward` on images of several sizes, for several T and K.

    Args:
        model: in evaluation mode, on the CPU.
        run: runs the file on image, text and ranks, and returns probabilities and kept.
    """
    largest, same = 0.0, 0
    for seed, (num_classes, num_kept) in enumerate(CASES):
        image, text, ranks = example_inputs(model, num_classes, num_kept, seed)
        image = image[: 1 + seed]  # one image, then as many as were traced
        with torch.no_grad():
            expected = model(model.preprocess(image), text, num_kept)
        probabilities, kept = run(image, text, ranks)
        if np.array_equal(kept, expected.kept.numpy()):
            same += 1
            largest = max(largest, float(np.abs(probabilities - expected.logits.sigmoid().numpy()).max()))
    return Parity(len(CASES), largest, same, _time_ratio(model, run))


def _time_ratio(model: ERRSeg, run: Runner) -> float:
    """Time file and network in turns, the first of which warms up."""
    image, text, ranks = example_inputs(model, *CASES[-1])
    ratios = []
    for _ in range(1 + TURNS):
        start = time.perf_counter()
        run(image, text, ranks)
        middle = time.perf_counter()
        with torch.no_grad():
            model(model.preprocess(image), text, len(ranks))
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios[1:])


def check_onnx(model: ERRSeg, file: Path) -> Parity:
    """Compare an ONNX file, run by ONNX Runtime on the CPU.

    Raises:
        ExportError: ONNX Runtime is not installed.
    """
    if find_spec("onnxruntime") is None:
        raise ExportError(f"{file} was written, but comparing it needs onnxruntime: pip install 'err_seg[export]'")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(*inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        values = {name: value.numpy() for name, value in zip(INPUTS, inputs, strict=True)}
        probabilities, kept = session.run(list(OUTPUTS), values)
        return probabilities, kept

    return compare(model, run)


def check_program(model: ERRSeg, file: Path) -> Parity:
    """Compare a ``.pt2`` file, run by torch."""
    module = torch.export.load(str(file)).module()

    def run(*inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            probabilities, kept = module(*inputs)
        return probabilities.numpy(), kept.numpy()

    return compare(model, run)
