"""The work of ``err-seg figures``: each kind of figure, from the options to the file."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from err_seg.commands import models
from err_seg.config import get_cfg
from err_seg.config.constants import DEFAULT_MODEL
from err_seg.data import load_vocabulary, register_entries
from err_seg.data.images import read_image, read_label
from err_seg.jobs.label_set import split_names
from err_seg.lab.analysis import attention_share
from err_seg.lab.analysis.attention_comparison import compare_attention, redundancy_figure
from err_seg.lab.analysis.image_grid import Column, image_grid, predict_column
from err_seg.mini.files import mini_world_name
from err_seg.models import hub
from err_seg.text.prompts import check_vocabulary
from err_seg.utils.images import save_image
from err_seg.visualization.grid import CELL
from err_seg.visualization.plots import save_figure


def draw_attention(options: argparse.Namespace) -> Path:
    """Fig. 2."""
    image = read_image(options.image)
    labels = None if options.labels is None else read_label(options.labels)
    comparison = compare_attention(
        models.load_model(options),
        image,
        check_vocabulary(models.read_names(options)),
        class_name=options.class_name,
        point=options.point and tuple(options.point),
        num_kept=options.num_kept,
        labels=labels,
    )
    return save(redundancy_figure(comparison), options)


def measure_shares(options: argparse.Namespace) -> Path:
    """Proposition 1."""
    overrides = [*(("DATASETS.ROOT", options.root) if options.root else ()), *options.opts]
    cfg = get_cfg(hub.config_of(options.config_file) if options.config_file else None, overrides)
    register_entries(cfg.DATASETS.CUSTOM)
    names = [*(options.datasets or ()), *([mini_world_name("test", options.mini)] if options.mini else [])]
    if not names:
        raise ValueError("no data set to measure on; name some with --datasets, or draw scenes with --mini 64")
    pairs = models.open_pairs(cfg, names)
    model = models.load_model(options)
    results = []
    for data in pairs:
        num_classes = len(data.spec.vocabulary)
        num_kept = options.num_kept or (model.num_kept or num_classes, num_classes)
        results += attention_share.measure_attention_share(model, data, num_kept)
    print("Attention that the classes in the image pay to others, by the number of classes kept, in percent:")
    print(attention_share.share_table(results))
    print(
        "(present : redundant: how many times as much one gets as the other; bounds: what the logits' spread Δ allows)"
    )
    attention_share.save_attention_share(results, options.output / "attention_share.json")
    save_figure(attention_share.draw_attention_share(results), options.output / "attention_share.png")
    if not (options.model or options.weights or cfg.MODEL.WEIGHTS) and options.config_file:
        print("These results mean nothing: the network has random weights. Set MODEL.WEIGHTS.")
    return options.output


def draw_grid(options: argparse.Namespace) -> Path:
    """Fig. 8 to 10."""
    cell = options.cell or CELL
    if not options.classes:
        raise ValueError("no words; give one or more lists with --classes or --classes-file")
    images = [read_image(path) for path in options.images]
    columns = [] if options.truth is None else [truth_column(options, images)]
    lists = [
        check_vocabulary(load_vocabulary(text) if is_file else split_names(text)) for is_file, text in options.classes
    ]
    names = options.model or [DEFAULT_MODEL]
    for name in names:
        model = hub.load(name, **models.load_options(options))
        title = Path(name).name if len(names) > 1 else ""
        for words in lists:
            columns.append(predict_column(model, images, words, num_kept=options.num_kept, title=title, cell=cell))
    return save(image_grid(images, columns, cell), options)


def truth_column(options: argparse.Namespace, images: Sequence) -> Column:
    """Read the column of label maps, each as large as its image."""
    if options.truth_classes is None:
        raise ValueError("--truth needs --truth-classes, the file of the label maps' class names")
    if len(options.truth) != len(images):
        raise ValueError(f"--truth names {len(options.truth)} label maps for {len(images)} images; give one each")
    labels = [read_label(path) for path in options.truth]
    for path, image, label in zip(options.truth, images, labels, strict=True):
        if label.shape != image.shape[:2]:
            raise ValueError(f"{path}: the label map is {label.shape} (H, W), its image {image.shape[:2]}")
    return Column(load_vocabulary(options.truth_classes), labels, "ground truth", lists_names=False)


def save(image: Image.Image, options: argparse.Namespace) -> Path:
    """Write an image as PNG, with 256 colours where a small file matters more than every shade; returns its path."""
    save_image(image.quantize(256, kmeans=1) if options.palette else image, options.output, "PNG", optimize=True)
    return options.output


KINDS = {"attention": draw_attention, "attention-share": measure_shares, "grid": draw_grid}
"""What draws each kind of figure, and returns where it wrote it."""
