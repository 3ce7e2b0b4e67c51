"""How much of an evaluation vocabulary is, in words or in meaning, in the training vocabulary (paper, Table IV)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from err_seg.config import Config
from err_seg.data import DatasetError, dataset_names, get_dataset, load_vocabulary, vocabulary_names
from err_seg.evaluation.results import text_table, write_csv
from err_seg.lab.table import finish_shares
from err_seg.modeling.clip import build_clip, load_clip_weights
from err_seg.models.build import build_model, build_vocabulary_encoder
from err_seg.text.cache import encode_in_batches
from err_seg.utils.device import resolve_device
from err_seg.utils.files import write_json
from err_seg.visualization.plots import panel_grid

# Table IV: shares of classes with a similarity of 1, and above two thresholds
PAPER = {
    "pascal_voc_20": (0.45, 0.90, 1.00),
    "pascal_context_59": (0.30, 0.85, 0.95),
    "ade20k_150": (0.19, 0.41, 0.57),
    "pascal_context_459": (0.10, 0.21, 0.29),
    "ade20k_847": (0.06, 0.12, 0.21),
}
# the paper's two are not known
DEFAULT_THRESHOLDS = (0.95, 0.9)
# equal prompts, computed in batches of different lengths, differ by rounding
SAME = 1 - 1e-6

Embedder = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class NearestClasses:
    """For every class of a vocabulary, the training class that is nearest in meaning.

    Attributes:
        vocabulary: what the vocabulary is called.
        names: its N class names.
        nearest: N names of training classes.
        similarity: (N,) float64, cosine similarities of the text embeddings, at most 1 up to rounding.
        similarity_float32: (N,) the same, computed in float32 throughout.
    """

    vocabulary: str
    names: tuple[str, ...]
    nearest: tuple[str, ...]
    similarity: Tensor
    similarity_float32: Tensor

    def share(self, threshold: float) -> float:
        """Share of the classes, in 0..1, whose similarity is at least ``threshold``."""
        return (self.similarity >= threshold).double().mean().item()

    @property
    def share_same(self) -> float:
        """Share of the classes that have the prompt of a training class (similarity 1 up to rounding), in 0..1."""
        return self.share(SAME)

    @property
    def share_one_float32(self) -> float:
        """Share of the classes whose similarity, in float32, is 1 or more: what rounding leaves of ``share_same``.

        It depends on weights and device, but comes close to Table IV's first column (.45, .30, .19, .10, .06), which
        :attr:`share_same` cannot: equal prompts alone make up .70, .59, .31, .15 and .10 of the classes.
        """
        return (self.similarity_float32 >= 1).double().mean().item()


def resolve_vocabulary(name: str) -> tuple[str, ...]:
    """Return the class names of a registered data set, a vocabulary of the package, or a ``.json`` or ``.txt`` file.

    Raises:
        ValueError, FileNotFoundError: it is none of these, or a file that holds anything but class names.
    """
    if name in vocabulary_names() or Path(name).suffix.lower() in (".json", ".txt"):
        return load_vocabulary(name)
    try:
        return get_dataset(name).vocabulary
    except DatasetError as error:
        raise ValueError(
            f"{name!r} is neither a data set ({', '.join(dataset_names())}) nor a vocabulary "
            f"({', '.join(vocabulary_names())}) nor a .json or .txt file of class names"
        ) from error


def build_embedder(cfg: Config) -> Embedder:
    """Build what embeds T class names to (T, D) float32 unit vectors.

    With ``MODEL.WEIGHTS`` this is the whole network's (fine-tuned) text tower, else that of the CLIP of
    ``MODEL.CLIP.NAME`` and ``PRETRAINED``, which may be any of open_clip's.

    Raises:
        ConfigError, CLIPConfigError: the network or CLIP cannot be built.
    """
    if cfg.MODEL.WEIGHTS:
        return build_model(cfg).embed_vocabulary
    settings = cfg.MODEL.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.SEED)
        clip = build_clip(settings.NAME)
    load_clip_weights(clip, settings.NAME, settings.PRETRAINED)
    clip.visual = None
    clip.to(resolve_device(cfg.MODEL.DEVICE)).eval()
    encoder = build_vocabulary_encoder(cfg, clip)

    @torch.no_grad()
    def embed(vocabulary: Sequence[str]) -> Tensor:
        return encode_in_batches(clip, encoder.tokenize(vocabulary))

    return embed


def nearest_classes(embed: Embedder, vocabularies: Sequence[str], training: str) -> list[NearestClasses]:
    """Find the nearest training class of every class; :func:`resolve_vocabulary` says how vocabularies are named."""
    names = {name: resolve_vocabulary(name) for name in (training, *vocabularies)}
    train = embed(names[training]).cpu()
    results = []
    for vocabulary in vocabularies:
        text = embed(names[vocabulary]).cpu()
        # in float64, as unit vectors of float32 have lengths of 1 ± 1e-7 only
        best = (F.normalize(text.double(), dim=1) @ F.normalize(train.double(), dim=1).T).max(dim=1)
        nearest = tuple(names[training][index] for index in best.indices)
        float32 = (text @ train.T).max(dim=1).values
        results.append(NearestClasses(vocabulary, names[vocabulary], nearest, best.values, float32))
    return results


def similarity_table(results: Sequence[NearestClasses], thresholds: Sequence[float] = DEFAULT_THRESHOLDS) -> str:
    """Lay the shares of several vocabularies out as aligned text that is Markdown, too, with the paper's beside."""
    rows = [
        [r.vocabulary, len(r.names), r.share_same, r.share_one_float32, *map(r.share, thresholds), _paper(r.names)]
        for r in results
    ]
    columns = ["vocabulary", "classes", "same", "= 1 in float32", *(f"≥ {t:g}" for t in thresholds), "paper"]
    return text_table(columns, rows)


