"""CRM, the channel reduction module (paper, "Channel Reduction Module"): which K classes does an image need?"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

NOT_KEPT = -1
"""Fills up the row of an image that keeps fewer classes than others in its batch."""


class ClassScores(NamedTuple):
    """The classes' scores in the cost maps of B images (paper, CRM).

    scores: (B, T) float32, the score of every class in the first cost map, in units of pixels of the grid.
    pixels: of the grid, H·W.
    shares: (B, T) float32, the smallest share of a cost map's pixels that a class scores; the scores' own if only the
        first cost map was read.
    """

    scores: Tensor
    pixels: int
    shares: Tensor


class CRM(nn.Module):
    """Training-free choice of classes (paper, CRM; Tables V, VII and XIII, Fig. 6 and 7): no parameters, no gradient.

    At every pixel p the classes are ranked by their cost in C16. A class t has the score

        s(t) = Σ_p Σ_{r=1..R} λ_r · [class t has rank r at pixel p],   λ_r = b^(r−1),

    and the K classes with the highest scores are kept. With a minimum score, each image keeps as many classes as it
    needs, at most K.

    Args:
        num_ranks: R, how many ranks earn a score (Table VII); at most T of them.
        rank_decay: b, the base of the weights λ = (1, b, b², ...) (Fig. 6).
        num_kept: K in evaluation, and ``num_kept_train`` in training; ``None`` keeps all (Table V, without CRM).
        min_score: the score that a class needs in evaluation, and ``min_score_train`` in training, as a share of the
            pixels of every cost map, C16 and C32; 0 keeps K classes for every image, as published. Classes in the
            labels need no score.
        min_kept: how many of the best classes are kept whatever their score.
    """

    def __init__(
        self,
        *,
        num_ranks: int = 3,
        rank_decay: float = 0.1,
        num_kept: int | None = None,
        num_kept_train: int | None = None,
        min_score: float = 0.0,
        min_score_train: float = 0.0,
        min_kept: int = 1,
    ):
        super().__init__()
        self.num_ranks = num_ranks
        self.rank_decay = rank_decay
        self.num_kept = num_kept
        self.num_kept_train = num_kept_train
        self.min_score = min_score
        self.min_score_train = min_score_train
        self.min_kept = min_kept

    @property
    def is_adaptive(self) -> bool:
        """Whether images may keep unequal numbers of classes."""
        return (self.min_score_train if self.training else self.min_score) > 0

    @torch.no_grad()
    def forward(
        self,
        cost: Iterable[Tensor],
        num_kept: int | None = None,
        class_pixels: Tensor | None = None,
        others: Sequence[Iterable[Tensor]] = (),
    ) -> tuple[Tensor, Tensor]:
        """Choose the classes to keep, in ascending order of index.

        Args:
            cost: parts (B, t, H, W) of the cost map of T classes, in the order of the classes; any real values.
            num_kept: K, instead of the module's own.
            class_pixels: (B, T) labelled pixels of each class, in training. Present classes come before all others,
                the most frequent first, so if there are more than K of them, the rarest are lost.
            others: further cost maps, in parts; they are read only if there is a minimum score.

        Returns:
            kept (B, min(K, T)) int64 class indices and scores (B, T) float32, in units of pixels of the grid. With a
            minimum score ``kept`` is as wide as the largest number kept, and ``NOT_KEPT`` fills up the other rows.
        """
        return self.keep(self.score_classes(cost, others), num_kept, class_pixels)

    @torch.no_grad()
    def score_classes(self, cost: Iterable[Tensor], others: Sequence[Iterable[Tensor]] = ()) -> ClassScores:
        """Score all classes; arguments as for :meth:`forward`."""
        winners, num_classes = self.winners(cost)
        scores, pixels = self.scores(winners, num_classes), winners.shape[2]
        return ClassScores(scores, pixels, self.shares(scores / pixels, others if self.is_adaptive else ()))

    @torch.no_grad()
    def keep(
        self, class_scores: ClassScores, num_kept: int | None = None, class_pixels: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Choose classes by their scores; arguments and results as for :meth:`forward`."""
        scores, pixels, shares = class_scores
        num_classes = scores.shape[1]
        num_kept = num_kept or (self.num_kept_train if self.training else self.num_kept) or num_classes
        if num_kept >= num_classes and not self.is_adaptive:
            return torch.arange(num_classes, device=scores.device).expand(len(scores), -1), scores
        priority = scores
        if class_pixels is not None:
            best_score = pixels * self.num_ranks * max(1.0, self.rank_decay**self.num_ranks)
            priority = torch.where(class_pixels > 0, best_score + class_pixels, scores)
        best = ranked(priority)[:, :num_kept]
        if not self.is_adaptive:
            return best.sort(dim=1).values, scores
        if class_pixels is not None:
            shares = torch.where(class_pixels > 0, torch.inf, shares)
        needed = self.needed(best, shares)
        kept = torch.where(needed, best, num_classes).sort(dim=1).values[:, : int(needed.sum(dim=1).max())]
        return torch.where(kept < num_classes, kept, NOT_KEPT), scores

    def shares(self, first: Tensor, others: Sequence[Iterable[Tensor]]) -> Tensor:
        """Take a class's smallest score over all cost maps: a class that one of them misses is rarely in the image.

        Args:
            first: (B, T) scores in the first cost map, as shares of its pixels.
            others: further cost maps, each in parts.

        Returns:
            (B, T) shares.
        """
        for cost in others:
            winners, num_classes = self.winners(cost)
            first = torch.minimum(first, self.scores(winners, num_classes) / winners.shape[2])
        return first

    def needed(self, best: Tensor, shares: Tensor) -> Tensor:
        """Return (B, K) bool: which of the best classes an image needs.

        Args:
            best: (B, K) class indices, best first.
            shares: (B, T), what :meth:`shares` returned.
        """
        min_score = self.min_score_train if self.training else self.min_score
        places = torch.arange(best.shape[1], device=best.device)
        return (shares.gather(1, best) >= min_score) | (places < self.min_kept)

    def ranking(self, cost: Iterable[Tensor]) -> Tensor:
        """List all classes by score, best first: parts (B, t, H, W) of a cost map to (B, T) int64 class indices."""
        return ranked(self.scores(*self.winners(cost)))

    def winners(self, cost: Iterable[Tensor]) -> tuple[Tensor, int]:
        """Rank the classes at every pixel and return the first R, in memory that does not grow with T·H·W.

        Args:
            cost: parts (B, t, H, W) of the cost map of T classes, in the order of the classes.

        Returns:
            (B, min(R, T), H·W) int64 class indices, and T.
        """
        costs, winners, num_classes = None, None, 0
        for part in cost:
            found, classes = part.flatten(2).topk(min(self.num_ranks, part.shape[1]), dim=1)
            classes = classes + num_classes
            if costs is not None and winners is not None:
                found, classes = torch.cat([costs, found], dim=1), torch.cat([winners, classes], dim=1)
                found, places = found.topk(min(self.num_ranks, found.shape[1]), dim=1)
                classes = classes.gather(1, places)
            costs, winners, num_classes = found, classes, num_classes + part.shape[1]
        assert winners is not None
        return winners, num_classes

    def scores(self, winners: Tensor, num_classes: int) -> Tensor:
        """Sum λ_r over the places where a class has rank r (s(t) above): winners (B, R, H·W) to (B, T) float32."""
        batch, ranks, _ = winners.shape
        # integer counts are exact in any order of addition, so scores are the same on every run and device
        counts = winners.new_zeros(batch, ranks, num_classes)
        counts.scatter_add_(2, winners, torch.ones_like(winners))
        weights = self.rank_decay ** torch.arange(ranks, device=winners.device, dtype=torch.float32)
        return (counts * weights[:, None]).sum(dim=1)


