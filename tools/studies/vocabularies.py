"""The same scenes with ever more names: what mIoU, time and memory become of vocabularies of 100 to 10,000 classes.

The scenes show the first 100 names of their world, half of them seen in training and half new combinations of words.
All other names are distractors, true words of the world that the scenes do not show. A network is trained on the seen
ones of the 100 names first. With ``--choosing T``, only the memory that choosing among T classes takes for one image is
measured, above the loaded model; features and text embeddings are random there, and not counted.
"""

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from err_seg.commands.options import positive
from err_seg.config import Config, get_cfg
from err_seg.data import SegmentationPairs, get_dataset
from err_seg.data.image_sources import image_to_tensor
from err_seg.engine import train
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.results import text_table
from err_seg.lab.benchmarks.measurement import in_new_process, peak_memory
from err_seg.lab.mini.evaluation import cost_map_labels, evaluate_baseline, evaluate_with
from err_seg.mini.vocabulary import NUM_SHOWN
from err_seg.modeling.encoder import FeatureMap, Features
from err_seg.models.build import build_model
from err_seg.visualization.plots import panel_grid, save_figure
from tools.studies import save_study, study_parser

FREE, CRM, ALL = "training-free", "CRM", "all kept"
TIMED = 6
MEBIBYTE = 2**20


@dataclass(frozen=True)
class VocabularyResult:
    """One way of predicting, with one vocabulary.

    Attributes:
        names: T.
        method: one of ``FREE``, ``CRM`` and ``ALL``.
        num_kept: K; 0 where no class is chosen.
        memory: peak above the loaded model in bytes, of one image; estimated from fewer classes where it was not run.
        milliseconds: CPU time of one image, the median; None where it was not run.
        miou: "seen", "unseen" and "all", in percent, over the names that the scenes show; None where it was not run.
    """

    names: int
    method: str
    num_kept: int
    memory: float
    milliseconds: float | None = None
    miou: Mapping[str, float] | None = None


def measure(cfg: Config, *, most_memory: float, most_seconds: float) -> list[VocabularyResult]:
    """Train the network of a configuration, and measure every data set of ``DATASETS.TEST``.

    Args:
        cfg: whose data sets are those of worlds of many names.
        most_memory: keeping all classes is not run if it is estimated to need more bytes.
        most_seconds: an evaluation is not run if it takes more CPU time.
    """
    model = build_model(cfg)
    train(cfg, model)
    rows: list[VocabularyResult] = []
    for name in cfg.DATASETS.TEST:
        pairs = SegmentationPairs(get_dataset(name), cfg.DATASETS.ROOT).spread(cfg.TEST.NUM_IMAGES)
        total = len(pairs.spec.vocabulary)
        for method, num_kept in ((FREE, 0), (CRM, cfg.MODEL.CRM.NUM_KEPT), (ALL, total)):
            needed = estimated_memory(rows, num_kept)
            if method == ALL and needed > most_memory:
                row = VocabularyResult(total, method, num_kept, needed)
            else:
                memory, milliseconds = in_new_process(measure_image, cfg, name, num_kept)
                row = VocabularyResult(total, method, num_kept, memory, milliseconds)
                if milliseconds * len(pairs) <= most_seconds * 1e3:
                    if method == FREE:
                        result = evaluate_baseline(cfg, model, pairs)
                    else:
                        result = evaluate_with(cfg, model, name, num_kept, f"T{total}-K{num_kept}")
                    row = replace(row, miou=shown_miou(result))
            rows.append(row)
            print(" | ".join(cells(row)), file=sys.stderr)
    return rows


def shown_miou(result: BenchmarkResult) -> dict[str, float]:
    """Average IoU over the names that scenes show: seen, unseen and all; classes without a pixel are left out."""
    names = result.class_names[:NUM_SHOWN]
    iou = [result.metrics[f"IoU-{name}"] for name in names]
    groups = {"seen": iou[0::2], "unseen": iou[1::2], "all": iou}
    return {group: float(np.nanmean(values)) for group, values in groups.items()}


def estimated_memory(rows: Sequence[VocabularyResult], num_kept: int) -> float:
    """Estimate the memory of keeping K classes from the largest two numbers of classes measured; 0 before there are."""
    known = {row.num_kept: row.memory for row in rows if row.num_kept and row.milliseconds is not None}
    if len(known) < 2:
        return 0.0
    low, high = sorted(known)[-2:]
    return known[high] + (known[high] - known[low]) / (high - low) * (num_kept - high)