def save_similarities(results: Sequence[NearestClasses], json_path: str | Path, csv_path: str | Path) -> None:
    """Write vocabulary, class, nearest training class and similarity of all classes, as JSON and as CSV."""
    keys = ("vocabulary", "class", "nearest", "similarity")
    rows = [
        (result.vocabulary, name, nearest, round(similarity, 6))
        for result in results
        for name, nearest, similarity in zip(result.names, result.nearest, result.similarity.tolist(), strict=True)
    ]
    write_json(json_path, [dict(zip(keys, row, strict=True)) for row in rows], ensure_ascii=False)
    write_csv(csv_path, keys, rows)


def draw_similarities(results: Sequence[NearestClasses], thresholds: Sequence[float]) -> Figure:
    """Draw, for each vocabulary, the share of classes over the least similarity to their nearest training class."""
    figure, (panel,) = panel_grid(1, (7, 4.5))
    for result in results:
        similarity = np.sort(result.similarity.numpy())[::-1]
        share = np.arange(1, len(similarity) + 1) / len(similarity)
        # from the right edge: at x, the share of classes with a similarity of at least x
        panel.step([1, *similarity], [0, *share], where="post", label=f"{result.vocabulary} ({len(result.names)})")
    for threshold in thresholds:
        panel.axvline(threshold, color="grey", linestyle=":", linewidth=1)
    panel.invert_xaxis()
    panel.set_xlabel("cosine similarity to the nearest training class, at least")
    panel.set_ylabel("share of the classes")
    panel.legend(frameon=False)
    finish_shares(panel)
    return figure


def _paper(names: tuple[str, ...]) -> str:
    """Return Table IV's three shares of a vocabulary, recognised by its classes, or "-"."""
    return next(
        (" ".join(f"{s:.2f}" for s in shares) for name, shares in PAPER.items() if load_vocabulary(name) == names), "-"
    )
