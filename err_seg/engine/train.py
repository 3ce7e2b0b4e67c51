"""The training loop."""

import json
import logging
import time
from pathlib import Path

import torch
from fvcore.common.config import CfgNode
from torch import Tensor
from tqdm import tqdm

from err_seg.build import resolve_precision
from err_seg.checkpoint import save_weights
from err_seg.data import Batch, DatasetSpec, SegmentationPairs, TrainingTransform, get_dataset, training_loader
from err_seg.engine.optimizer import build_optimizer, build_schedule
from err_seg.modeling.err_seg import PRECISIONS, ERRSeg
from err_seg.modeling.loss import segmentation_loss

logger = logging.getLogger(__name__)

LOG_PERIOD = 20


class TrainingError(RuntimeError):
    """Training that cannot go on; the message says at which iteration, with which pictures, and what is intact."""


def training_transform(cfg: CfgNode, ignore_label: int) -> TrainingTransform:
    """Translate ``cfg.INPUT`` into the training pictures' transform."""
    return TrainingTransform(
        crop_size=cfg.INPUT.CROP_SIZE,
        min_sizes=cfg.INPUT.MIN_SIZE_TRAIN,
        max_size=cfg.INPUT.MAX_SIZE_TRAIN,
        color_jitter="ssd" if cfg.INPUT.COLOR_AUG_SSD else "none",
        flip_prob=cfg.INPUT.FLIP_PROB,
        single_category_max_area=cfg.INPUT.SINGLE_CATEGORY_MAX_AREA,
        ignore_label=ignore_label,
    )


def vocabulary_input(model: ERRSeg, vocabulary: tuple[str, ...]) -> Tensor:
    """Return what the model's ``forward`` takes as text: tokens where the text tower trains, else fixed embeddings."""
    text_tower = model.encoder.clip.transformer
    if any(parameter.requires_grad for parameter in text_tower.parameters()):
        return model.tokenize(vocabulary).to(model.device)
    return model.embed_vocabulary(vocabulary)


def training_loss(model: ERRSeg, batch: Batch, text: Tensor, spec: DatasetSpec, cfg: CfgNode) -> Tensor:
    """Run the model on a batch and return its loss, a scalar."""
    labels = batch.labels.to(model.device, non_blocking=True)
    prediction = model(model.preprocess(list(batch.images), cfg.INPUT.CROP_SIZE), text, labels=labels)
    return segmentation_loss(
        prediction.logits,
        prediction.kept,
        labels,
        len(spec.vocabulary),
        ignored_are_negatives=cfg.MODEL.LOSS.IGNORED_ARE_NEGATIVES,
    )


def train(cfg: CfgNode, model: ERRSeg) -> None:
    """Train the model on ``DATASETS.TRAIN`` for ``SOLVER.MAX_ITER`` iterations.

    Writes ``metrics.json`` (a JSON object a line), ``model_<iteration>.safetensors`` every ``CHECKPOINT_PERIOD`` and
    ``model_final.safetensors`` to ``OUTPUT_DIR``.

    Raises:
        TrainingError: the loss is no longer a finite number.
    """
    output = Path(cfg.OUTPUT_DIR)
    output.mkdir(parents=True, exist_ok=True)
    spec = get_dataset(cfg.DATASETS.TRAIN[0])
    pairs = SegmentationPairs(spec, cfg.DATASETS.ROOT)
    solver = cfg.SOLVER
    loader = training_loader(
        pairs,
        training_transform(cfg, spec.ignore_label),
        solver.IMS_PER_BATCH,
        seed=cfg.SEED,
        workers=cfg.DATALOADER.NUM_WORKERS,
    )
    optimizer = build_optimizer(model, cfg)
    schedule = build_schedule(optimizer, cfg)
    precision = resolve_precision(solver.PRECISION, model.device)
    scaler = torch.amp.GradScaler(model.device.type, enabled=precision == "fp16")
    text = vocabulary_input(model, spec.vocabulary)
    torch.manual_seed(cfg.SEED)  # stochastic depth
    model.train()
    logger.info("training on %d pictures of %s, %s, on %s", len(pairs), spec.name, precision, model.device)

    progress = tqdm(range(solver.MAX_ITER), desc="train", unit="it")
    start = time.perf_counter()
    with (output / "metrics.json").open("a", encoding="utf-8") as metrics:
        for iteration, batch in zip(progress, loader, strict=False):
            dtype = PRECISIONS[precision]
            with torch.autocast(model.device.type, dtype=dtype, enabled=dtype is not None):
                loss = training_loss(model, batch, text, spec, cfg)
            value = loss.item()
            if not torch.isfinite(loss):
                files = ", ".join(batch.paths)
                raise TrainingError(
                    f"the loss is {value} at iteration {iteration}, pictures {files}; earlier files are intact"
                )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            lr = schedule.get_last_lr()[0]
            schedule.step()

            done = iteration + 1
            progress.set_postfix(loss=f"{value:.4f}", lr=f"{lr:.2e}")
            if done % LOG_PERIOD == 0 or done == solver.MAX_ITER:
                seconds = (time.perf_counter() - start) / done
                metrics.write(
                    json.dumps({"iteration": iteration, "total_loss": value, "lr": lr, "time": seconds}) + "\n"
                )
                metrics.flush()
            if done % solver.CHECKPOINT_PERIOD == 0 and done < solver.MAX_ITER:
                save_weights(model, output / f"model_{done:07d}.safetensors", {"iteration": done, "config": cfg.dump()})
    save_weights(model, output / "model_final.safetensors", {"iteration": solver.MAX_ITER, "config": cfg.dump()})
