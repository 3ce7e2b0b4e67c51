"""detectron2's default trainer, with ERR-Seg's data, optimizer, evaluation and files, and ``err-seg train`` by it."""

import os
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.config import get_cfg as detectron_defaults
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from err_seg.config import Config, ConfigError
from err_seg.d2.catalog import open_pairs, records_of, spec_of
from err_seg.d2.config import check_detectron2_can, is_fp16, opened, to_detectron2
from err_seg.d2.evaluator import ERRSegEvaluator
from err_seg.d2.hooks import Stopped, TrainerHook
from err_seg.d2.mapper import ERRSegMapper, batches_of_records
from err_seg.d2.meta_arch import ERRSeg
from err_seg.d2.weights import load_configured
from err_seg.data.ground_truth import check_ground_truth
from err_seg.engine.loss_monitor import broken_loss
from err_seg.engine.optimizer import build_optimizer, build_schedule
from err_seg.engine.periodic_eval import check_selection
from err_seg.engine.run_log import SkippedSamples
from err_seg.engine.run_setup import check_settings, open_data, run_context
from err_seg.evaluation import BenchmarkResult
from err_seg.evaluation.benchmarks import check_once, save_benchmarks
from err_seg.evaluation.predictors import evaluation_settings, source_of
from err_seg.evaluation.results import load_results
from err_seg.models.build import compile_network, default_num_kept
from err_seg.utils.device import resolve_device, resolve_precision
from err_seg.utils.errors import EvaluationError, translate_errors
from err_seg.utils.messages import listed
from err_seg.utils.processes import check_shared_folder, one_writer, process_share, wait_for_all
from err_seg.utils.signals import StopRequest


