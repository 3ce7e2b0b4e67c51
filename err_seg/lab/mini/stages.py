"""The stages of ``err-seg mini``: pre-train, train, evaluate, and show the results of one seed or several."""

import argparse
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from err_seg.config import Config, get_cfg
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.ground_truth import check_ground_truth
from err_seg.data.image_sources import image_to_tensor
from err_seg.engine import train
from err_seg.lab.mini.evaluation import check_test_scenes, cost_map_labels, measure, set_scenes
from err_seg.lab.mini.pretraining import SETTINGS, pretrain, zero_shot_accuracy
from err_seg.lab.table import duration_text, mean_and_stdev, mean_text
from err_seg.mini.clip import CLIPS, ERR_SEG_WEIGHTS, NAME
from err_seg.mini.crops import MiniCrops
from err_seg.mini.files import SCENES
from err_seg.mini.vocabulary import UNSEEN, VOCABULARY
from err_seg.models.build import build_model
from err_seg.models.checkpoint import save_weights
from err_seg.prediction.model import ERRSeg
from err_seg.utils.files import write_json
from err_seg.utils.images import save_image
from err_seg.utils.messages import listed
from err_seg.utils.processes import one_writer
from err_seg.visualization.colors import class_colors
from err_seg.visualization.grid import GridRow, fitting_size, lay_out
from err_seg.visualization.legend import FAINT, INK, Entry
from err_seg.visualization.overlay import area_shares

Rows = Mapping[str, Mapping[str, float]]
Labels = NDArray[np.int64]

COLUMNS = {"seen": "seen", "unseen": "unseen", "all": "all", "ms": "ms / image", "fusion ms": "ESCF + GUD ms"}
TABLE_WIDTH = 110
GRID_SCENES = 6
LEAST_AREA = 0.02
NOTE = "(new): a class that training never showed. Gray: predicted, but not in the image."


def run(arguments: argparse.Namespace, command: str) -> None:
    """Pre-train, train and evaluate, as far as asked for."""
    cfg = get_cfg(arguments.config_file or "mini/err_seg", arguments.opts)
    output = arguments.output or Path(cfg.OUTPUT_DIR)
    cfg.OUTPUT_DIR, clip_file = str(output), output / "clip.safetensors"
    with one_writer(output):
        if arguments.package and arguments.step != "pretrain" and cfg.MODEL.CLIP.NAME != NAME:
            raise ValueError(f"--package: of {cfg.MODEL.CLIP.NAME} the package brings CLIP alone, which pretrain makes")
        if arguments.step == "pretrain" or (arguments.step == "all" and arguments.from_scratch):
            pretrain_clip(cfg, None if arguments.package else clip_file, command)
        if arguments.step == "pretrain":
            return
        if arguments.from_scratch and not arguments.package:
            cfg.MODEL.CLIP.PRETRAINED = str(clip_file)
        set_scenes(cfg, dict(zip(SCENES, arguments.scenes or SCENES.values(), strict=True)))
        if arguments.step != "train":
            # a mistake is reported before the training
            check_ground_truth(SegmentationPairs(check_test_scenes(cfg), cfg.DATASETS.ROOT))
        network_of = load_network if arguments.step == "evaluate" else train_network
        models = {seed: network_of(for_seed(cfg, seed)) for seed in arguments.seeds}
        if arguments.package:
            facts = {"command": command, "config": cfg.dump()}
            save_half(models[arguments.seeds[0]].state_dict(), ERR_SEG_WEIGHTS, facts)
        if arguments.step != "train":
            show(cfg, models, command)


def pretrain_clip(cfg: Config, file: Path | None, command: str) -> None:
    """Pre-train the configuration's CLIP and write it to a file, or to its place in the package."""
    name = cfg.MODEL.CLIP.NAME
    if name not in CLIPS:
        raise ValueError(f"MODEL.CLIP.NAME: {listed(CLIPS)} can be pre-trained here, not {name!r}")
    settings, start = SETTINGS[name], time.perf_counter()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    clip = pretrain(name, settings, mean, std)
    crops = MiniCrops("test", 600, settings.seed, size=clip.visual.image_size[0], names=settings.names)
    accuracy = zero_shot_accuracy(clip, crops, mean, std, name)
    facts: dict[str, object] = {"command": command, "pretraining": repr(settings), "accuracy": accuracy}
    facts |= {"names": settings.names, "captions": settings.captions}
    save_half(clip.state_dict(), file or CLIPS[name].weights, facts)
    shares = ", ".join(f"{kind} {share:.2f}" for kind, share in accuracy.items())
    taken = duration_text(time.perf_counter() - start)
    print(f"Pre-trained CLIP in {taken}; zero-shot accuracy among {settings.names} names: {shares}")


def save_half(state: Mapping[str, Tensor], file: Path, facts: Mapping[str, object]) -> None:
    """Write weights as safetensors in fp16 (loading casts), with how they were made as metadata."""
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_weights(half, file, {**facts, **versions})


def for_seed(cfg: Config, seed: int) -> Config:
    """Copy a configuration for one seed, with a folder of its own."""
    settings = cfg.clone()
    settings.SEED, settings.OUTPUT_DIR = seed, str(Path(cfg.OUTPUT_DIR) / f"seed{seed}")
    return settings


def train_network(cfg: Config) -> ERRSeg:
    """Train the network of a configuration."""
    start, model = time.perf_counter(), build_model(cfg)
    train(cfg, model)
    print(f"Trained seed {cfg.SEED}, {cfg.SOLVER.MAX_ITER} iterations, in {duration_text(time.perf_counter() - start)}")
    return model


