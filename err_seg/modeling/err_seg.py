"""ERR-Seg: the whole network, and its use on pictures and words."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn
from tqdm import tqdm

from err_seg.arguments import ArgumentError, check_count, check_size
from err_seg.data.images import Picture, is_single, picture_to_tensor
from err_seg.device import PRECISIONS, autocast, tf32, upload
from err_seg.modeling.crm import CRM, count_class_pixels, select_classes
from err_seg.modeling.escf import ESCF
from err_seg.modeling.gud import GUD
from err_seg.modeling.hsm import CostEmbedding, CostMaps
from err_seg.modeling.image_encoder import CLIPEncoder, Features
from err_seg.modeling.layers import resize
from err_seg.modeling.segmentation import Segmentation
from err_seg.prompts import PromptStyle, as_texts, check_vocabulary, tokenize_vocabulary
from err_seg.text_embeddings import TextEmbeddings

STRIDE = 16


class Prediction(NamedTuple):
    """The network's output: logits (B, K, S/4, S/4), kept (B, K) class indices, CRM's class_scores (B, T)."""

    logits: Tensor
    kept: Tensor
    class_scores: Tensor


class Head(nn.Module):
    """Everything behind CLIP; the parts are those of :class:`ERRSeg`."""

    cost_maps: CostMaps
    crm: CRM
    cost_embedding: CostEmbedding
    escf: ESCF | None
    gud: GUD
    num_kept: int | None
    num_kept_train: int | None

    def segment(
        self, features: Features, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Do everything behind CLIP: cost maps (HSM), choice of classes (CRM), embedding, ESCF and GUD."""
        num_kept = num_kept or (self.num_kept_train if self.training else self.num_kept)
        costs = [self.cost_maps(pixels, text) for pixels in features.embeddings]  # B×T×H×W, B×T×H/2×W/2
        grid = features.deep[-1].shape[-2:]
        costs[0] = resize(costs[0], grid)  # without HSM the only map is E32's

        class_pixels = None if labels is None else count_class_pixels(labels, len(text))
        kept, class_scores = self.crm(costs[0], num_kept, class_pixels)  # B×K
        costs = [select_classes(cost, kept) for cost in costs]

        x = self.cost_embedding(costs)  # B·K×C×H×W
        if self.escf is not None:
            x = self.escf(x, features.deep, text[kept])
        logits = self.gud(x, features.shallow)  # B·K×1×S/4×S/4
        return Prediction(logits.view(*kept.shape, *logits.shape[-2:]), kept, class_scores)


