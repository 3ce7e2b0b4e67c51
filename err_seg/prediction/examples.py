"""Classes by example: from images with masks to rows that stand among text embeddings.

A row is a direction that separates the pixels under a class's masks from the rest of its images, from the pixels of the
other classes by example, and from what the other words mean (logistic regression on unit vectors of both strides). It
is then moved away from all pixels until it is as similar to its pixels as words are to theirs: image features are more
similar to each other than to text, and the network reads absolute similarities. Last, it is averaged with the embedding
of the class's name, which weighs as much as it can without being worse than the best weight on images left out.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from err_seg.data.image_sources import open_image
from err_seg.data.images import read_label
from err_seg.modeling.encoder import Features
from err_seg.modeling.hsm import unit_pixels
from err_seg.prediction.contrast import SAME_MEANING
from err_seg.text.prompts import TextRow, Vocabulary, carrying
from err_seg.utils.fingerprint import fingerprint, weights_digest
from err_seg.utils.validation import ArgumentError

MASK_ENDING = "_mask.png"
SHARPNESS = 12.0  # of the logistic regression, on cosine similarities
SHRINKAGE = 0.2  # toward the mean of the pixels under the masks
GOOD_WORDS = 0.75  # quantile of the words that say how similar a word is to its pixels
DAMPING = 0.01  # relative variance below which a direction counts as one that pixels do not have
NAME_WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
NAME_WEIGHT = 0.8  # of a class with a single example, which none can be left out of
LIKENESS = 0.95  # of a word that means the same, relative to good words and their pixels
TOLERANCE = 0.03  # of the loss of an example that was left out
FOLDS = 5
PIXELS_AT_A_TIME = 8192


@dataclass(frozen=True)
class Exemplar:
    """An image, and where it shows a class.

    Attributes:
        image: anything that ``predict`` takes.
        mask: (H, W) truth values, an array or tensor, or the path of a PNG file whose pixels that are not 0 belong to
            the class; of the image's size.
    """

    image: Any
    mask: Any

    def read(self, name: str) -> tuple[Tensor, Tensor]:
        """Read the image, (3, H, W) uint8, and the mask, (H, W) bool; errors call them by ``name``.

        Raises:
            ArgumentError: the mask is none, of another size than the image, or empty.
            ImageError, ImageReadError: the image or the mask cannot be read.
        """
        image, mask = open_image(self.image, f"the image of {name}")().cpu(), self.mask
        if isinstance(mask, str | os.PathLike):
            name, mask = f"{name} ({os.fspath(mask)})", read_label(mask) != 0
        mask = torch.as_tensor(np.asarray(mask.cpu() if isinstance(mask, Tensor) else mask))
        if mask.dtype != torch.bool or mask.shape != image.shape[1:]:
            raise ArgumentError(
                f"the mask of {name} must hold truth values of the image's size {tuple(image.shape[1:])}, not "
                f"{mask.dtype} of size {tuple(mask.shape)}"
            )
        if not mask.any():
            raise ArgumentError(f"the mask of {name} is empty; mark at least one pixel of the class")
        return image, mask


def read_examples(folder: str | os.PathLike[str]) -> dict[str, list[Exemplar]]:
    """List the examples in a folder: a folder for each class, of its name, with images and masks.

    Of every image, such as ``NAME.jpg``, the mask is ``NAME_mask.png``.

    Raises:
        ArgumentError: there are no classes, a class has no images, or an image or mask has no partner.
    """
    root = Path(folder).expanduser()
    found = {path.name: read_pairs(path) for path in sorted(root.glob("[!.]*")) if path.is_dir()}
    if not found:
        raise ArgumentError(f"{root}: expected a folder for each class, with images and their masks, found none")
    return found


def read_pairs(folder: Path) -> list[Exemplar]:
    """List the examples of a class, see :func:`read_examples`."""
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    masks = {path.name.removesuffix(MASK_ENDING): path for path in files if path.name.endswith(MASK_ENDING)}
    images = [path for path in files if path not in masks.values()]
    stems = [path.stem for path in images]
    if not images or sorted(stems) != sorted(masks):
        odd = [str(path) for path in images if path.stem not in masks]
        odd += [str(path) for stem, path in masks.items() if stems.count(stem) != 1]
        found = f"without a partner: {', '.join(odd[:5])}" if odd else "it holds no images"
        raise ArgumentError(f"{folder}: expected images, NAME.jpg or the like, each with NAME{MASK_ENDING}; {found}")
    return [Exemplar(path, masks[path.stem]) for path in images]


@dataclass(frozen=True)
class Pixels:
    """The N pixels of all examples of K classes, at both strides.

    Attributes:
        vectors: (N, D) float32 unit vectors.
        owners: (N,) the class whose example each is from, and ``images`` the number of the example in its class.
        inside, outside: (N,) weights, by the share of a pixel that the mask covers; 1 in all for each example.
    """

    vectors: Tensor
    owners: Tensor
    images: Tensor
    inside: Tensor
    outside: Tensor

    def __getitem__(self, chosen: Tensor) -> "Pixels":
        return Pixels(*(value[chosen] for value in vars(self).values()))

    @classmethod
    def of_example(cls, features: Features, mask: Tensor, owner: int, number: int) -> "Pixels":
        """Take the pixels of an image with a mask (H, W)."""
        vectors = [unit_pixels(maps)[0].flatten(1).T.cpu() for maps in features.embeddings]
        sizes = [maps.shape[-2:] for maps in features.embeddings]
        covered = [F.interpolate(mask[None, None].float(), size, mode="area").flatten() for size in sizes]
        sides = [part.square() for part in covered], [(1 - part).square() for part in covered]
        weights = [torch.cat([part / part.sum().clamp(min=1e-6) for part in side]) / len(sizes) for side in sides]
        whole = torch.cat(vectors)
        return cls(whole, torch.full((len(whole),), owner), torch.full((len(whole),), number), *weights)

    def sums(self, values: Tensor, num_classes: int) -> Tensor:
        """Add up values (N, ...) for each class, (K, ...)."""
        return values.new_zeros(num_classes, *values.shape[1:]).index_add_(0, self.owners, values)


def join(parts: Sequence[Pixels]) -> Pixels:
    """Put pixels of several examples together."""
    return Pixels(*(torch.cat([getattr(part, each) for part in parts]) for each in vars(parts[0])))


def with_rows(
    names: Vocabulary,
    examples: Mapping[str, Sequence[Exemplar]],
    *,
    use_names: bool,
    encode: Callable[[Tensor], Features],
    embed: Callable[[Vocabulary], Tensor],
    common: Tensor,
    weights: str,
) -> Vocabulary:
    """Give classes of a vocabulary rows by their examples; all others stay as they are.

    Args:
        names: the T class names, all of ``examples`` among them.
        examples: of K classes, one or more of each.
        use_names: whether the names of these count beside the examples.
        encode: from an image (3, H, W) to its features.
        embed: from T class names to (T, D) unit vectors.
        common: (R, D) unit vectors of names that most images can be described with.
        weights: the digest of the network's weights.

    Raises:
        ArgumentError, ImageError, ImageReadError: examples that cannot be used, see :meth:`Exemplar.read`.
        VocabularyError: names that cannot be embedded.
    """
    parts, digests = [], []
    for owner, (name, exemplars) in enumerate(examples.items()):
        for number, exemplar in enumerate(exemplars):
            image, mask = exemplar.read(f"example {number} of {name!r}")
            digests.append(weights_digest({"image": image, "mask": mask}))
            parts.append(Pixels.of_example(encode(image), mask, owner, number))
    pixels = join(parts)
    named = carrying((name for name in names if name not in examples), names)
    others = embed(named).cpu() if named else common[:0].cpu()
    own = embed(Vocabulary(examples)).cpu() if use_names else common[:0].cpu()
    words = own if use_names else torch.zeros(len(examples), common.shape[1])
    vectors, meanings = fit_rows(pixels, words, others, torch.cat([others, own, common.cpu()]))
    numbers = [(name, len(exemplars)) for name, exemplars in examples.items()]
    facts = {"names": names, "rows": [row[2:] for row in names.rows.values()], "use_names": use_names}
    origin = fingerprint({**facts, "examples": numbers, "pixels": digests})
    found = zip(examples, vectors, meanings, strict=True)
    rows = {name: TextRow(vector, meaning, weights, origin) for name, vector, meaning in found}
    return Vocabulary(names, rows={**names.rows, **rows})


@torch.enable_grad()
def fit_rows(pixels: Pixels, words: Tensor, others: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the rows of K classes by example.

    Args:
        pixels: of their examples.
        words: (K, D) unit vectors of their names; zeros for names that say nothing.
        others: (T, D) unit vectors of the classes that they compete with.
        reference: (R, D) unit vectors of words, which say how similar words and pixels are.

    Returns:
        (K, D) float32 unit vectors, and (K, D) vectors to be compared with words: their product is ``SAME_MEANING`` or
        more for words that are about as similar to the pixels as good ones are.
    """
    away = unseen_direction(pixels.vectors, reference.mean(dim=0))
    share = word_share(pixels.vectors, reference)
    strongest = [
        torch.logsumexp(SHARPNESS / share * part @ others.T, 1) for part in pixels.vectors.split(PIXELS_AT_A_TIME)
    ]
    competing = torch.cat(strongest)

    def rows_of(chosen: Tensor) -> tuple[Tensor, Tensor]:
        directions = separating_directions(pixels[chosen], competing[chosen], len(words))
        directions = F.normalize(directions - (directions @ away)[:, None] * away, dim=1)
        return share * directions + (1 - share**2) ** 0.5 * away, directions

    rows, directions = rows_of(torch.ones_like(pixels.owners, dtype=torch.bool))
    is_word = words.any(dim=1)
    numbers = pixels.sums(pixels.inside, len(words)).round()
    is_tried = (is_word & (numbers > 1))[pixels.owners]
    losses = []
    for fold in range(FOLDS):
        left_out = is_tried & (pixels.images % FOLDS == fold)
        if left_out.any():
            rest, _ = rows_of(~left_out)
            tried = (F.normalize(torch.lerp(rest, words, weight), dim=1) / share for weight in NAME_WEIGHTS)
            found = [class_losses(each, pixels[left_out], competing[left_out]) for each in tried]
            losses.append(torch.stack(found)[:, pixels[left_out].owners.unique()])
    weight = chosen_weight(torch.cat(losses, dim=1)) if losses else NAME_WEIGHT
    mixed = F.normalize(torch.lerp(rows, words, weight * is_word[:, None]), dim=1)
    return mixed, directions * SAME_MEANING / (LIKENESS * share)