def load_network(cfg: Config) -> ERRSeg:
    """Load the network that was trained in ``OUTPUT_DIR``, else the package's own."""
    trained = Path(cfg.OUTPUT_DIR) / "model_final.safetensors"
    if trained.is_file():
        print(f"Evaluating {trained}")
    elif cfg.MODEL.CLIP.NAME == NAME:
        print(f"No {trained}: evaluating the network that the package brings")
        trained = ERR_SEG_WEIGHTS
    else:
        raise FileNotFoundError(f"no {trained}: train first (the package brings a trained network on {NAME} alone)")
    cfg.MODEL.WEIGHTS = str(trained)
    return build_model(cfg)


def show(cfg: Config, models: dict[int, ERRSeg], command: str) -> None:
    """Evaluate each seed's network, and leave the table, its numbers and images."""
    output = Path(cfg.OUTPUT_DIR)
    runs = [measure(for_seed(cfg, seed), model) for seed, model in models.items()]
    print_table(runs, list(models))
    settings = {"command": command, "threads": torch.get_num_threads(), "config": cfg.dump()}
    save_report(runs, list(models), settings, output / "results.json")
    draw_grid(cfg, next(iter(models.values())), output / "predictions.png")
    print(f"Figures: {output / 'results.json'}\nImages: {output / 'predictions.png'}")


def summarize(runs: Sequence[Rows]) -> dict[str, dict[str, dict[str, float]]]:
    """Average each metric over the seeds: row to metric to "mean" and "stdev", the latter 0 for one seed."""
    return {
        row: {metric: mean_and_stdev([run[row][metric] for run in runs]) for metric in metrics}
        for row, metrics in runs[0].items()
    }


def print_table(runs: Sequence[Rows], seeds: Sequence[int]) -> None:
    """Print the table: mIoU in percent over seen, unseen and all classes, and milliseconds."""
    spread = f", mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(runs) > 1 else ""
    table = Table(title=f"mIoU on the test scenes{spread}", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in COLUMNS.values():
        table.add_column(heading, justify="right")
    for row, metrics in runs[0].items():
        cells = [mean_text([run[row][metric] for run in runs]) if metric in metrics else "" for metric in COLUMNS]
        table.add_row(row, *cells)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)  # narrower, it would lose what tells the rows apart
    console.print(table)


def save_report(runs: Sequence[Rows], seeds: Sequence[int], settings: Mapping[str, object], file: Path) -> None:
    """Write every metric of every seed, their mean and standard deviation, and what they depend on, as JSON."""
    rows = [{"seed": seed, "rows": rows} for seed, rows in zip(seeds, runs, strict=True)]
    write_json(file, {"summary": summarize(runs), "runs": rows, "settings": settings})


def draw_grid(cfg: Config, model: ERRSeg, file: Path) -> None:
    """Write the image grid of the first scenes of the test split."""
    pairs = SegmentationPairs(get_dataset(cfg.DATASETS.TEST[0]), cfg.DATASETS.ROOT)
    samples = [pairs[index] for index in range(min(GRID_SCENES, len(pairs)))]
    images, truths = [sample.image for sample in samples], [sample.label for sample in samples]
    predicted = model.predict(images, VOCABULARY, num_kept=cfg.MODEL.CRM.NUM_KEPT)
    text, sizes = model.embed_vocabulary(VOCABULARY), [truth.shape for truth in truths]
    baseline = cost_map_labels(model, list(map(image_to_tensor, images)), text, sizes)
    columns = {
        "training-free": [labels.cpu().numpy() for labels in baseline],
        "ERR-Seg": [result.labels.cpu().numpy() for result in predicted],
    }
    save_image(prediction_grid(images, truths, columns), file)


def prediction_grid(
    images: Sequence[NDArray[np.uint8]], truths: Sequence[Labels], predictions: Mapping[str, Sequence[Labels]]
) -> Image.Image:
    """Draw one row per scene: the image, the truth, one column for each way of predicting, and a legend below.

    Args:
        images: scenes (H, W, 3) uint8 RGB.
        truths: their label maps (H, W), indices into ``VOCABULARY``; the legend marks unseen classes as "new".
        predictions: title of a column to the label maps predicted.
    """
    colors = class_colors(VOCABULARY)
    rows = []
    for i, (image, truth) in enumerate(zip(images, truths, strict=True)):
        maps = [truth, *(column[i] for column in predictions.values())]
        size = fitting_size((image.shape[1], image.shape[0]))
        panels = [
            Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
            for pixels in [image, *(colors[labels] for labels in maps)]
        ]
        rows.append(GridRow(panels, [_legend(maps, colors)]))
    return lay_out([[title] for title in ("image", "truth", *predictions)], rows, NOTE)


def _legend(maps: Sequence[Labels], colors: NDArray[np.uint8]) -> list[Entry]:
    """List the truth's classes, then those that the predictions show on enough of the area to be worth naming."""
    truth = np.unique(maps[0]).tolist()
    shown = list(truth)
    for labels in maps[1:]:
        shown += sorted(index for index, share in area_shares(labels, len(VOCABULARY)) if share >= LEAST_AREA)
    entries = []
    for index in dict.fromkeys(shown):
        red, green, blue = colors[index].tolist()
        name = VOCABULARY[index] + (" (new)" if index in UNSEEN else "")
        entries.append(Entry((red, green, blue), name, ink=INK if index in truth else FAINT))
    return entries
