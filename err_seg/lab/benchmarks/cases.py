"""The cases that are compared, and the work that each of them is."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from err_seg.config import Config
from err_seg.config.constants import BY_NEED, COMPILE_MODES
from err_seg.data import Batch, DatasetSpec
from err_seg.data.catalog import find_dataset
from err_seg.engine import build_optimizer
from err_seg.engine.parallel import activation_checkpointing
from err_seg.engine.step import training_loss
from err_seg.evaluation.benchmarks import new_counts
from err_seg.evaluation.predictors import as_labels, load_function
from err_seg.lab.benchmarks.reference import all_positions, dense_labels, dense_loss, reference, sharing_copy
from err_seg.modeling.clip import embed_prompts
from err_seg.modeling.crm import CRM, NOT_KEPT
from err_seg.models.build import default_num_kept
from err_seg.prediction.model import ERRSeg
from err_seg.utils.device import PRECISIONS, autocast, tf32

CLASSES_AN_IMAGE = 8


@dataclass(frozen=True)
class Case:
    """One row of a comparison.

    Attributes:
        kind: of :data:`err_seg.config.constants.BENCHMARKED`.
        config: the configuration's name.
        num_classes: T.
        num_kept: K; ``BY_NEED``: as many as an image needs, at most the configuration's K; ``None``: all.
        size: S.
        batch_size: images that are computed together.
        image: (H, W) of the images, and of the label maps that come out.
        precision: "fp32", "bf16" or "fp16".
        compiled: how the network is compiled: of :data:`err_seg.config.constants.COMPILE_MODES`, or "" for not at all.
        recomputed: what a training step recomputes, as ``SOLVER.RECOMPUTED`` names it, or "" for nothing.
        is_reference: whether the released code's arithmetic computes it.
        predictor: a function that is timed instead, see :mod:`err_seg.evaluation.predictors`; "" for the network.
    """

    kind: str
    config: str
    num_classes: int
    num_kept: int | str | None
    size: int
    batch_size: int
    image: tuple[int, int]
    precision: str = "fp32"
    compiled: str = ""
    recomputed: str = ""
    is_reference: bool = False
    predictor: str = ""

    @property
    def group(self) -> tuple[Any, ...]:
        """What cases that are compared with each other have in common."""
        return self.config, self.num_classes, self.size, self.batch_size

    def __str__(self) -> str:
        """Name the case within its group."""
        if self.predictor:
            return self.predictor
        kept = "all classes" if self.num_kept is None else f"K = {self.num_kept}"
        words = [
            *["reference"] * self.is_reference,
            *["K by need" if self.num_kept == BY_NEED else kept] * (self.kind != "vocabulary"),
            *[self.precision] * (self.precision != "fp32"),
            *["compiled"] * bool(self.compiled),
            *[self.compiled] * (self.compiled not in ("", COMPILE_MODES[0])),
            *[f"{self.recomputed} recomputed"] * bool(self.recomputed),
        ]
        return ", ".join(words) or "ERR-Seg"


def cases_of(options: argparse.Namespace, name: str, cfg: Config) -> list[Case]:
    """Multiply the command's options out to a configuration's cases, group by group, the reference first in each."""
    is_training = options.kind == "training"
    sizes = options.size or [cfg.INPUT.CROP_SIZE if is_training else cfg.INPUT.SIZE]
    compiled = [""] if options.compile is None else ["", *(options.compile or COMPILE_MODES[:1])]
    recomputed = ["", *options.recompute]
    cases = []
    for classes, size, batch in product(options.num_classes, sizes, options.batch_size):
        kept = options.num_kept or [own_num_kept(cfg, classes, training=is_training)]
        base = Case(options.kind, name, classes, kept[0], size, batch, tuple(options.image or (size, size)))
        if not options.no_reference:
            fixed = base.num_kept if base.num_kept != BY_NEED else own_num_kept(cfg, classes, training=is_training)
            cases.append(replace(base, num_kept=fixed, is_reference=True))
        for own, precision, how, what in product(kept, options.precision, compiled, recomputed):
            cases.append(replace(base, num_kept=own, precision=precision, compiled=how, recomputed=what))
        cases += [replace(base, num_kept=None, predictor=where) for where in options.predictor]
    return cases


def own_num_kept(cfg: Config, num_classes: int, *, training: bool) -> int | None:
    """Return a configuration's K: in evaluation, unless it has one, that of its benchmark with the next larger T.

    ``None`` is all classes: CRM is off.
    """
    if not cfg.MODEL.CRM.ENABLED:
        return None
    if training:
        return cfg.MODEL.CRM.NUM_KEPT_TRAIN
    if cfg.MODEL.CRM.NUM_KEPT:
        return cfg.MODEL.CRM.NUM_KEPT
    specs = [find_dataset(name, cfg.DATASETS.CUSTOM) for name in cfg.DATASETS.TEST]
    known = sorted((len(spec.vocabulary), spec.num_kept) for spec in specs if spec.num_kept)
    larger = [kept for classes, kept in known if classes >= num_classes]
    return larger[0] if larger else known[-1][1] if known else default_num_kept(cfg)


def variant(case: Case, cfg: Config, model: ERRSeg) -> ERRSeg:
    """Copy a network as a case needs it; parameters are shared."""
    network = reference(model) if case.is_reference else sharing_copy(model)
    crm = network.head.crm
    if isinstance(case.num_kept, str):  # BY_NEED
        most = own_num_kept(cfg, case.num_classes, training=crm.training)
        if not crm.is_adaptive:
            key = "MODEL.CRM.MIN_SCORE_TRAIN" if crm.training else "MODEL.CRM.MIN_SCORE"
            raise ValueError(f"--num-kept {BY_NEED}: {key} is 0, so all images keep K classes; set it, to 0.01, say")
    else:
        most = case.num_kept
        crm.min_score = crm.min_score_train = 0.0
    crm.num_kept = crm.num_kept_train = most
    if case.compiled:
        network.compile(mode=case.compiled, dynamic=False)  # as the first shape of any use is
    return network


def make_work(case: Case, cfg: Config, model: ERRSeg) -> Callable[[], float]:
    """Make a case ready: the returned function does it once, on noise, and returns how many classes were kept."""
    if case.predictor:
        return asking(case, cfg)
    network = variant(case, cfg, model.train(case.kind == "training"))
    kinds = {"prediction": predicting, "evaluation": evaluating, "training": training, "vocabulary": embedding}
    return kinds[case.kind](case, cfg, network)


def noise(case: Case, device: torch.device, height: int, width: int) -> Tensor:
    """Return images (B, 3, H, W) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (case.batch_size, 3, height, width), generator=generator).byte().to(device)