class ERRSeg(Head):
    """Efficient redundancy reduction for open-vocabulary semantic segmentation.

    Args:
        encoder: CLIP, read densely.
        crm: the choice of classes.
        cost_embedding: cost maps to X.
        escf: the fusion of X; ``None`` is the ablation without ESCF (Table V).
        gud: the decoder.
        num_kept: K in evaluation, and ``num_kept_train`` in training; ``None`` keeps all classes (Table V without CRM).
        size: S in evaluation, a multiple of 32.
        pixel_mean, pixel_std: statistics of the input, RGB in 0..255.
        tokenizer: CLIP's tokenizer.
        prompt_style: templates and synonyms used where a call names none.
        text_embeddings: the cache of text embeddings.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"`` (autocast) in :meth:`predict`.

    Any number of threads may predict with one model, while nobody trains it, loads weights into it or moves it. Its
    settings are read once, when a call begins.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    settings: Mapping[str, Any] = MappingProxyType({})
    """What it was built by, for telling results of unlike networks apart; see ``err_seg.build.network_settings``."""

    def __init__(
        self,
        *,
        encoder: CLIPEncoder,
        crm: CRM,
        cost_embedding: CostEmbedding,
        escf: ESCF | None,
        gud: GUD,
        num_kept: int | None,
        num_kept_train: int | None,
        size: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        tokenizer: Callable[..., Tensor],
        prompt_style: PromptStyle,
        text_embeddings: TextEmbeddings,
        precision: str = "fp32",
    ):
        super().__init__()
        self.encoder = encoder
        self.cost_maps = CostMaps()
        self.crm = crm
        self.cost_embedding = cost_embedding
        self.escf = escf
        self.gud = gud
        self.num_kept = num_kept
        self.num_kept_train = num_kept_train
        self.size = size
        self.tokenizer = tokenizer
        self.prompt_style = prompt_style
        self.text_embeddings = text_embeddings
        self.precision = precision
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.pixel_mean.device

    def forward(
        self, images: Tensor, text: Tensor, num_kept: int | None = None, labels: Tensor | None = None
    ) -> Prediction:
        """Segment normalised pictures (paper, Fig. "overall architecture").

        Args:
            images: (B, 3, S, S) float, normalised; see :meth:`preprocess`.
            text: the vocabulary: (T, P, L) int64 tokens, run through the text tower (in training), or (T, D) float
                embeddings (see :meth:`embed_vocabulary`).
            num_kept: K, instead of the model's own.
            labels: (B, H, W) int64, in training: the classes in it are kept before all others.
        """
        text = text if text.is_floating_point() else self.encoder.encode_text(text)
        features = self.encoder(images)
        return self.segment(features, text, num_kept, labels)

    def tokenize(self, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Turn T class names into the tokens (T, P, L) of their prompts, on the CPU."""
        context_length = self.encoder.clip.context_length
        return tokenize_vocabulary(vocabulary, style or self.prompt_style, self.tokenizer, context_length)

    def embed_vocabulary(self, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Embed T class names to (T, D) unit vectors, without gradient; cached until the weights change."""
        return self.text_embeddings(self.encoder, self.tokenize(vocabulary, style))

    def preprocess(self, images: Sequence[Tensor] | Tensor, size: int | None = None) -> Tensor:
        """Normalise pictures and resize each to S×S (bilinear, not antialiased, aspect ratio not kept).

        Args:
            images: B pictures (3, h, w), RGB in 0..255, of any sizes and any numeric type, or one tensor (B, 3, h, w).
            size: S instead of the model's own.

        Returns:
            (B, 3, S, S) float32 on the model's device.
        """
        size = size or self.size
        if isinstance(images, Tensor):
            normalised = (upload(images, self.device) - self.pixel_mean).div_(self.pixel_std).float()
            return resize(normalised, (size, size))
        if len(images) > 1 and len({(image.shape, image.dtype, image.device) for image in images}) == 1:
            return self.preprocess(torch.stack(list(images)), size)  # in one go
        return torch.cat([self.preprocess(image.unsqueeze(0), size) for image in images])

    @overload
    def predict(self, images: Picture, vocabulary: Iterable[str], **options: Any) -> Segmentation: ...

    @overload
    def predict(self, images: Iterable[Any], vocabulary: Iterable[str], **options: Any) -> list[Segmentation]: ...

    @torch.no_grad()  # type: ignore[misc] # the options are those below
    def predict(
        self,
        images: Any,
        vocabulary: Iterable[str],
        *,
        num_kept: int | None = None,
        templates: Iterable[str] | None = None,
        synonyms: str | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int = 1,
        progress: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Label every pixel of a picture, or of several, with words.

        Args:
            images: a picture, which is a path, a PIL image, or an H×W×3 (tensors also 3×H×W) uint8 RGB array; or a
                list, tuple, generator, ... of pictures, of any sizes. Generators are read a batch at a time.
            vocabulary: class names; "a, b" are synonyms of one class.
            num_kept: K, instead of the model's own; how many classes of the vocabulary a picture may show.
            templates: prompts with ``{}`` for the name, instead of the model's own.
            synonyms: ``"first"`` or ``"average"``, instead of the model's own.
            size: (H, W) of the results, instead of each picture's own.
            batch_size: pictures that go through the network together.
            progress: show a progress bar.

        Returns:
            One picture's :class:`Segmentation`; of several, however many, a list of them, in order.

        Raises:
            ArgumentError: another argument that cannot be used, or a model in training mode.
            VocabularyError: a vocabulary, templates or synonyms that cannot be used, such as an empty, duplicate or
                over-long name.
            PictureError: something that is no picture.
            ImageReadError: a file or PIL image that cannot be read; names it.
        """
        pictures = [images] if is_single(images) else images
        names, style = check_vocabulary(vocabulary), self.prompt_style
        if templates is not None:
            style = replace(style, templates=as_texts("templates", templates))
        if synonyms is not None:
            style = replace(style, synonyms=synonyms)
        kept = (self.num_kept or len(names)) if num_kept is None else check_count("num_kept", num_kept)
        shape = None if size is None else check_size(size)
        count, side = check_count("batch_size", batch_size), self.size
        results: list[Segmentation] = []
        total = len(pictures) if isinstance(pictures, Sized) else None
        with self.evaluating(), tqdm(total=total, desc="pictures", disable=not progress) as bar:
            text = self.embed_vocabulary(names, style)
            numbered = enumerate(pictures)
            while batch := list(itertools.islice(numbered, count)):
                tensors = [picture_to_tensor(picture, f"picture {number}") for number, picture in batch]
                sizes = [shape or (tensor.shape[1], tensor.shape[2]) for tensor in tensors]
                results += self.compact(self(self.preprocess(tensors, side), text, kept), names, sizes)
                bar.update(len(batch))
        return results[0] if pictures is not images else results

    @staticmethod
    def compact(
        prediction: Prediction, vocabulary: tuple[str, ...], sizes: Sequence[tuple[int, int]]
    ) -> list[Segmentation]:
        """Split a prediction into one compact result a picture, each at its size (H, W)."""
        probabilities = prediction.logits.float().sigmoid()
        rows = zip(probabilities, prediction.kept, sizes, prediction.class_scores, strict=True)
        return [Segmentation(maps, kept, vocabulary, size, scores) for maps, kept, size, scores in rows]

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Compute at the model's precision, without TF32, for the time of a ``with`` block in this thread.

        The mode is left alone, since other threads may be using the model.

        Raises:
            ArgumentError: the model, or a part of it, is in training mode.
        """
        if any(module.training for module in self.modules()):
            raise ArgumentError(
                "the model is in training mode, in which dropout makes results random; call model.eval() first, and "
                "model.train() before training goes on"
            )
        with tf32(False), autocast(self.device, PRECISIONS[self.precision]):
            yield
