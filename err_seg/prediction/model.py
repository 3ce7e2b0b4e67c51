"""The model that people load: the network with its vocabulary, pixel statistics and prediction."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, overload

import torch
from torch import Tensor

from err_seg.config.habits import explaining_habits
from err_seg.data.arrays import ArrayFormat
from err_seg.data.image_sources import ImageSource, are_read, is_single, open_images
from err_seg.modeling.encoder import CLIPEncoder
from err_seg.modeling.err_seg import ERRSegNetwork
from err_seg.modeling.head import Head, Prediction
from err_seg.modeling.hsm import unit_pixels
from err_seg.modeling.layers import resize
from err_seg.prediction.calibration import Calibration
from err_seg.prediction.contrast import AUTO, COMMON, FEW_NAMES, NONE, Contrast, competing, distinct
from err_seg.prediction.dense_features import DenseFeatures
from err_seg.prediction.examples import Exemplar, read_examples, with_rows
from err_seg.prediction.segmentation import Segmentation, split_results
from err_seg.prediction.stream import batches, stream_results
from err_seg.prediction.tiles import check_tile, plan_windows, segment_windows
from err_seg.text.encoder import VocabularyEncoder
from err_seg.text.prompts import PromptStyle, Vocabulary, VocabularyError, carrying, check_vocabulary
from err_seg.text.vocabularies import VocabularySource, expand_names, read_vocabulary
from err_seg.utils.device import PRECISIONS, autocast, check_finite, tf32, upload
from err_seg.utils.fingerprint import WeightsSource, tensor_versions, weights_digest
from err_seg.utils.messages import listed
from err_seg.utils.progress import ProgressBar
from err_seg.utils.validation import ArgumentError, check_count, check_flag, check_size


class ERRSeg(ERRSegNetwork):
    """The ERR-Seg network with class names, pixel statistics and prediction on images of any kind.

    Args:
        encoder: CLIP, read densely.
        head: everything after CLIP.
        vocabulary_encoder: embeds class names.
        size: S in evaluation, a multiple of 32.
        pixel_mean, pixel_std: statistics of the input, RGB in 0..255.
        precision: ``"fp32"``, ``"fp16"`` or ``"bf16"`` (autocast) in :meth:`predict`.

    Any number of threads may predict with one model, as long as none trains it, loads weights into it or moves it. A
    call reads the model's settings once, when it begins.
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    settings: Mapping[str, Any] = MappingProxyType({})
    """What it was built from (:func:`err_seg.config.network_settings`), to tell results of networks apart."""
    source: WeightsSource | None = None
    """Where its weights were read from; ``None`` if from no file, or if they were trained since."""
    calibration: Calibration | None = None
    """What the confidence of results is computed with; ``None`` if the weights hold none, or were trained since."""
    few_names: int = FEW_NAMES
    """Vocabularies of fewer names compete with the common ones unless :meth:`predict` is given a contrast."""
    # from :mod:`err_seg.models`, which is above this room
    from_pretrained: ClassVar[Callable[..., "ERRSeg"]]
    save_pretrained: Callable[..., None]
    push_to_hub: Callable[..., str]

    def __init__(
        self,
        *,
        encoder: CLIPEncoder,
        head: Head,
        vocabulary_encoder: VocabularyEncoder,
        size: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        precision: str = "fp32",
    ):
        super().__init__(encoder=encoder, head=head)
        self.vocabulary_encoder = vocabulary_encoder
        self.size = size
        self.precision = precision
        self._digest: tuple[Any, str] = (None, "")
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(3, 1, 1), persistent=False)
        self.register_load_state_dict_post_hook(_forget_origin)

    def forward(self, *args: Any, **options: Any) -> Any:
        """Run the network on tensors of images and text; with images and words it is :meth:`predict`."""
        text = args[1] if len(args) > 1 else options.get("text")
        return super().forward(*args, **options) if isinstance(text, Tensor) else self.predict(*args, **options)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return self.pixel_mean.device

    @property
    def num_kept(self) -> int | None:
        """K in evaluation; ``None`` keeps all classes."""
        return self.head.crm.num_kept

    def train(self, mode: bool = True) -> "ERRSeg":
        """Switch to training mode, in which weights may change, or to evaluation mode."""
        if mode:
            self.source, self.calibration, self._digest = None, None, ((), "")
        return super().train(mode)

    @property
    def digest(self) -> str:
        """What identifies the weights (:func:`~err_seg.utils.fingerprint.weights_digest`); computed if they changed."""
        state = tensor_versions(self)
        if self._digest[0] != state:
            self._digest = state, weights_digest(self)
        return self._digest[1]

    def embed_vocabulary(self, vocabulary: Sequence[str], style: PromptStyle | None = None) -> Tensor:
        """Embed T class names to (T, D) unit vectors, without gradient; see :class:`VocabularyEncoder`.

        Classes by example have their rows, which depend on no style; the others' are those of a vocabulary without
        them, bit for bit.

        Raises:
            VocabularyError: see :meth:`VocabularyEncoder.tokenize`; also a row that belongs to other weights.
        """
        names = check_vocabulary(vocabulary)
        shown = [place for place, name in enumerate(names) if name in names.rows]
        if not shown:
            return self.vocabulary_encoder.embed(self.encoder.clip, names, style)
        rows, fitting = names.rows, (self.digest, self.encoder.embedding_dim)
        if wrong := [
            name for name in names if name in rows and (rows[name].weights, len(rows[name].vector)) != fitting
        ]:
            raise VocabularyError(
                f"the examples of {listed(map(repr, wrong))} were read by a model with other weights; use that model, "
                "or make the vocabulary again with this one and the images"
            )
        text = torch.empty(len(names), fitting[1], device=self.device)
        text[shown] = torch.stack([rows[names[place]].vector for place in shown]).to(self.device)
        if words := Vocabulary(name for name in names if name not in rows):
            places = [place for place, name in enumerate(names) if name not in rows]
            text[places] = self.vocabulary_encoder.embed(self.encoder.clip, words, style)
        return text

    def vocabulary_with_examples(
        self,
        vocabulary: VocabularySource,
        examples: Mapping[str, Sequence[Exemplar]] | str | os.PathLike[str],
        *,
        use_names: bool = True,
    ) -> Vocabulary:
        """Return a vocabulary in which classes stand for what examples show, for whatever takes a vocabulary.

        Args:
            vocabulary: class names, or what stands for them.
            examples: of some classes, one or more; other classes' names are added to the vocabulary. Or a folder with
                a folder for each class, see :func:`~err_seg.prediction.examples.read_examples`.
            use_names: let the names of these classes count beside the examples, by a weight that is chosen by leaving
                images out. ``False``: they are only labels, such as "part 17", and may be any text.

        Raises:
            VocabularyError: names that cannot be used.
            ArgumentError, ImageError, ImageReadError: examples that cannot be used; names them.
        """
        check_flag("use_names", use_names)
        names = expand_names(vocabulary)
        found = examples if isinstance(examples, Mapping) else read_examples(examples)
        if empty := [name for name, exemplars in found.items() if not exemplars]:
            raise ArgumentError(f"{listed(map(repr, empty))}: no examples; give at least one of each class by example")
        names = check_vocabulary(carrying((*names, *(name for name in found if name not in names)), names))
        with torch.inference_mode(False), torch.no_grad(), self.evaluating("fp32"):
            return with_rows(
                names,
                found,
                use_names=use_names,
                encode=lambda image: self.encoder(self.preprocess([image])),
                embed=self.embed_vocabulary,
                common=self.common_names()[1],
                weights=self.digest,
            )

    def common_names(self, style: PromptStyle | None = None) -> tuple[Vocabulary, Tensor]:
        """Return T names that most images can be described with, near-synonyms merged, and their (T, D) unit vectors.

        They are those of all vocabularies of the package; of a model of the miniature world, its own.
        """
        names = self.vocabulary_encoder.common_names
        text = self.embed_vocabulary(names, style)
        places = distinct(text)
        return Vocabulary(names[place] for place in places), text[places]

    def embed_with_contrast(
        self, vocabulary: Sequence[str], contrast: VocabularySource | None = None, style: PromptStyle | None = None
    ) -> tuple[Tensor, Contrast]:
        """Embed T class names, and the C that compete with them, to (T + C, D) unit vectors, without gradient.

        ``contrast`` is described in :meth:`predict_stream`.

        Raises:
            VocabularyError: the vocabulary or the contrast cannot be used.
        """
        if contrast is None:
            contrast = COMMON if len(vocabulary) < self.few_names and self.num_kept else NONE
        text = self.embed_vocabulary(vocabulary, style)
        if isinstance(contrast, str) and contrast == NONE:
            return text, Contrast()
        if isinstance(contrast, str) and contrast == COMMON:
            names, rows = self.common_names(style)
        else:
            names = read_vocabulary(contrast)
            rows = self.embed_vocabulary(names, style)
        found, rows = competing(names, rows, vocabulary, text)
        return torch.cat([text, rows]), found

    def preprocess(self, images: Sequence[Tensor] | Tensor, size: int | None = None) -> Tensor:
        """Normalise images and resize each to S×S (bilinear, not antialiased, aspect ratio not kept).

        Args:
            images: B images (3, h, w), RGB in 0..255, of any sizes and any numeric type, or one tensor (B, 3, h, w).
            size: S instead of the model's own.

        Returns:
            (B, 3, S, S) float32 on the model's device.
        """
        size = size or self.size
        if isinstance(images, Tensor):
            normalised = (upload(images, self.device) - self.pixel_mean).div_(self.pixel_std).float()
            return resize(normalised, (size, size))
        if len(images) > 1 and len({(image.shape, image.dtype, image.device) for image in images}) == 1:
            return self.preprocess(torch.stack(list(images)), size)  # all at once
        return torch.cat([self.preprocess(image.unsqueeze(0), size) for image in images])

    @overload
    def predict(self, images: ImageSource, vocabulary: VocabularySource, **options: Any) -> Segmentation: ...

    @overload
    def predict(self, images: Iterable[Any], vocabulary: VocabularySource, **options: Any) -> list[Segmentation]: ...

    @explaining_habits
    def predict(
        self, images: Any, vocabulary: VocabularySource, *, progress: bool = False, **options: Any
    ) -> Segmentation | list[Segmentation]:
        """Label every pixel of an image, or of several, with words.

        Args:
            images: an image, or a list, tuple, generator, ... of images, of any sizes; see :meth:`predict_stream`.
            vocabulary: class names, or the name of a vocabulary, or a file; see :meth:`predict_stream`.
            progress: show a progress bar.
            options: ``contrast``, ``num_kept``, ``templates``, ``synonyms``, ``size``, ``tile``, ``refine``,
                ``batch_size``, ``value_range`` and ``channel_order``, see :meth:`predict_stream`.

        Returns:
            For one image its :class:`Segmentation`; for several, however many, a list of them, in order.

        Raises:
            ArgumentError, VocabularyError, ImageError, ImageReadError: see :meth:`predict_stream`.
        """
        check_flag("progress", progress)
        results = self.predict_stream(images, vocabulary, **options)
        total = 1 if is_single(images) else len(images) if isinstance(images, Sized) else None
        with closing(results), ProgressBar(results, total=total, desc="images", disable=not progress) as shown:
            found = list(shown)
        return found[0] if is_single(images) else found

    @explaining_habits
    def predict_stream(
        self,
        images: Any,
        vocabulary: VocabularySource,
        *,
        contrast: VocabularySource | None = None,
        num_kept: int | None = None,
        templates: Iterable[str] | None = None,
        synonyms: str | None = None,
        size: tuple[int, int] | None = None,
        tile: int | str | None = None,
        refine: bool = False,
        batch_size: int = 1,
        value_range: tuple[float, float] | None = None,
        channel_order: str = "rgb",
    ) -> Generator[Segmentation, None, None]:
        """Label images one after the other; what is held in memory does not grow with their number.

        Files are fetched and decoded in threads, a few images ahead. All else is read as it is asked for, so that a
        generator may close or overwrite what it has yielded.

        Args:
            images: a list, generator, ... of images, of any sizes, endless if need be; or one image. An image is

                * a path, or an ``https://`` address (up to 100 MB);
                * the bytes of a file, or a file object opened in binary mode;
                * a PIL image;
                * an array or tensor of H×W grey, H×W×3 colours or H×W×4 colours with alpha; tensors also C×H×W.

                All are made upright and eight bit, and composited on white where they are transparent.
            vocabulary: class names, of which "a, b" are synonyms of one class; names of vocabularies (the keys of
                :func:`err_seg.vocabularies`) and paths of files of names may be among them or stand alone, see
                :func:`err_seg.text.vocabularies.expand_names`. "auto" is the common names, see ``contrast``.
            contrast: names that compete with the vocabulary, and whose pixels are none of its classes: "none",
                "common" (what most images can be described with), or whatever a vocabulary may be. Names that mean the
                same as a class are left out. ``None``: the common ones, if there are fewer than :attr:`few_names`
                classes and the model has a K.
            num_kept: K, instead of the model's own: how many of all names an image's result may contain.
            templates: prompts with ``{}`` for the name, instead of the model's own.
            synonyms: ``"first"`` or ``"average"``, instead of the model's own.
            size: (H, W) of the results, instead of each image's own.
            tile: label larger images in overlapping windows, each of so many pixels a side; "auto" is S, where nothing
                is reduced. All windows keep the same K classes. ``None``: any image is seen as a whole, S×S.
            refine: let the borders follow the edges of the image, by a guided filter.
            batch_size: images, or windows of an image, that go through the network together.
            value_range: the values of all arrays and tensors that are black and white. ``None``: 0 and 255 of uint8, 0
                and 65535 of uint16; floating-point values have no range unless it is given.
            channel_order: ``"bgr"`` if the channels of arrays and tensors are in OpenCV's order.

        Returns:
            A generator of one :class:`Segmentation` for each image, in order.

        Raises:
            ArgumentError: any other argument cannot be used, or the model is in training mode. This and what is wrong
                with the vocabulary is said at once, before an image is asked for.
            VocabularyError: the vocabulary, templates or synonyms cannot be used, for example because of an empty,
                duplicate or over-long name.
            ImageError: an input is not an image; says its number, from 0. Raised after all results before it.
            ImageReadError: a file or PIL image cannot be read, an address not fetched; names it and its number.
            NonFiniteError: the network computed NaN or infinity.
            TooLargeError: ``tile`` is so small that the maps would take most of the memory.
        """
        style = self.vocabulary_encoder.style.changed(templates, synonyms)
        num_kept = self.num_kept if num_kept is None else check_count("num_kept", num_kept)
        result_size = None if size is None else check_size(size)
        covered = check_tile(tile, self.size)
        refine, batch_size = check_flag("refine", refine), check_count("batch_size", batch_size)
        readers = open_images(images, ArrayFormat(value_range, channel_order))
        side, precision = self.size, self.precision
        with torch.no_grad(), self.evaluating(precision):
            is_auto = isinstance(vocabulary, str) and vocabulary == AUTO
            names = self.common_names(style)[0] if is_auto else read_vocabulary(vocabulary)
            text, competitors = self.embed_with_contrast(names, contrast, style)
        kept = num_kept or len(text)

        def segment(batch: list[Tensor]) -> list[Segmentation]:
            sizes = [result_size or (image.shape[1], image.shape[2]) for image in batch]
            with torch.no_grad(), self._computing(precision):
                found = self.segment(batch, text, kept, names, sizes, side, covered, batch_size)
            return [replace(result, contrast=competitors) for result in found]

        return stream_results(readers, segment, 1 if covered else batch_size, refine=refine, ahead=not are_read(images))

    @overload
    def features(self, images: ImageSource, **options: Any) -> DenseFeatures: ...

    @overload
    def features(self, images: Iterable[Any], **options: Any) -> list[DenseFeatures]: ...

    @explaining_habits
    def features(self, images: Any, *, batch_size: int = 1, **arrays: Any) -> DenseFeatures | list[DenseFeatures]:
        """Embed the cells of an image, or of several, in the space of the text embeddings; no words are needed.

        One image gives its :class:`DenseFeatures`, several a list of them, in order. The arguments, ``value_range``
        and ``channel_order`` among them, and the errors are those of :meth:`predict_stream`.
        """
        batch_size = check_count("batch_size", batch_size)
        readers = open_images(images, ArrayFormat(**arrays))
        found: list[DenseFeatures] = []
        for batch in batches((read() for read in readers), batch_size):
            with torch.no_grad(), self.evaluating():
                maps = unit_pixels(self.encoder(self.preprocess(batch)).embeddings[0])
            sizes = [(image.shape[1], image.shape[2]) for image in batch]
            found += map(DenseFeatures, check_finite(maps, "the features hold"), sizes)
        return found[0] if is_single(images) else found

    def segment(
        self,
        images: Sequence[Tensor],
        text: Tensor,
        num_kept: int | None,
        vocabulary: tuple[str, ...],
        sizes: Sequence[tuple[int, int]],
        side: int,
        tile: int | None = None,
        batch_size: int = 1,
    ) -> list[Segmentation]:
        """Segment images together, or each by itself in windows.

        Args:
            images: B images (3, h, w), RGB in 0..255.
            text, num_kept: embeddings of the vocabulary (T, D), and K; ``None``: the model's own.
            vocabulary, sizes: the T class names, and (H, W) of each result.
            side, tile, batch_size: S, pixels that a side of a window covers, and windows that go through together.

        Raises:
            TooLargeError: see :func:`~err_seg.prediction.tiles.segment_windows`.
        """
        if tile is None:
            return self.compact(self(self.preprocess(images, side), text, num_kept), vocabulary, sizes)
        results: list[Segmentation] = []
        for image, size in zip(images, sizes, strict=True):
            windows = plan_windows(image.shape[1:], tile, side)
            if windows.is_whole:
                results += self.segment([image], text, num_kept, vocabulary, [size], side)
            else:
                blended = segment_windows(
                    lambda views: self.encoder(self.preprocess(views, side)),
                    *(self.head, image, text, num_kept, windows, batch_size),
                )
                results += split_results(*blended, vocabulary, [size], is_adaptive=False, calibration=self.calibration)
        return results

    def compact(
        self, prediction: Prediction, vocabulary: tuple[str, ...], sizes: Sequence[tuple[int, int]]
    ) -> list[Segmentation]:
        """Split a prediction into one compact result per image, each at its own size (H, W)."""
        probabilities, options = prediction.logits.float().sigmoid(), (self.head.crm.is_adaptive, self.calibration)
        return split_results(probabilities, prediction.kept, prediction.class_scores, vocabulary, sizes, *options)

    @contextlib.contextmanager
    def evaluating(self, precision: str | None = None) -> Iterator[None]:
        """During a ``with`` block, compute in this thread at a precision, by default the model's, without TF32.

        The model's mode is not changed, since other threads may be using the model.

        Raises:
            ArgumentError: the model or a part of it is in training mode, or its weights are not float32.
        """
        if self.pixel_mean.dtype != torch.float32:
            raise ArgumentError(
                f"the weights must be float32, not {self.pixel_mean.dtype}; load the model anew. For lower precision: "
                'err_seg.load(..., precision="fp16") or "bf16"'
            )
        if any(module.training for module in self.modules()):
            raise ArgumentError(
                "the model is in training mode, in which dropout makes results random; call model.eval() first, and "
                "model.train() before training goes on"
            )
        with self._computing(precision or self.precision):
            yield

    @contextlib.contextmanager
    def _computing(self, precision: str) -> Iterator[None]:
        with tf32(False), autocast(self.device, PRECISIONS[precision]):
            yield


def _forget_origin(model: ERRSeg, _: Any) -> None:
    """Forget where weights were read from, and how they are calibrated, once others are loaded."""
    model.source = model.calibration = None