def blocks(case: Case, height: int, width: int) -> Tensor:
    """Return label maps (B, H, W) int64 of a few large regions each."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, case.num_classes, (case.batch_size, CLASSES_AN_IMAGE // 2, 2), generator=generator)
    rows = torch.arange(height) * (CLASSES_AN_IMAGE // 2) // height
    columns = torch.arange(width) * 2 // width
    return classes[:, rows][:, :, columns]


def noise_spec(case: Case) -> DatasetSpec:
    """Declare a data set of T classes."""
    names = tuple(f"thing {index}" for index in range(case.num_classes))
    return DatasetSpec("noise", "images", "labels", names, ignore_label=65535)


def prompts(case: Case, cfg: Config, network: ERRSeg) -> Tensor:
    """Tokenize T class names (T, P, L): those of the data set for training, repeated as often as needed."""
    names = find_dataset(cfg.DATASETS.TRAIN[0], cfg.DATASETS.CUSTOM).for_training().vocabulary
    tokens = network.vocabulary_encoder.tokenize(names)
    if case.is_reference:
        tokens = all_positions(tokens, network.vocabulary_encoder.context_length)
    return tokens[torch.arange(case.num_classes) % len(names)].to(network.device)


def predicting(
    case: Case, cfg: Config, network: ERRSeg, use: Callable[[Sequence[Tensor]], object] | None = None
) -> Callable[[], float]:
    """From images to label maps of their size; the vocabulary has been embedded. ``use`` takes the label maps."""
    images = noise(case, network.device, *case.image)
    names, generator = noise_spec(case).vocabulary, torch.Generator().manual_seed(0)
    text = torch.randn(case.num_classes, network.encoder.embedding_dim, generator=generator).to(network.device)

    @torch.no_grad()
    def work() -> float:
        with tf32(False), autocast(network.device, PRECISIONS[case.precision]):
            prediction = network(network.preprocess(list(images), case.size), text)
            if case.is_reference:
                labels = list(dense_labels(prediction.logits, case.image))
                kept = [network.num_kept or case.num_classes]
            else:
                results = network.compact(prediction, names, [case.image] * len(images))
                labels, kept = [result.labels for result in results], [len(result.kept) for result in results]
        if use is not None:
            use(labels)
        return min(fmean(kept), case.num_classes)

    return work


def asking(case: Case, cfg: Config) -> Callable[[], float]:
    """From images to label maps of their size, by a function that may keep what it made of the words.

    The words are those of the first benchmark of the configuration that has T, since a function may not take others.
    """
    _, function = load_function(case.predictor)
    images = [image.permute(1, 2, 0).contiguous().numpy() for image in noise(case, torch.device("cpu"), *case.image)]
    specs = (find_dataset(name, cfg.DATASETS.CUSTOM) for name in cfg.DATASETS.TEST)
    names = list(
        next((spec for spec in specs if len(spec.vocabulary) == case.num_classes), noise_spec(case)).vocabulary
    )

    def work() -> float:
        for image in images:
            as_labels(function(image, names), case.image, len(names))
        return len(names)

    return work


def evaluating(case: Case, cfg: Config, network: ERRSeg) -> Callable[[], float]:
    """From images to counted pixels."""
    counts = new_counts(noise_spec(case), network.device, boundary_iou=cfg.TEST.BOUNDARY_IOU)
    truth = blocks(case, *case.image).to(network.device)

    def count(labels: Sequence[Tensor]) -> None:
        for found, true in zip(labels, truth, strict=True):
            counts.update(found, true)

    return predicting(case, cfg, network, count)


def training(case: Case, cfg: Config, network: ERRSeg) -> Callable[[], float]:
    """A step: forward, loss, backward and AdamW."""
    device, size = network.device, case.size
    cfg = cfg.clone()
    cfg.INPUT.CROP_SIZE = size
    cfg.SOLVER.ACTIVATION_CHECKPOINTING = bool(case.recomputed)
    cfg.SOLVER.RECOMPUTED = case.recomputed or cfg.SOLVER.RECOMPUTED
    images, labels = noise(case, device, size, size), blocks(case, size, size).to(device)
    text = prompts(case, cfg, network)
    if not network.encoder.trains_text:
        with torch.no_grad():
            text = embed_prompts(network.encoder.clip, text)
    spec, optimizer = noise_spec(case), build_optimizer(network, cfg)
    kept_numbers: list[float] = []

    def note_kept(crm: CRM, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        kept_numbers[:] = [(output[0] != NOT_KEPT).sum(dim=1).float().mean().item()]

    network.head.crm.register_forward_hook(note_kept)

    def loss() -> Tensor:
        if not case.is_reference:
            return training_loss(network, network, Batch(images, labels, []), text, spec, cfg)["sem_seg"]
        return dense_loss(network(network.preprocess(images, size), text, labels=labels).logits, labels)

    def work() -> float:
        with activation_checkpointing(network, cfg):
            with autocast(device, PRECISIONS[case.precision]):
                value = loss()
            value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return kept_numbers[-1]

    return work


def embedding(case: Case, cfg: Config, network: ERRSeg) -> Callable[[], float]:
    """From class names to embeddings, nothing cached."""
    tokens = prompts(case, cfg, network)

    @torch.no_grad()
    def work() -> float:
        with tf32(False), autocast(network.device, PRECISIONS[case.precision]):
            for part in tokens.split(1000):
                embed_prompts(network.encoder.clip, part)
        return float(case.num_classes)

    return work
