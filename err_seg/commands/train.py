"""Train ERR-Seg and evaluate it.

    err-seg train --config-file configs/err_seg_convnext_b.yaml --num-gpus 4
    err-seg train --config-file configs/err_seg_convnext_b.yaml --num-gpus 4 --resume
    err-seg train --config-file configs/err_seg_convnext_b.yaml --eval-only MODEL.WEIGHTS model_final.pth

All other settings are configuration: err_seg/config/defaults.py lists every key; KEY VALUE pairs override the file's.
SIGTERM and Ctrl-C save a checkpoint and exit with status 143 and 130. A mistake in the input is one line and status 1.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from err_seg.commands.options import command_parser, complain
from err_seg.config import Config, ConfigError, get_cfg
from err_seg.config.constants import ENGINES, SET_CLIP_WEIGHTS
from err_seg.plugins import imported_packages

if TYPE_CHECKING:
    from err_seg.evaluation import BenchmarkResult

logger = logging.getLogger("train_net")


def parse_arguments(
    argv: Sequence[str] | None, name: str = "train", description: str | None = __doc__
) -> argparse.Namespace:
    """Read the command line of ``err-seg train``, or of ``err-seg evaluate``."""
    parser = command_parser(name, description)
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="a YAML file, or a shipped name: err_seg_convnext_b")
    if name == "train":
        parser.set_defaults(predictor=None)
        add("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS without training")
        add("--resume", action="store_true", help="continue from the newest checkpoint in OUTPUT_DIR, if there is one")
    else:
        add("--predictor", metavar="MODULE:FUNCTION", help="evaluate this function of image and class names instead")
        parser.set_defaults(eval_only=True, resume=False)
    add("--engine", choices=ENGINES, default="auto", help="auto: detectron2 where it can, else plain")
    add("--num-gpus", type=int, default=1, metavar="N", help="processes on this machine, each with a GPU (or the CPU)")
    add("--num-machines", type=int, default=1, metavar="M", help="machines that run this same command")
    add("--machine-rank", type=int, default=0, metavar="R", help="which of them this is, from 0")
    add("--dist-url", default="auto", metavar="URL", help="tcp://<address>:<port> of the first machine")
    add("opts", nargs="*", metavar="KEY VALUE", help="overrides of the configuration")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.config_file is None and arguments.predictor is None:
        parser.error("the following arguments are required: --config-file")
    if arguments.predictor is not None:
        arguments.engine = "plain"
    return arguments


def main(argv: Sequence[str] | None = None, name: str = "train", description: str | None = __doc__) -> int:
    """Run ``err-seg train``, or ``err-seg evaluate``: train, evaluate, or both, in as many processes as asked for."""
    arguments = parse_arguments(argv, name, description)
    from err_seg.engine.launch import launch

    try:
        cfg = get_cfg(arguments.config_file, arguments.opts)  # a mistake is reported once, not by every process
        processes = int(os.environ.get("WORLD_SIZE", arguments.num_gpus * arguments.num_machines))
        training = None if arguments.eval_only else cfg
        arguments.engine, arguments.engine_reason = choose_engine(
            arguments.engine, training=training, processes=processes
        )
        return launch(
            work,
            arguments,
            processes=arguments.num_gpus,
            machines=arguments.num_machines,
            machine_rank=arguments.machine_rank,
            dist_url=arguments.dist_url,
        )
    except (ValueError, OSError) as error:
        return complain(error, 1)


def choose_engine(wanted: str, *, training: Config | None = None, processes: int = 1) -> tuple[str, str]:
    """Choose "plain" or "detectron2"; returns it, and why, for the log. Both continue each other's runs.

    "auto" is detectron2 where it can be imported and, for a run that trains, supports its configuration (``training``)
    in so many ``processes``.

    Raises:
        ConfigError: detectron2 is wanted and not there.
    """
    if wanted == "plain":
        return wanted, "as asked for"
    try:
        import_module("err_seg.d2")
    except ImportError as error:
        if wanted == "detectron2":
            raise ConfigError(f"--engine detectron2: {error}") from error
        return "plain", "since detectron2 is not installed"
    if wanted == "detectron2":
        return wanted, "as asked for"
    if training is not None:
        try:
            import_module("err_seg.d2.config").check_detectron2_can(training, processes)
        except ConfigError as error:
            return "plain", f"since with detectron2: {error}"
    return "detectron2", "which is installed"


def work(arguments: argparse.Namespace) -> int:
    """Do one process's part: train unless only an evaluation is asked for, evaluate, and print the table."""
    from err_seg.data import register_entries
    from err_seg.engine import RunError, TrainingInterrupted, evaluate, train
    from err_seg.engine.launch import join_processes
    from err_seg.evaluation.predictors import FunctionPredictor
    from err_seg.models.build import build_compiled, build_model
    from err_seg.utils.processes import one_writer, process_share

    rank, whole = 0, ExitStack()
    try:
        cfg = get_cfg(arguments.config_file, arguments.opts)
        join_processes(cfg, on_loss=lambda loss: report(f"error: {loss}; {what_is_kept(arguments, cfg)}"))
        rank, _ = process_share()
        whole.enter_context(one_writer(Path(cfg.OUTPUT_DIR)))
        whole.enter_context(logging_to(Path(cfg.OUTPUT_DIR), rank))
        logger.info("engine: %s, %s", arguments.engine, arguments.engine_reason)
        for name, version in imported_packages().items():  # before there was a log
            logger.info("imported %s %s", name, version)
        register_entries(cfg.DATASETS.CUSTOM)
        function = FunctionPredictor(cfg, arguments.predictor) if arguments.predictor else None
        is_random = arguments.eval_only and not (cfg.MODEL.CLIP.PRETRAINED or cfg.MODEL.WEIGHTS or function)
        check_benchmarks(cfg)
        detectron2 = import_module("err_seg.d2.trainer") if arguments.engine == "detectron2" else None  # optional
        results = None
        if not arguments.eval_only:
            if detectron2:
                results = detectron2.train(cfg, resume=arguments.resume)
            else:
                results = train(cfg, build_model(cfg), resume=arguments.resume)
            cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.safetensors")
        if results is None:  # else the training's last evaluation gave them
            results = detectron2.evaluate(cfg) if detectron2 else evaluate(cfg, function or build_compiled(cfg))
    except RunError as error:
        if rank == 0 or error.alone:  # else all processes stop together, for the same reason
            report(str(error) if isinstance(error, TrainingInterrupted) else f"error: {error}")
        return error.status
    except (ValueError, OSError) as error:
        report(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        report(f"interrupted; {how_to_continue(arguments)}")
        return 130
    finally:
        whole.close()
    if rank == 0:
        print_results(results, Path(cfg.OUTPUT_DIR), is_random)
    return 0


def how_to_continue(arguments: argparse.Namespace) -> str:
    """Say what the interrupted command does when it is rerun."""
    evaluation = "the same command evaluates" + (" from where it stopped" if arguments.engine == "plain" else " anew")
    return evaluation if arguments.eval_only else f"{evaluation}; with --resume it continues the training"


def what_is_kept(arguments: argparse.Namespace, cfg: Config) -> str:
    """Say what an interrupted command has saved, and how to continue."""
    from err_seg.engine.checkpoints import Checkpoints

    newest = Checkpoints(Path(cfg.OUTPUT_DIR), cfg.SOLVER.CHECKPOINTS_KEPT).newest_text()
    return how_to_continue(arguments) if arguments.eval_only else f"{newest}; {how_to_continue(arguments)}"


def check_benchmarks(cfg: Config) -> None:
    """Check before the training that its results can be evaluated."""
    from err_seg.data import DatasetError
    from err_seg.engine import open_benchmarks

    try:
        open_benchmarks(cfg)
    except DatasetError as error:
        raise DatasetError(f'{error} (To evaluate on nothing: DATASETS.TEST "[]")') from error


@contextmanager
def logging_to(output: Path, rank: int) -> Iterator[None]:
    """During a ``with`` block, log to OUTPUT_DIR/log.txt, and to the terminal unless the program has a log of its own.

    Of several processes, all but the first log only warnings, and write no file.
    """
    from err_seg.utils.disk import LogFile

    root = logging.getLogger()
    handlers: list[logging.Handler] = [] if root.handlers else [logging.StreamHandler()]
    if rank == 0:
        handlers.append(LogFile(output / "log.txt", encoding="utf-8"))
    with ExitStack() as undoing:
        undoing.callback(root.setLevel, root.level)
        for handler in handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
            undoing.callback(handler.close)
            undoing.callback(root.removeHandler, handler)
            root.addHandler(handler)
        root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
        yield


def report(message: str) -> None:
    """Print what stopped this process; of several, say which one."""
    from err_seg.utils.processes import process_share

    rank, processes = process_share()
    print(message if processes == 1 else f"[process {rank}] {message}", file=sys.stderr)


def print_results(results: "list[BenchmarkResult]", output: Path, is_random: bool) -> None:
    """Print table and copypaste lines, where they were written, and whether they mean anything."""
    if not results:
        print("Evaluated on nothing, as DATASETS.TEST is empty")
        return
    from err_seg.evaluation import copypaste_lines, summary_table

    print(summary_table(results))
    print("\n".join(copypaste_lines(results)))
    print(f"Written to {output / 'results.json'}")
    if is_random:
        print(f"These metrics mean nothing: all weights are random. {SET_CLIP_WEIGHTS}")