class Trainer(DefaultTrainer):
    """``DefaultTrainer`` that trains ERR-Seg as the plain engine does: the same batches, losses, weights and files.

    Checkpoints are the plain engine's, too (:mod:`err_seg.engine.checkpoints`): each continues the other's runs.
    It evaluates by itself only where ``TEST.EVAL_PERIOD`` is set; call ``Trainer.test(cfg, trainer.model)`` at the end.
    ``LOG`` keys take the place of detectron2's writers.

    Args:
        cfg: a configuration with :func:`err_seg.d2.add_err_seg_config`, or one of :func:`err_seg.get_cfg`.

    Attributes:
        own: the plain engine's configuration.
        course: the hook that saves and logs the run.

    Raises:
        ConfigError: the configuration asks for what detectron2's trainer cannot do, or see
            :func:`err_seg.engine.run_setup.check_settings`; names the key.
    """

    def __init__(self, cfg: CfgNode | Config):
        self.own, self.stopping = opened(cfg), StopRequest()
        check_detectron2_can(self.own, comm.get_world_size())
        check_settings(self.own)
        if self.own.TEST.EVAL_PERIOD:
            check_selection(self.own, [spec_of(name) for name in self.own.DATASETS.VAL or self.own.DATASETS.TEST])
        cfg = cfg.clone() if isinstance(cfg, CfgNode) else to_detectron2(cfg)
        if not cfg.DATASETS.TRAIN:
            raise ConfigError("DATASETS.TRAIN must be a list of one data set to train, not empty")
        if cfg.SOLVER.AMP.ENABLED and self.own.SOLVER.PRECISION in ("fp32", "bf16"):
            raise ConfigError(
                f'SOLVER.AMP.ENABLED contradicts SOLVER.PRECISION "{self.own.SOLVER.PRECISION}", which has precedence; '
                'set SOLVER.PRECISION to "fp16"'
            )
        cfg.defrost()
        cfg.SOLVER.AMP.ENABLED = is_fp16(self.own)
        cfg.freeze()
        super().__init__(cfg)
        names = {parameter: name for name, parameter in self.meta_arch.network.named_parameters()}
        for group in self.optimizer.param_groups:  # a derived class may build another optimizer
            group.setdefault("names", [names[parameter] for parameter in group["params"]])

    @property
    def meta_arch(self) -> ERRSeg:
        """The model, without what it was wrapped in for several processes."""
        return self.checkpointer.model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: ERRSeg) -> torch.optim.Optimizer:
        """Build AdamW with the published parameter groups, and ``SOLVER.CLIP_GRADIENTS`` where it is enabled."""
        return build_optimizer(model.network, opened(cfg))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule that ``SOLVER.LR_SCHEDULER_NAME`` names.

        Raises:
            ConfigError: keys of detectron2's own schedules are set.
        """
        defaults = detectron_defaults().SOLVER
        for key in ("STEPS", "GAMMA"):
            if cfg.SOLVER[key] != defaults[key]:
                raise ConfigError(
                    f"SOLVER.{key} has no effect with err_seg.d2.Trainer, whose schedules have no steps; leave it at "
                    f"{defaults[key]!r}, or override Trainer.build_lr_scheduler"
                )
        return build_schedule(optimizer, opened(cfg))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start: int = 0) -> Any:
        """Build the endless loader of training batches; all processes together have consumed ``start`` images."""
        own = opened(cfg)
        name = own.DATASETS.TRAIN[0]
        pairs, device = open_pairs(name, own.DATASETS.ROOT), resolve_device(own.MODEL.DEVICE)
        pairs.spec = pairs.spec.for_training(own.MODEL.LOSS.IGNORED_ARE_NEGATIVES)
        if not start:
            check_ground_truth(pairs, trains=True)
        return batches_of_records(open_data(own, pairs, device, start), name, SkippedSamples(Path(own.OUTPUT_DIR)))

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the loader of one data set's images, ``TEST.BATCH_SIZE`` at a time, ``TEST.NUM_IMAGES`` of them."""
        own = opened(cfg)
        return build_detection_test_loader(
            records_of(dataset_name, own.DATASETS.ROOT, own.TEST.NUM_IMAGES),
            mapper=ERRSegMapper(**ERRSegMapper.from_config(own, is_train=False)),
            batch_size=own.TEST.BATCH_SIZE,
            num_workers=own.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ERRSegEvaluator:
        """Build the evaluator of one data set."""
        own = opened(cfg)
        if own.TEST.DISTRACTORS:
            raise ConfigError("TEST.DISTRACTORS needs the plain engine: err-seg evaluate --engine plain")
        precision = resolve_precision(own.TEST.PRECISION, resolve_device(own.MODEL.DEVICE))
        k, spec = default_num_kept(own), spec_of(dataset_name)
        return ERRSegEvaluator(
            dataset_name,
            output_dir=own.OUTPUT_DIR,
            root=own.DATASETS.ROOT,
            boundary_iou=own.TEST.BOUNDARY_IOU,
            metrics=own.TEST.METRICS,
            confidence=own.TEST.CALIBRATION,
            save=own.TEST.SAVE,
            settings=evaluation_settings(own, spec, num_kept=k, precision=precision),
            num_images=own.TEST.NUM_IMAGES,
            write_results=False,  # test() does, when all benchmarks are done
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> OrderedDict[str, Any]:
        """Evaluate on ``DATASETS.TEST`` and write the result files of all benchmarks together to ``OUTPUT_DIR``.

        An evaluation that was interrupted starts again: only the plain engine reads ``TEST.PROGRESS_PERIOD``.
        """
        if evaluators is None:  # all of them now: one that is missing is reported before the first one runs
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        of_ours = [evaluator for evaluator in evaluators if isinstance(evaluator, ERRSegEvaluator)]
        check_once([evaluator.spec for evaluator in of_ours])
        bare = getattr(model, "module", model)
        for evaluator in of_ours:
            evaluator.settings |= source_of(bare.network) if isinstance(bare, ERRSeg) else {}
        with one_writer(Path(cfg.OUTPUT_DIR), EvaluationError):
            metrics = super().test(cfg, model, evaluators)
            save_benchmarks([e.result for e in of_ours if e.result is not None], Path(cfg.OUTPUT_DIR))
        return metrics

    def build_hooks(self) -> list[HookBase | None]:
        """List the hooks: detectron2's timer, the one that saves and logs the run, detectron2's schedule."""
        self.course = TrainerHook(self.own, self.meta_arch)
        return [hooks.IterationTimer(), self.course, hooks.LRScheduler()]

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the newest checkpoint in ``OUTPUT_DIR`` where there is one, else start from ``MODEL.WEIGHTS``.

        Learning rates, decays and betas are those of the configuration. Without ``resume``, checkpoints of an earlier
        run are set aside.

        Raises:
            CheckpointError, TrainingError: there is none that can be read or fits.
        """
        state = self.course.begin(resume=resume)
        if not state.iteration:
            load_configured(self.meta_arch.network, self.own.MODEL.WEIGHTS)
            return
        self.start_iter = self.iter = state.iteration
        with warnings.catch_warnings():  # torch's, about a schedule that steps before its optimizer
            warnings.simplefilter("ignore")
            self.scheduler.last_epoch = state.iteration - 1
            self.scheduler.step()
        self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg, state.pictures))

    def train(self) -> Any:
        """Train to ``SOLVER.MAX_ITER``.

        Raises:
            TrainingError: the loss or a weight is no longer a finite number, a file cannot be written, a pair cannot be
                read, or a loader process was killed.
            TrainingInterrupted: a signal of ``SOLVER.STOP_SIGNALS`` came; a checkpoint was written.
        """
        if self.course.state is None:
            self.course.begin(resume=False)
        # other hooks come first, so that an iteration's line of the log has their scalars
        self._hooks.sort(key=lambda hook: hook is self.course or isinstance(hook, hooks.LRScheduler))
        try:
            with run_context(self.own, self.meta_arch.network) as self.stopping:
                return super().train()
        except Stopped as stop:
            raise stop.args[0] from None
        except FloatingPointError as error:
            files = listed(self.meta_arch.latest.paths)
            problem = f"{str(error).splitlines()[0]} Its images (of this process): {files}"
            raise broken_loss(problem, self.course.checkpoints) from error


def train(cfg: Config, *, resume: bool = False) -> list[BenchmarkResult] | None:
    """Train with :class:`err_seg.d2.Trainer`; arguments, files, results and errors as :func:`err_seg.engine.train`."""
    join_detectron2()
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer.course.reported


def evaluate(cfg: Config) -> list[BenchmarkResult]:
    """Evaluate with detectron2's loop; configuration, files and result as of :func:`err_seg.engine.evaluate`."""
    join_detectron2()
    check_shared_folder(Path(cfg.OUTPUT_DIR))
    model = build_model(to_detectron2(cfg))
    load_configured(model.network, cfg.MODEL.WEIGHTS)
    compile_network(cfg, model.network)
    with translate_errors(EvaluationError, lambda: "nothing of this evaluation is kept", "rerun the same command"):
        Trainer.test(cfg, model)
    wait_for_all()
    return load_results(Path(cfg.OUTPUT_DIR) / "results.json")


def join_detectron2() -> None:
    """Tell detectron2 of the processes that :func:`err_seg.engine.launch.join_processes` has met, once."""
    rank, processes = process_share()
    if processes == 1:
        return
    try:
        comm.get_local_process_group()
    except AssertionError:  # there is none yet
        comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    if rank:
        setup_logger(distributed_rank=rank)  # else detectron2 lets every process talk