def chosen_weight(losses: Tensor) -> float:
    """Return the largest of NAME_WEIGHTS whose losses, rows of (W, N), are on average about as low as the lowest."""
    mean = losses.mean(dim=1)
    return NAME_WEIGHTS[int((mean <= mean.min() + TOLERANCE).nonzero().max())]


def class_losses(rows: Tensor, pixels: Pixels, competing: Tensor) -> Tensor:
    """Return (K,) losses of rows (K, D): pixels inside of masks should be of their class, those outside should not.

    ``competing`` holds what all other classes have at each pixel, a logarithm of a sum of exponentials.
    """
    logits = SHARPNESS * pixels.vectors @ rows.T
    total = torch.logsumexp(torch.cat([logits, competing[:, None]], dim=1), dim=1)
    likelihood = logits.gather(1, pixels.owners[:, None])[:, 0] - total
    outside = -torch.log1p(-likelihood.exp().clamp(max=1 - 1e-5))
    return pixels.sums(pixels.outside * outside - pixels.inside * likelihood, len(rows))


def separating_directions(pixels: Pixels, competing: Tensor, num_classes: int) -> Tensor:
    """Return the unit vectors (K, D) that minimise :func:`class_losses`, drawn to the means of the pixels inside."""
    numbers = pixels.sums(pixels.inside, num_classes).clamp(min=1)
    means = F.normalize(pixels.sums(pixels.vectors * pixels.inside[:, None], num_classes), dim=1)
    rows = means.clone().requires_grad_()
    search = torch.optim.LBFGS([rows], max_iter=30, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        losses = class_losses(F.normalize(rows, dim=1), pixels, competing) / numbers
        value = (losses - SHRINKAGE * F.cosine_similarity(rows, means, dim=1)).mean()
        value.backward()
        return value

    search.step(loss)
    return F.normalize(rows.detach(), dim=1)


def word_share(vectors: Tensor, words: Tensor) -> float:
    """Return the cosine similarity, in (0, 1], of a good word and the mean of the pixels (N, D) that it wins."""
    winners = torch.cat([(part @ words.T).argmax(dim=1) for part in vectors.split(PIXELS_AT_A_TIME)])
    sums = torch.zeros_like(words).index_add_(0, winners, vectors)
    similarity, order = F.cosine_similarity(sums, words, dim=1).sort()
    reached = torch.bincount(winners, minlength=len(words))[order].cumsum(0) >= GOOD_WORDS * len(vectors)
    return float(similarity[reached].clamp(0.01, 1)[0])


def unseen_direction(vectors: Tensor, start: Tensor) -> Tensor:
    """Return the part of a vector (D,) that pixels (N, D) hardly have, of length 1."""
    moments = vectors.T @ vectors / len(vectors)
    identity = torch.eye(len(start))
    return F.normalize(torch.linalg.solve(moments * len(start) / moments.trace() + DAMPING * identity, start), dim=0)