def measure_image(cfg: Config, benchmark: str, num_kept: int) -> tuple[float, float]:
    """Measure one image: peak memory above the loaded model, in bytes, and CPU milliseconds; in a process of its own.

    The benchmark's vocabulary and first images are taken; weights do not matter. A K of 0 is the arg-max of C16 alone.
    """
    model = build_model(cfg)
    pairs = SegmentationPairs(get_dataset(benchmark), cfg.DATASETS.ROOT)
    text = model.embed_vocabulary(pairs.spec.vocabulary)
    seconds = []
    with model.evaluating(), torch.no_grad(), peak_memory(model.device) as peak:
        for index in range(TIMED if num_kept <= NUM_SHOWN else 3):
            image = image_to_tensor(pairs[index % len(pairs)].image)  # 3×H×W
            start = time.process_time()
            if num_kept == 0:
                cost_map_labels(model, [image], text, [(image.shape[1], image.shape[2])])
            else:
                model(model.preprocess([image]), text, num_kept)
            seconds.append(time.process_time() - start)
        memory = peak()
    return memory, 1e3 * statistics.median(seconds[1:])


def choosing_memory(cfg: Config, num_classes: int) -> float:
    """Measure the peak memory of ``Head.choose`` for one image, in bytes; in a process of its own.

    Features and text embeddings are random. They are there before, as the model is, and are not counted.
    """
    model, side = build_model(cfg), cfg.INPUT.SIZE
    maps, dim = model.encoder.maps, model.encoder.embedding_dim

    def random_maps(which: Sequence[FeatureMap]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.randn(1, m.channels, side // m.stride, side // m.stride) for m in which)

    features = Features(random_maps(maps.embeddings), deep=random_maps(maps.deep), shallow=())
    text = torch.randn(num_classes, dim)
    with model.evaluating(), torch.no_grad(), peak_memory(torch.device("cpu")) as peak:
        model.head.choose(features, text)
        return peak()


def markdown(rows: Sequence[VocabularyResult]) -> str:
    """Write the table: mIoU in percent, CPU milliseconds and memory of one image."""
    return text_table(["T", "", "seen", "unseen", "all", "ms", "MB"], [cells(row) for row in rows]) + "\n"


def cells(row: VocabularyResult) -> list[str]:
    """Return one row of the table."""
    method = row.method + (f", K = {row.num_kept:,}" if row.num_kept else "")
    if row.milliseconds is None:
        found = [f"not run: needs {row.memory / 2**30:.1f} GB", "", "", "", ""]
    else:
        miou = ["not run: takes too long", "", ""]
        if row.miou is not None:
            miou = [f"{row.miou[group]:.1f}" for group in ("seen", "unseen", "all")]
        found = [*miou, f"{row.milliseconds:.0f}", f"{row.memory / MEBIBYTE:.0f}"]
    return [f"{row.names:,}", method, *found]


def draw(rows: Sequence[VocabularyResult]) -> Figure:
    """Draw mIoU, time and memory over the number of names."""
    figure, panels = panel_grid(3, (3.4, 2.8))
    titles = ("mIoU, %", "CPU ms an image", "peak memory, MB")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(xscale="log", xlabel="names in the vocabulary", title=title)
    for method in (FREE, CRM, ALL):
        run = [row for row in rows if row.method == method and row.milliseconds is not None]
        names = [row.names for row in run]
        scores = [row.miou["all"] if row.miou else float("nan") for row in run]
        times = [row.milliseconds or 0.0 for row in run]
        memory = [row.memory / MEBIBYTE for row in run]
        for panel, heights in zip(panels, (scores, times, memory), strict=True):
            panel.plot(names, heights, marker="o", label=method)
    for panel in panels[1:]:
        panel.set_yscale("log")
    panels[0].set_ylim(bottom=0)
    panels[0].legend()
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what is asked for, and write the table and its figure."""
    parser = study_parser("vocabularies", __doc__)
    add = parser.add_argument
    add("--config-file", type=Path, metavar="FILE", default="mini/err_seg_large", help="(%(default)s)")
    add("--most-memory", type=positive, default=4, metavar="GB", help="that keeping all classes may need (4)")
    add("--most-minutes", type=positive, default=1, metavar="M", help="CPU time that one evaluation may take (1)")
    add("--choosing", type=positive, metavar="T", help="measure only the memory of choosing among T classes")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    options = parser.parse_intermixed_args(argv)
    cfg = get_cfg(options.config_file, options.opts)
    if options.choosing:
        peak = in_new_process(choosing_memory, cfg, options.choosing) / MEBIBYTE
        print(f"choosing among {options.choosing:,} classes: {peak:.0f} MB above the loaded model, features and text")
        return
    cfg.OUTPUT_DIR = str(options.output)
    rows = measure(cfg, most_memory=options.most_memory * 2**30, most_seconds=60 * options.most_minutes)
    save_figure(draw(rows), options.output / "results.png")
    save_study(options.output, markdown(rows), {"rows": [asdict(row) for row in rows], "config": cfg.dump()})


if __name__ == "__main__":
    main()
