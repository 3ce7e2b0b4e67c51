"""Does an exported file compute what the network computes?"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from err_seg.export.exporting import ExportError
from err_seg.export.network import INPUTS, OUTPUTS, example_inputs
from err_seg.modeling.crm import NOT_KEPT
from err_seg.prediction.model import ERRSeg

TOLERANCES = {"fp32": 2e-3, "fp16": 2e-2}
"""How much a probability may differ."""
FULL_SCORE = 0.99
"""Of the scores of the classes that fp32 keeps, the share that those of a lower precision must reach."""
CASES = ((1, 1), (2, 1), (3, 3), (5, 2), (40, 12))  # T and K
TURNS = 3

Runner = Callable[[Tensor, Tensor, Tensor], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Parity:
    """How well a file and the network agree, over several image sizes and vocabularies.

    Attributes:
        cases: how many were compared.
        largest_difference: the largest of any probability of the classes that the file keeps.
        same_kept: in how many cases the same classes were kept.
        kept_score: CRM's scores of the classes that the file keeps as a share of those that the network keeps, the
            least of all cases.
        time_ratio: the file's time as a share of the network's, on this processor: the median over a few turns.
        precision: of the file.
    """

    cases: int
    largest_difference: float
    same_kept: int
    kept_score: float
    time_ratio: float
    precision: str = "fp32"

    @property
    def holds(self) -> bool:
        """Whether probabilities differ by no more than 0.002 (fp16: 0.02), and the same classes are kept.

        In fp16, of two classes that score almost the same, within 1 %, either may be kept.
        """
        is_as_good = self.kept_score >= FULL_SCORE if self.precision == "fp16" else self.same_kept == self.cases
        return is_as_good and self.largest_difference <= TOLERANCES[self.precision]


def compare(model: ERRSeg, run: Runner, precision: str = "fp32") -> Parity:
    """Compare an exported file with :meth:`ERRSeg.forward` on images of several sizes, for several T and K.

    ``run`` runs the file on image, text and ranks, and returns probabilities and kept.
    """
    largest, same, score = 0.0, 0, 1.0
    for seed, (num_classes, num_kept) in enumerate(CASES):
        image, text, ranks = example_inputs(model, num_classes, num_kept, seed)
        image = image[: 1 + seed]  # one image, then as many as were traced
        probabilities, found = run(image, text, ranks)
        kept, text = torch.from_numpy(found).to(model.device), text.to(model.device)
        with torch.no_grad():
            views = model.preprocess(image)
            expected = model(views, text, num_kept)
            logits = model.head.segment(model.encoder(views), text, kept, has_padding=False)
        same += torch.equal(kept, expected.kept)
        scores = [_score(expected.class_scores, classes) for classes in (kept, expected.kept)]
        score = min(score, float((scores[0] / scores[1]).min()))
        largest = max(largest, float((torch.from_numpy(probabilities) - logits.sigmoid().cpu()).abs().max()))
    return Parity(len(CASES), largest, same, score, _time_ratio(model, run), precision)


def _score(class_scores: Tensor, kept: Tensor) -> Tensor:
    """Sum the scores (B, T) of the classes kept (B, K), some of which may be ``NOT_KEPT``."""
    return torch.where(kept == NOT_KEPT, 0, class_scores.gather(1, kept.clamp(min=0))).sum(dim=1)


def _time_ratio(model: ERRSeg, run: Runner) -> float:
    """Time file and network in turns, the first of which warms up."""
    image, text, ranks = example_inputs(model, *CASES[-1])
    ratios = []
    for _ in range(1 + TURNS):
        start = time.perf_counter()
        run(image, text, ranks)
        middle = time.perf_counter()
        with torch.no_grad():
            model(model.preprocess(image), text.to(model.device), len(ranks)).logits.cpu()
        ratios.append((middle - start) / (time.perf_counter() - middle))
    return statistics.median(ratios[1:])


def check_onnx(model: ERRSeg, file: Path, precision: str = "fp32") -> Parity:
    """Compare an ONNX file, run by ONNX Runtime on the CPU, with the network in fp32.

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

    return compare(model, run, precision)


def check_program(model: ERRSeg, file: Path, *, compiled: bool = False) -> Parity:
    """Compare a ``.pt2`` file, run by torch; a compiled one on the model's device."""
    load = torch._inductor.aoti_load_package if compiled else lambda name: torch.export.load(name).module()
    network: Any = load(str(file))

    def run(*inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            probabilities, kept = network(*(tensor.to(model.device).contiguous() for tensor in inputs))
        return probabilities.cpu().numpy(), kept.cpu().numpy()

    return compare(model, run)
