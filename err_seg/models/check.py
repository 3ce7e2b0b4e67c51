"""Whether a loaded model is in order: its towers, the numbers that each part computes, and what it costs here.

Fingerprints are of a synthetic image that is computed, not stored, and of fixed words. So the same weights give the
same numbers on every machine, but for rounding.
"""

import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from err_seg.data import load_vocabulary
from err_seg.mini.clip import CLIPS
from err_seg.mini.scenes import MiniScenes
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.text.prompts import name_key, synonyms_of

WORDS = 16  # of the fingerprints
KEPT = 6
DISTRACTORS = 40
RANKED_ABOVE = 0.8
"""The share of pairs of an own and a random word in which the own word must win; unrelated towers give about half."""
RUNS = 3


class Photo(NamedTuple):
    """An image and words for what is in it: (H, W, 3) uint8 RGB, class names, and where both are from."""

    image: np.ndarray
    classes: tuple[str, ...]
    origin: str


def is_mini(model: ERRSeg) -> bool:
    """Whether the model was trained on the words of the miniature world alone."""
    return model.settings.get("MODEL.CLIP.NAME") in CLIPS


def trained_words(model: ERRSeg) -> tuple[str, ...]:
    """Return words that a model of this kind is trained on: of the miniature world, else of COCO-Stuff."""
    return VOCABULARY if is_mini(model) else load_vocabulary("coco_stuff")


def packaged_photo(model: ERRSeg) -> Photo | None:
    """Return a scene of the miniature world with the names of what it shows; ``None`` for a model of other words."""
    if not is_mini(model):
        return None
    scene = MiniScenes("test", length=1, seed=0)[0]
    names = tuple(VOCABULARY[label] for label in np.unique(scene.label) if label < len(VOCABULARY))
    return Photo(scene.image, names, "a scene of the miniature world")


def synthetic_image(size: int) -> np.ndarray:
    """Compute an image with gradients, edges and texture: (size, size, 3) uint8, equal on every machine."""
    y, x = np.mgrid[:size, :size]
    waves = [(x * a + y * b) * 256 // size % 256 for a, b in ((1, 2), (3, 1), (2, 5))]
    blocks = ((x * 8 // size) * 3 + (y * 8 // size) * 5) % 7 * 36
    return np.stack([(wave + blocks) // 2 for wave in waves], axis=-1).astype(np.uint8)


@torch.no_grad()
def fingerprints(model: ERRSeg) -> dict[str, str]:
    """Compute what identifies the outputs of every part, on the synthetic image, by name of the part.

    That is the root mean square and the mean of its output in three digits, or indices of classes.
    """
    words = trained_words(model)[:WORDS]
    image = torch.from_numpy(synthetic_image(model.size)).permute(2, 0, 1)
    with model.evaluating():
        text = model.embed_vocabulary(words)
        features = model.encoder(model.preprocess([image]))
        parts = {"text embeddings": text}
        for declared, tensors in zip(model.encoder.maps, features, strict=True):
            parts |= {f"encoder, {m.name}": tensor for m, tensor in zip(declared, tensors, strict=True)}
        parts |= {f"cost map {i + 1}": cost for i, cost in enumerate(model.head.cost_maps(features, text))}
        kept, _ = model.head.choose(features, text, min(KEPT, len(words)))
        chosen = text[kept.clamp(min=0)]
        parts["X"] = x = model.head.cost_embedding(model.head.cost_maps(features, chosen))
        if model.head.escf is not None:
            parts["X after ESCF"] = x = model.head.escf(x, features.deep, chosen)
        parts["logits of GUD"] = model.head.gud(x, features.shallow)
    prints = {name: _digits(tensor) for name, tensor in parts.items()}
    prints["kept classes"] = ", ".join(map(str, sorted(kept[0].tolist())))
    return prints


def _digits(values: Tensor) -> str:
    values = values.double()
    return f"{values.square().mean().sqrt():.2e} {values.mean():+.2e}"


@torch.no_grad()
def own_words_rank(model: ERRSeg, photo: Photo) -> float:
    """Measure whether text and image tower belong together, by the scores that CRM chooses classes with.

    Returns:
        The share of pairs of a class on the photo and a random word in which the former's score is higher; an equal
        score counts half. Towers that have nothing to do with each other give about 0.5.
    """
    taken = {name_key(name) for entry in photo.classes for name in synonyms_of(entry)}
    others = [word for word in trained_words(model) if taken.isdisjoint(map(name_key, synonyms_of(word)))]
    drawn = np.random.default_rng(0).permutation(len(others))[:DISTRACTORS]
    image = torch.from_numpy(np.ascontiguousarray(photo.image)).permute(2, 0, 1)
    with model.evaluating():
        text = model.embed_vocabulary([*photo.classes, *(others[i] for i in drawn)])
        _, scores = model.head.choose(model.encoder(model.preprocess([image])), text, len(text))
    own, random = scores[0].double().cpu().split([len(photo.classes), len(drawn)])
    return float((1 + (own[:, None] - random).sign().mean()) / 2)


def measure_cost(model: ERRSeg, photo: Photo) -> tuple[Segmentation, float, int]:
    """Predict a few times with words that are embedded before.

    Returns the result, the seconds of the fastest run, and the bytes of memory: on CUDA at most, else in use now.
    """
    model.embed_vocabulary(photo.classes)
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        result = model.predict(photo.image, photo.classes, contrast="none")
        _ = result.labels.cpu()  # waits for the device
        seconds.append(time.perf_counter() - start)
    is_cuda = model.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(model.device) if is_cuda else psutil.Process().memory_info().rss
    return result, min(seconds), memory


def renaming_rules(names: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Sum up how entries of a checkpoint are named: (beginning in the file, beginning in the model, number of entries).

    ``names`` maps names in the file to those in the model; numbers in them are shown as N.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for old, new in names.items():
        before, after = ([("N" if part.isdecimal() else part) for part in name.split(".")] for name in (old, new))
        while len(before) > 1 and len(after) > 1 and before[-1] == after[-1]:
            before.pop()
            after.pop()
        if old == new:
            before, after = new.split(".")[:2], new.split(".")[:2]
        counts[".".join(before), ".".join(after)] += 1
    return [(old, new, number) for (old, new), number in sorted(counts.items())]
