"""Large images: overlapping windows at a finer scale, with the same classes in all, blended without seams."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from err_seg.modeling.crm import ClassScores
from err_seg.modeling.encoder import Features
from err_seg.modeling.head import Head
from err_seg.modeling.layers import resized_part
from err_seg.prediction.class_maps import check_room
from err_seg.utils.validation import ArgumentError, check_count

STEP = 32
"""Windows begin at multiples of this, the network's largest stride, so that all see the image on one grid."""
OVERLAP = 1 / 4
"""The least share of a window's side that its neighbour covers as well."""
FEATURES_KEPT = 2**30
"""How many bytes of features are kept from the choice of classes to the segmentation; all others are made twice."""


class Windows(NamedTuple):
    """Where the windows of an image lie.

    The image is resized to a canvas, whose aspect ratio differs a little from its own, and each window is S×S of it.

    canvas: (height, width) of the canvas, multiples of ``STEP``.
    side: S.
    tops, lefts: where windows begin; there is a window for each pair.
    """

    canvas: tuple[int, int]
    side: int
    tops: list[int]
    lefts: list[int]

    @property
    def is_whole(self) -> bool:
        """Whether one window covers the image, as without windows."""
        return self.canvas == (self.side, self.side)

    def cut(self, image: Tensor, top: int, left: int) -> Tensor:
        """Cut the window at a place of the canvas: image (3, h, w) to (3, S, S) float32."""
        return resized_part(image, self.canvas, slice(top, top + self.side), slice(left, left + self.side))


def check_tile(tile: Any, side: int) -> int | None:
    """Check an argument ``tile``; return how many pixels of the image a side of a window covers, S for "auto"."""
    if tile is None:
        return None
    if isinstance(tile, str) and tile == "auto":
        return side
    tile = check_count("tile", tile, '"auto" or a whole number of pixels, at least 1')
    if tile * STEP < side:  # no cell of the deepest map would see more than one pixel, and windows would be countless
        raise ArgumentError(f"tile must be at least {-(-side // STEP)} pixels, 1/{STEP} of S = {side}, not {tile}")
    return tile


def plan_windows(size: Sequence[int], tile: int, side: int) -> Windows:
    """Spread S×S windows evenly over an image (height, width); S, ``side``, is a multiple of ``STEP``.

    A side of a window covers ``tile`` pixels of the image, or the image's own side where that is smaller.
    """
    height, width = (max(side, round(length * side / tile / STEP) * STEP) for length in size)
    return Windows((height, width), side, starts(height, side), starts(width, side))


def starts(length: int, side: int) -> list[int]:
    """List where windows begin along a side of the canvas, the last one ending where it ends."""
    steps, furthest = (length - side) // STEP, max(1, int(side * (1 - OVERLAP)) // STEP)
    gaps = math.ceil(steps / furthest)
    return [number * steps // max(gaps, 1) * STEP for number in range(gaps + 1)]


def segment_windows(
    encode: Callable[[list[Tensor]], Features],
    head: Head,
    image: Tensor,
    text: Tensor,
    num_kept: int | None,
    windows: Windows,
    batch_size: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Segment an image window by window.

    The classes are chosen by all windows and a view of the whole image together. Where windows overlap, the weight of
    each falls linearly to its edge. Memory beside the results does not grow with the image.

    Args:
        encode: from images (3, S, S), RGB in 0..255, to their features.
        head: of the network.
        image: (3, h, w), RGB in 0..255.
        text: (T, D) embeddings of the vocabulary.
        num_kept: K; ``None``: the head's own.
        windows: of the image.
        batch_size: windows that go through the network together.

    Returns:
        probabilities (1, K, canvas height / 4, canvas width / 4), kept (1, K) and class_scores (1, T).

    Raises:
        TooLargeError: the probabilities would take more than half of the free memory.
    """
    height, width = (length // 4 for length in windows.canvas)
    num_maps = min(num_kept or head.crm.num_kept or len(text), len(text))
    what = f"the maps of {num_maps} classes in {len(windows.tops) * len(windows.lefts):,} windows"
    advice = "choose a larger tile (TEST.TILE), or a smaller num_kept (MODEL.CRM.NUM_KEPT)"
    check_room(what, 4 * num_maps * height * width, text.device, advice)
    corners = list(itertools.product(windows.tops, windows.lefts))
    batches = [corners[first : first + batch_size] for first in range(0, len(corners), batch_size)]
    held: list[Features] = []

    def encoded(batch: list[tuple[int, int]]) -> Features:
        return encode([windows.cut(image, top, left) for top, left in batch])

    def scores_of_views() -> Iterator[ClassScores]:
        whole = (slice(0, windows.side), slice(0, windows.side))
        yield head.score_classes(encode([resized_part(image, (windows.side, windows.side), *whole)]), text)
        size = 0
        for batch in batches:
            features = encoded(batch)
            size += sum(maps.nbytes for use in features for maps in use)
            if size <= FEATURES_KEPT:
                held.append(features)
            yield head.score_classes(features, text)

    kept, class_scores = head.crm.keep(joined(scores_of_views()), num_kept)
    kept, class_scores = kept.to(text.device), class_scores.to(text.device)
    down, across = edge_weights(windows.tops, windows), edge_weights(windows.lefts, windows)
    blended = torch.zeros(1, kept.shape[1], height, width, device=text.device)
    for number, batch in enumerate(batches):
        features = held[number] if number < len(held) else encoded(batch)
        logits = head.segment(features, text, kept.expand(len(batch), -1), has_padding=False)
        for maps, (top, left) in zip(logits.float().sigmoid(), batch, strict=True):
            place = blended[0, :, top // 4 : (top + windows.side) // 4, left // 4 : (left + windows.side) // 4]
            place += maps * (down[top][:, None] * across[left]).to(maps.device)
    return blended.clamp_(max=1), kept, class_scores  # weights add up to 1 but for rounding


def joined(scores_of_views: Iterable[ClassScores]) -> ClassScores:
    """Join the scores of several views of an image to one, on the CPU: the root of every class's mean square.

    The square lets a class that a few views need win over one that comes second everywhere. Sums of doubles do not
    depend on which views are in one batch.
    """
    views, pixels, sums = 0, 0, torch.zeros(())
    for view in scores_of_views:
        views, pixels = views + len(view.scores), view.pixels
        sums = sums + torch.stack([view.scores, view.shares]).cpu().double().square().sum(dim=1)
    scores, shares = (sums / views).sqrt().float().unsqueeze(1)
    return ClassScores(scores, pixels, shares)


def edge_weights(starts: list[int], windows: Windows) -> dict[int, Tensor]:
    """Return the weights (S/4,) of the windows that begin at each place of one axis; they sum to 1 everywhere."""
    cells = windows.side // 4
    ramp = 1 - (2 * (torch.arange(cells) + 0.5) / cells - 1).abs()
    total = torch.zeros(starts[-1] // 4 + cells)
    for start in starts:
        total[start // 4 : start // 4 + cells] += ramp
    return {start: ramp / total[start // 4 : start // 4 + cells] for start in starts}
