"""What ESCF attends to: recorded by hooks while the network runs, and drawn (paper, Fig. 2).

SFM attends, within the map of one class, from every pixel to all pixels (with SSR: of a coarser grid). CFM attends, at
every place, from every kept class to all kept classes.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from err_seg.data.image_sources import image_to_tensor
from err_seg.modeling.escf import CFM, ESCF, SFM
from err_seg.prediction.contrast import Contrast
from err_seg.prediction.model import ERRSeg
from err_seg.prediction.segmentation import Segmentation
from err_seg.text.vocabularies import VocabularySource
from err_seg.visualization.plots import DPI, draw_heat, set_class_ticks, set_class_title, thumbnail, to_image

Index = int | slice | Tensor

CLASSES_SHOWN = 9
POINT_COLOR = "#00ffff"


@dataclass
class AttentionLayer:
    """Queries and keys of one attention of one image, (N, L, C) and (N, L', C), and the grid (H, W) of its input."""

    num_heads: int
    grid: tuple[int, int] = (0, 0)
    queries: Tensor = field(default_factory=lambda: torch.empty(0))
    keys: Tensor = field(default_factory=lambda: torch.empty(0))

    def logits(self, sequences: Index = slice(None), positions: Index = slice(None)) -> Tensor:
        """Return the input of the softmax.

        Args:
            sequences: which sequences, an index of the first axis; a number leaves the axis out.
            positions: which query positions, a slice or (Q,) indices.

        Returns:
            (N, heads, Q, L') float32, q·k / sqrt(C / heads).
        """
        q, k = (t[sequences].unflatten(-1, (self.num_heads, -1)).transpose(-3, -2) for t in (self.queries, self.keys))
        return q[..., positions, :] @ k.transpose(-2, -1) / q.shape[-1] ** 0.5

    def weights(self, sequence: int, position: int | None = None) -> Tensor:
        """Return the softmax weights, averaged over the heads, of one position (L',) or of all (L, L'); sums of 1."""
        positions = slice(None) if position is None else slice(position, position + 1)
        weights = self.logits(sequence, positions).softmax(dim=-1).mean(dim=0)
        return weights if position is None else weights[0]


@dataclass(frozen=True)
class Attention:
    """All attentions of one image, in the order of ESCF's layers."""

    spatial: list[AttentionLayer]
    category: list[AttentionLayer]

    def to_pixels(self, layer: int, place: int, point: tuple[float, float]) -> Tensor:
        """Return where SFM looks, from a point, in the map of one class.

        Args:
            layer: 0 is the first.
            place: the class's place among the kept ones, 0..K-1.
            point: (x, y), each in 0..1, from the upper left corner.

        Returns:
            (h, w) float32 on SSR's grid; the sum is 1.
        """
        attention = self.spatial[layer]
        height, width = attention.grid
        row, column = cell(point, (height, width))
        weights = attention.weights(place, row * width + column)
        ratio = round((height * width / len(weights)) ** 0.5)
        return weights.unflatten(0, (height // ratio, width // ratio))

    def to_classes(self, layer: int, point: tuple[float, float]) -> Tensor:
        """Return how CFM divides each kept class's attention between the kept classes, at a point.

        Row i of the (K, K) float32 is what class i attends to, and sums to 1.
        """
        attention = self.category[layer]
        row, column = cell(point, attention.grid)
        return attention.weights(row * attention.grid[1] + column)


def cell(point: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the row and column of a grid (H, W) that a point (x, y) in 0..1 lies in."""
    return min(int(point[1] * grid[0]), grid[0] - 1), min(int(point[0] * grid[1]), grid[1] - 1)


@torch.no_grad()
def record_attention(
    model: ERRSeg,
    image: np.ndarray,
    vocabulary: Sequence[str],
    num_kept: int | None = None,
    contrast: VocabularySource | None = None,
) -> Attention:
    """Run the network on one image (H, W, 3), uint8 RGB, and keep the queries and keys of ESCF's attentions.

    ``vocabulary``, ``num_kept`` and ``contrast`` are those of the image's prediction.

    Raises:
        ValueError: the network has no ESCF (Table V), or is compiled.
    """
    with model.evaluating(), recording(escf_with(model)) as attention:
        text, _ = model.embed_with_contrast(vocabulary, contrast)
        model(model.preprocess([image_to_tensor(image)]), text, num_kept)
    return attention


def escf_with(model: ERRSeg, *modules: type[SFM] | type[CFM]) -> ESCF:
    """Return a network's ESCF, which has the modules that a caller needs.

    Raises:
        ValueError: there is no ESCF (Table V), it lacks a module (Table VIII), or it is compiled.
    """
    if model.head.escf is None:
        raise ValueError("the network has no ESCF (MODEL.ESCF.ENABLED is False), so there is no attention to show")
    if model.is_compiled:
        raise ValueError("the network is compiled, and compiled models cannot record attention; unset TEST.COMPILE")
    for module in modules:
        if not any(isinstance(part, module) for part in model.head.escf.modules()):
            name = module.__name__
            raise ValueError(
                f"the network has no {name} (MODEL.ESCF.{name} is False), so there is no attention of it to show"
            )
    return model.head.escf


@contextmanager
def recording(escf: nn.Module, modules: tuple[type[SFM] | type[CFM], ...] = (SFM, CFM)) -> Iterator[Attention]:
    """During a ``with`` block, collect the attentions of an ESCF's ``modules`` for the first image of a batch.

    Those of SFM take the most memory. Computations of other threads with the same ESCF are left out.
    """
    attention = Attention([], [])
    hooks = ExitStack()
    thread = threading.get_ident()

    def hook(module: nn.Module, note: Callable[[Tensor, Tensor], None]) -> None:
        def noting(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if threading.get_ident() == thread:
                note(inputs[0], output)

        hooks.enter_context(module.register_forward_hook(noting))

    def record(module: SFM | CFM, layer: AttentionLayer) -> None:
        parts: dict[str, list[Tensor]] = {"queries": [], "keys": []}  # of a few classes, or places, each
        ratio = module.csr_ratio if isinstance(module, CFM) else 1

        def finish(x: Tensor, _: Tensor) -> None:
            layer.grid = (x.shape[2] // ratio, x.shape[3] // ratio)
            for name, found in parts.items():
                setattr(layer, name, torch.cat(found))
                found.clear()

        hook(module.attention.q, lambda _, output: parts["queries"].append(output[0].detach().float().cpu()))
        hook(module.attention.k, lambda _, output: parts["keys"].append(output[0].detach().float().cpu()))
        hook(module, finish)

    with hooks:
        for module in escf.modules():
            if isinstance(module, modules):
                layer = AttentionLayer(module.attention.num_heads)
                (attention.category if isinstance(module, CFM) else attention.spatial).append(layer)
                record(module, layer)
        yield attention


def attention_figure(
    image: np.ndarray, result: Segmentation, attention: Attention, point: tuple[int, int] | None = None
) -> Image.Image:
    """Draw the attentions from one pixel: SFM's maps for the class found there, and CFM's shares between classes.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: its prediction, with the K and vocabulary that the attention was recorded with.
        attention: see :func:`record_attention`.
        point: (x, y) in pixels; ``None`` is the middle.
    """
    height, width = image.shape[:2]
    x, y = (width // 2, height // 2) if point is None else (min(point[0], width - 1), min(point[1], height - 1))
    at = ((x + 0.5) / width, (y + 0.5) / height)
    of_all_names = replace(result, vocabulary=result.names, contrast=Contrast(), size=(height, width))
    index = int(of_all_names.labels[y, x])
    place = result.kept.tolist().index(index)
    small = thumbnail(image)
    spot = (at[0] * small.shape[1], at[1] * small.shape[0])

    columns = max(len(attention.spatial), len(attention.category), 1)
    aspect = min(max(small.shape[0] / small.shape[1], 0.3), 2.0)
    figure = Figure(figsize=(3.4 * (columns + 1), 3.0 * aspect + 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, columns + 1, squeeze=False, height_ratios=(3.0 * aspect, 3.6))
    for axis in axes.ravel():
        axis.axis("off")
    axes[0, 0].imshow(small)
    axes[0, 0].plot(*spot, "o", color=POINT_COLOR, markeredgecolor="black", markersize=9)
    set_class_title(axes[0, 0], result.names[index], " at the point")
    for layer in range(len(attention.spatial)):
        axis = axes[0, layer + 1]
        draw_heat(axis, small, attention.to_pixels(layer, place, at).numpy())
        axis.plot(*spot, "o", color=POINT_COLOR, markeredgecolor="black", markersize=7)
        axis.set_title(f"SFM {layer + 1}: where it looks", fontsize=11)
    for layer in range(len(attention.category)):
        _draw_shares(axes[1, layer + 1], attention.to_classes(layer, at), result, place, f"CFM {layer + 1}")
    axes[1, 0].text(0, 1, _EXPLANATION, va="top", fontsize=9, wrap=True, transform=axes[1, 0].transAxes)
    return to_image(figure)


_EXPLANATION = """Above: SFM, within the map of
the class at the point; bright
pixels are attended to.

Right: CFM, at the point. A row
is a class, and divides 100 %
of its attention between the
kept classes of the columns;
the last column, in white, is
the sum of all others."""


def _draw_shares(axis: Axes, shares: Tensor, result: Segmentation, place: int, title: str) -> None:
    """Draw the part of a (K, K) matrix that belongs to the best classes, and the others' sum as a white column."""
    scores = result.class_scores.cpu()[result.kept.cpu()]
    best = scores.argsort(descending=True, stable=True).tolist()
    shown = [place, *(i for i in best if i != place)][:CLASSES_SHOWN]
    matrix, others = shares[shown][:, shown], len(shares) - len(shown)
    highest = max(float(matrix.max()), 1e-6)  # of the classes shown: the sum of many others would outshine them
    if others:
        matrix = torch.cat([matrix, 1 - matrix.sum(dim=1, keepdim=True)], dim=1)
    axis.axis("on")
    axis.imshow(matrix[:, : len(shown)].numpy(), cmap="viridis", vmin=0, vmax=highest, aspect="auto")
    axis.set_xlim(-0.5, matrix.shape[1] - 0.5)
    names = [result.names[int(result.kept[i])] for i in shown]
    set_class_ticks(axis.yaxis, names, 8)
    set_class_ticks(axis.xaxis, names, 8, [f"{others} others"] if others else [])
    for tick in axis.get_xticklabels():
        tick.set(rotation=60, ha="right", rotation_mode="anchor")
    for (row, column), share in np.ndenumerate(matrix.numpy()):
        color = "black" if share > 0.6 * highest or column == len(shown) else "white"
        axis.text(column, row, f"{share:.0%}"[:-1], ha="center", va="center", fontsize=7, color=color)
    axis.set_title(f"{title}: % of attention", fontsize=11)