def ranked(priority: Tensor) -> Tensor:
    """List the indices of (B, T) numbers, highest number first, equal numbers by index."""
    # a stable sort, unlike topk, settles ties by index on every device
    return priority.sort(dim=1, descending=True, stable=True).indices


def count_class_pixels(labels: Tensor, num_classes: int) -> Tensor:
    """Count the pixels of each class: labels (B, h, w), values outside 0..T−1 ignored, to (B, T) int64."""
    labels = labels.flatten(1)
    slots = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    counts = torch.zeros(labels.shape[0], num_classes + 1, dtype=torch.int64, device=labels.device)
    return counts.scatter_add_(1, slots, torch.ones_like(slots))[:, :num_classes]


def kept_class_labels(labels: Tensor, kept: Tensor, num_classes: int) -> Tensor:
    """Replace each label by the place of its class among the kept ones.

    Args:
        labels: (B, h, w) int64 class indices; anything outside 0..T−1 is ignored.
        kept: (B, K) class indices, or ``NOT_KEPT``.
        num_classes: T.

    Returns:
        (B, h, w) int64 places 0..K−1, and −1 where the pixel is ignored or its class was not kept.
    """
    places = torch.full_like(kept[:, :1], -1).expand(-1, num_classes + 2)  # one for ignored pixels, one for NOT_KEPT
    order = torch.arange(kept.shape[1], device=kept.device).expand_as(kept)
    places = places.scatter(1, kept % (num_classes + 2), order)
    slots = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    return places.gather(1, slots.flatten(1)).view_as(labels)
