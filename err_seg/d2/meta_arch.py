"""ERR-Seg as a meta-architecture of detectron2."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    build_backbone,
    build_sem_seg_head,
)
from fvcore.common.config import CfgNode
from torch import Tensor, nn

from err_seg.config import Config, ConfigError
from err_seg.d2.catalog import spec_of
from err_seg.d2.config import opened
from err_seg.d2.parts import CLIPBackbone, ERRSegHead
from err_seg.d2.sem_seg import CompactSemSeg
from err_seg.data import Batch, DatasetSpec
from err_seg.engine.step import build_loss_terms, mean_pixels, training_loss, vocabulary_input
from err_seg.evaluation.predictors import benchmark_num_kept
from err_seg.evaluation.tta import segment_images
from err_seg.models.build import build_network
from err_seg.models.checkpoint import fitting_state
from err_seg.models.checkpoint_names import DETECTRON2_PREFIX
from err_seg.prediction import model as prediction
from err_seg.text.prompts import check_vocabulary
from err_seg.utils.device import autocast, resolve_precision

EXPECTED: dict[str, type[nn.Module]] = {"BACKBONE": CLIPBackbone, "SEM_SEG_HEAD": ERRSegHead}
"""The classes that ``MODEL.<key>.NAME`` may name, or that derive from them."""


@META_ARCH_REGISTRY.register()
class ERRSeg(nn.Module):
    """ERR-Seg with detectron2's inputs and outputs.

    It loads state dictionaries of its own, of the plain engine's network and of the released checkpoints, and only
    whole ones: detectron2's checkpointer would do no more than warn of weights that are missing. (To load a part, use
    ``model.network.load_state_dict(..., strict=False)``.)

    Args:
        network: the plain engine's network.
        own: the plain engine's configuration: how losses are computed and images evaluated.
        train_dataset, test_dataset: whose vocabulary counts for inputs that do not name theirs.

    In evaluation mode, ``model.network.predict("photo.jpg", ["cat", "sofa"])`` labels images; ``model.latest`` is the
    last training batch.
    """

    @configurable
    def __init__(
        self, *, network: prediction.ERRSeg, own: Config, train_dataset: DatasetSpec, test_dataset: DatasetSpec
    ):
        super().__init__()
        self.network, self.own, self.loss_terms = network, own, build_loss_terms(own)
        self.train_dataset, self.test_dataset = train_dataset, test_dataset
        self.register_load_state_dict_pre_hook(_fit_names)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Translate the configuration into the constructor's arguments; ``cfg.SEED`` decides what is random."""
        own = opened(cfg)
        for key, registry in (("BACKBONE", BACKBONE_REGISTRY), ("SEM_SEG_HEAD", SEM_SEG_HEADS_REGISTRY)):
            if (name := cfg.MODEL[key].NAME) not in registry:
                raise ConfigError(f"MODEL.{key}.NAME must be {EXPECTED[key].__name__} with ERRSeg; there is no {name}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(own.SEED)
            backbone = build_backbone(cfg)
            head = build_sem_seg_head(cfg, backbone.output_shape())
        for key, part in (("BACKBONE", backbone), ("SEM_SEG_HEAD", head)):
            if not isinstance(part, EXPECTED[key]):
                found = type(part).__name__
                raise ConfigError(f"MODEL.{key}.NAME must be {EXPECTED[key].__name__} with ERRSeg, not {found}")
        whole = spec_of(own.DATASETS.TRAIN[0])
        return {
            "network": build_network(own, backbone.encoder, head.head),
            "own": own,
            "train_dataset": whole.for_training(),
            "test_dataset": spec_of(own.DATASETS.TEST[0]) if own.DATASETS.TEST else whole,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.network.device

    @property
    def backbone(self) -> CLIPBackbone:
        """CLIP, the network's own."""
        return CLIPBackbone(encoder=self.network.encoder)

    @property
    def sem_seg_head(self) -> ERRSegHead:
        """Everything behind CLIP, the network's own."""
        return ERRSegHead(head=self.network.head)

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses in training, results in evaluation.

        Args:
            batched_inputs: a dictionary per image: ``image`` (3, h, w) RGB in 0..255; in training ``sem_seg`` (h, w),
                integers, and images of unequal sizes are padded below and to the right; in evaluation ``height`` and
                ``width`` of the result, else the image's own. The classes are those of the data set
                ``dataset_name``, else of the model's own; in evaluation ``vocabulary``, a list of names, and
                ``num_kept``, K, go before both.

        Returns:
            In training ``{"loss_sem_seg": scalar}``, and ``loss_<name>`` of each of ``MODEL.LOSS.TERMS``. In evaluation
            a dictionary per image: ``sem_seg``, a (T, H, W) tensor of probabilities
            (:class:`err_seg.d2.CompactSemSeg`), and ``segmentation``, the :class:`err_seg.Segmentation` behind it.
        """
        return self.losses(batched_inputs) if self.training else self.segment(batched_inputs)

    def losses(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Do :meth:`forward` in training."""
        names = {x.get("dataset_name", self.train_dataset.name) for x in batched_inputs}
        if len(names) > 1:
            raise ValueError(f"a batch must be of one data set, found {', '.join(sorted(names))}")
        spec = spec_of(names.pop()).for_training()
        labels = pad([x["sem_seg"][None] for x in batched_inputs], [spec.ignore_label])[:, 0]
        mean = self.network.pixel_mean.flatten().tolist()  # 0 once it is normalised
        files = [x.get("file_name", "without a name") for x in batched_inputs]
        self.latest = Batch(pad([x["image"] for x in batched_inputs], mean), labels, files)
        num_pixels = mean_pixels([labels], self.network, len(spec.vocabulary), self.own)
        is_bf16 = resolve_precision(self.own.SOLVER.PRECISION, self.device).name == "bf16"  # fp16 is the trainer's
        with autocast(self.device, torch.bfloat16) if is_bf16 else contextlib.nullcontext():
            text = vocabulary_input(self.network, spec.vocabulary)
            losses = training_loss(
                *(self.network, self.network, self.latest, text, spec, self.own, num_pixels), terms=self.loss_terms
            )
        return {f"loss_{name}": loss for name, loss in losses.items()}

    def segment(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do :meth:`forward` in evaluation."""
        results = []
        with self.network.evaluating():
            for (vocabulary, num_kept, num_foreground), group in itertools.groupby(batched_inputs, self._question):
                inputs = list(group)
                images = [x["image"] for x in inputs]
                sizes = [(x.get("height", x["image"].shape[1]), x.get("width", x["image"].shape[2])) for x in inputs]
                text = self.network.embed_vocabulary(vocabulary)
                results += [
                    {"sem_seg": CompactSemSeg(found.checked(), num_foreground), "segmentation": found}
                    for found in segment_images(self.own, self.network, images, (text, num_kept, vocabulary, sizes))
                ]
        return results

    def _question(self, inputs: Mapping[str, Any]) -> tuple[tuple[str, ...], int | None, int | None]:
        """Return what is asked of an image: the vocabulary, K (``None``: the model's own), and ``num_foreground``."""
        if "vocabulary" in inputs:
            return check_vocabulary(inputs["vocabulary"]), inputs.get("num_kept"), None
        spec = spec_of(inputs["dataset_name"]) if "dataset_name" in inputs else self.test_dataset
        return spec.vocabulary, inputs.get("num_kept", benchmark_num_kept(self.own, spec)), spec.num_foreground


def pad(images: list[Tensor], values: Sequence[float]) -> Tensor:
    """Stack (C, h, w) tensors to (B, C, H, W), those smaller than the largest with C values below and to the right."""
    if len({image.shape for image in images}) == 1:
        return torch.stack(images)
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    canvas = torch.tensor(values, device=images[0].device).view(-1, 1, 1).repeat(len(images), 1, height, width)
    for row, image in zip(canvas, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return canvas


def _fit_names(model: ERRSeg, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a state dictionary of own, plain or released names those of the modules, or refuse it."""
    own = {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}
    fitting = fitting_state(model.network, own, "the checkpoint")
    state.update({f"{prefix}{DETECTRON2_PREFIX}{name}": tensor for name, tensor in fitting.items()})
