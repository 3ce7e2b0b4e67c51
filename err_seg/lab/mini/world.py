"""The miniature world end to end: train on the seen classes, evaluate on all."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from err_seg.config import Config
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.engine import evaluate, train
from err_seg.lab.mini.captioned import PretrainingConfig
from err_seg.lab.mini.metrics import cost_map_labels, evaluate_baseline, group_miou, seconds_per_image
from err_seg.lab.mini.pretraining import pretrain, zero_shot_accuracy
from err_seg.lab.mini.result_grid import prediction_grid
from err_seg.mini.crops import MiniCrops
from err_seg.mini.files import SCENES, mini_world_name
from err_seg.mini.vocabulary import VOCABULARY
from err_seg.models.build import build_model
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.images import save_image

BASELINE = "training-free (arg-max of C16)"
TIMED_IMAGES = 10


def set_scenes(cfg: Config, scenes: Mapping[str, int]) -> None:
    """Change in a configuration how many scenes "mini_world_<split>" has, by split; other data sets stay."""
    sized = {mini_world_name(split, SCENES[split]): mini_world_name(split, count) for split, count in scenes.items()}
    data_sets = cfg.DATASETS
    data_sets.TRAIN, data_sets.TEST = ([sized.get(n, n) for n in names] for names in (data_sets.TRAIN, data_sets.TEST))


def pretrain_clip(cfg: Config, config: PretrainingConfig, file: Path, command: str) -> dict[str, float]:
    """Pre-train the CLIP of ``MODEL.CLIP.NAME``, write its weights, and return its zero-shot accuracy on test crops."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    clip = pretrain(cfg.MODEL.CLIP.NAME, config, mean, std)
    crops = MiniCrops("test", 600, config.seed, size=clip.visual.image_size[0], names=config.names)
    accuracy = zero_shot_accuracy(clip, crops, mean, std, cfg.MODEL.CLIP.NAME)
    facts: dict[str, Any] = {"command": command, "pretraining": repr(config), "accuracy": accuracy}
    facts |= {"names": config.names, "captions": config.captions}
    save_half(clip.state_dict(), file, facts)
    return accuracy


def save_half(state: Mapping[str, Tensor], file: Path, facts: Mapping[str, Any]) -> None:
    """Write weights as safetensors in fp16 (loading casts), with how they were made as metadata."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_weights(half, file, {**facts, **versions})


def train_model(cfg: Config) -> ERRSeg:
    """Train the network of a configuration; ``SEED`` decides initialisation, order and augmentation."""
    model = build_model(cfg)
    train(cfg, model)
    return model


def measure(cfg: Config, model: ERRSeg) -> dict[str, dict[str, float]]:
    """Evaluate the baseline, the model with its K, and the model with all classes kept.

    Returns:
        Row title to figures: mIoU in percent of each of ``GROUPS``, "ms" per image, and "fusion ms", the part of it
        that ESCF and GUD take.
    """
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT)
    text = model.embed_vocabulary(VOCABULARY)
    images = [_to_tensor(pairs[i].image) for i in range(min(TIMED_IMAGES, len(pairs)))]
    rows = {BASELINE: group_miou(evaluate_baseline(cfg, model, pairs))}
    for num_kept in (cfg.MODEL.CRM.NUM_KEPT, len(VOCABULARY)):
        settings = cfg.clone()
        settings.MODEL.CRM.NUM_KEPT = num_kept
        settings.OUTPUT_DIR = str(Path(cfg.OUTPUT_DIR) / f"K{num_kept}")
        (result,) = evaluate(settings, model)
        whole, fusion = seconds_per_image(model, images, text, num_kept)
        title = f"ERR-Seg, K = {num_kept}" + (" (all)" if num_kept == len(VOCABULARY) else "")
        rows[title] = {**group_miou(result), "ms": 1e3 * whole, "fusion ms": 1e3 * fusion}
    return rows


def draw_grid(cfg: Config, model: ERRSeg, indices: Sequence[int], file: Path) -> None:
    """Write the image grid of some scenes of the test split, as far as there are so many."""
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT)
    samples = [pairs[i] for i in indices if i < len(pairs)]
    predicted = model.predict([sample.image for sample in samples], VOCABULARY, num_kept=cfg.MODEL.CRM.NUM_KEPT)
    tensors, sizes = [_to_tensor(s.image) for s in samples], [s.label.shape for s in samples]
    baseline = cost_map_labels(model, tensors, model.embed_vocabulary(VOCABULARY), sizes)
    columns: dict[str, Any] = {
        "training-free": [labels.cpu().numpy() for labels in baseline],
        "ERR-Seg": [result.labels.cpu().numpy() for result in predicted],
    }
    grid = prediction_grid([s.image for s in samples], [s.label for s in samples], columns)
    save_image(grid, file)


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)
