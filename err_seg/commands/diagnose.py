"""Find out why pixels are wrong: what is missing to an mIoU of 100, on one page for each benchmark.

    err-seg diagnose --config-file err_seg_convnext_b --datasets ade20k_150_val --opts MODEL.WEIGHTS model_final.pth
    err-seg diagnose --config-file mini/err_seg --datasets mini_world_test_24 \\
        --opts MODEL.WEIGHTS err_seg/mini/err_seg.safetensors

Oracles correct one kind of error after the other: classes that are kept though the image does not show them, classes
that CRM lost, regions with a wrong class, borders. Each gives an upper bound in mIoU. The page also has errors by size
of the region, by similarity to the training vocabulary, by pair of classes, and the images that cost most.
"""

from collections.abc import Sequence
from pathlib import Path

from err_seg.commands.options import command_parser, positive, reporting_errors
from err_seg.config import get_cfg


@reporting_errors(1)
def main(arguments: Sequence[str] | None = None) -> None:
    """Diagnose a model on each benchmark."""
    parser = command_parser("diagnose", __doc__)
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="a YAML file, or a shipped name: err_seg_convnext_b")
    add("--datasets", nargs="+", metavar="NAME", help="benchmarks (DATASETS.TEST)")
    add("--output", type=Path, default=Path("output/diagnosis"), metavar="DIR", help="(%(default)s)")
    add("--similar", type=float, nargs="*", default=[0.95, 0.9], metavar="X", help="similarity of names (0.95 0.9)")
    add("--borders", type=positive, nargs="*", default=[1, 2, 4, 8], metavar="W", help="widths in pixels (1 2 4 8)")
    add("--images", type=positive, default=12, metavar="N", help="images that cost most (%(default)s)")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="overrides, last")
    options = parser.parse_args(arguments)
    cfg = get_cfg(options.config_file, options.opts)
    from err_seg.commands.models import open_pairs
    from err_seg.data import find_dataset, register_entries
    from err_seg.evaluation.results import text_table
    from err_seg.lab.diagnosis.counting import diagnose
    from err_seg.lab.diagnosis.page import save
    from err_seg.models.build import build_model

    register_entries(cfg.DATASETS.CUSTOM)
    benchmarks, model = open_pairs(cfg, options.datasets or cfg.DATASETS.TEST), build_model(cfg).eval()
    training = find_dataset(cfg.DATASETS.TRAIN[0], cfg.DATASETS.CUSTOM).vocabulary if cfg.DATASETS.TRAIN else ()
    choices = {"similar": options.similar, "borders": sorted(options.borders), "worst": options.images}
    for pairs in (pairs.spread(cfg.TEST.NUM_IMAGES) for pairs in benchmarks):
        found = diagnose(cfg, model, pairs, training=training, **choices)
        gains = [float("nan"), *(b - a for (_, a), (_, b) in zip(found.chain, found.chain[1:], strict=False))]
        rows = [[title, miou, gain] for (title, miou), gain in zip(found.chain, gains, strict=True)]
        print(text_table([found.benchmark, "mIoU", "gain"], rows))
        print(f"Written to {save(found, cfg.MODEL.WEIGHTS, pairs, options.output)}")
