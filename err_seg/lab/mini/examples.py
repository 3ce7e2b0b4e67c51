"""What examples are worth: the unseen classes of the miniature world shown by examples, named, or both.

Examples are of validation scenes of another seed; the scenes that results are of, validation and test, show none of them.
"""

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from err_seg.data.dataset import Sample
from err_seg.evaluation import ConfusionMatrix
from err_seg.evaluation.results import text_table
from err_seg.lab.table import mean_text
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import ATTRIBUTES, UNSEEN, UNSEEN_WORDS, VOCABULARY
from err_seg.models import hub
from err_seg.prediction.examples import Exemplar, Pixels
from err_seg.prediction.model import ERRSeg
from err_seg.text.prompts import TextRow, Vocabulary
from err_seg.utils.files import write_json, write_text

logger = logging.getLogger(__name__)

COUNTS = (1, 2, 5, 10)
EXAMPLE_SCENES, EXAMPLE_SEED, LEAST_PIXELS = 400, 1, 100
WAYS = ("mean", "examples", "right name and examples", "colour and examples")
GROUPS = {"unseen": UNSEEN, "unseen words": UNSEEN_WORDS, "seen": tuple(set(range(len(VOCABULARY))) - set(UNSEEN))}
HEADER = ("names", "examples", "unseen, validation", *(f"{group}, test" for group in GROUPS))


def draw_examples(count: int, seed: int) -> dict[int, list[Exemplar]]:
    """Draw so many examples of each unseen class, each of another scene."""
    scenes = MiniScenes("val", length=EXAMPLE_SCENES, seed=EXAMPLE_SEED)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(EXAMPLE_SCENES).tolist()
    found: dict[int, list[Exemplar]] = {label: [] for label in UNSEEN}
    for sample in (scenes[index] for index in order):
        for label in UNSEEN:
            if len(found[label]) < count and (mask := sample.label == label).sum() >= LEAST_PIXELS:
                found[label].append(Exemplar(sample.image, mask))
        if all(len(exemplars) == count for exemplars in found.values()):
            break
    return found


def vocabulary_of(model: ERRSeg, way: str, examples: Mapping[int, Sequence[Exemplar]]) -> Vocabulary:
    """Return the sixty classes, the unseen ones in one of ``WAYS``."""
    names = list(VOCABULARY)
    for label in examples:
        colour, kind = ATTRIBUTES[label]
        names[label] = {"colour and examples": f"{colour}{' wall' if 'wall' in names[label] else ''}"}.get(way, kind)
    raise NotImplementedError
