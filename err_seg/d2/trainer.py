"""detectron2's default trainer, with ERR-Seg's data, optimizer, evaluation and files."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from fvcore.common.config import CfgNode

from err_seg.build import DEFAULT_NUM_KEPT
from err_seg.config import ConfigError
from err_seg.d2.catalog import records_of, register_datasets
from err_seg.d2.checks import check_detectron2_keys, check_schedule_keys, check_settings
from err_seg.d2.config import from_detectron2
from err_seg.d2.evaluator import ERRSegEvaluator
from err_seg.d2.hooks import (
    EvaluateAndKeepBest,
    LatestBatch,
    ListDamagedPairs,
    SaveCheckpoints,
    SaveComparisons,
    SaveFinalWeights,
    SeedIterations,
    StopOnSignal,
    Stopped,
    WriteReport,
)
from err_seg.d2.mapper import ERRSegMapper, SeededDataset, in_shared_memory
from err_seg.d2.meta_arch import ERRSeg
from err_seg.data import TrainingSampler
from err_seg.device import deterministic, resolve_device, resolve_precision, tf32
from err_seg.engine.benchmarks import evaluation_settings, save_benchmarks
from err_seg.engine.errors import TrainingError, TrainingInterrupted
from err_seg.engine.failures import told
from err_seg.engine.optimizer import build_optimizer
from err_seg.engine.parallel import activation_checkpointing, process_share
from err_seg.engine.schedule import build_schedule
from err_seg.engine.signals import StopRequest, stop_request


class Trainer(DefaultTrainer):
    """``DefaultTrainer`` that trains ERR-Seg as the plain engine does: the same batches, losses and weights.

    Checkpoints are detectron2's (``model_0004999.pth``, ``last_checkpoint``); the last weights are also written as
    ``model_final.safetensors``. It evaluates by itself only where ``TEST.EVAL_PERIOD`` is set; call
    ``Trainer.test(cfg, trainer.model)`` at the end. ``LOG`` keys take the place of detectron2's writers.

    Args:
        cfg: a configuration with :func:`err_seg.d2.add_err_seg_config` or of :func:`err_seg.d2.to_detectron2`.

    Raises:
        ConfigError: see :mod:`err_seg.d2.checks`.
    """

    def __init__(self, cfg: CfgNode):
        self.own = from_detectron2(cfg)
        check_settings(self.own)
        check_detectron2_keys(cfg)
        register_datasets(self.own.DATASETS.ROOT, self.own.DATASETS.CUSTOM)
        self.stopping = StopRequest()
        cfg = cfg.clone()
        cfg.defrost()
        precision = resolve_precision(self.own.SOLVER.PRECISION, resolve_device(self.own.MODEL.DEVICE))
        cfg.SOLVER.AMP.ENABLED = precision.name == "fp16"
        cfg.freeze()
        if comm.is_main_process():
            Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        super().__init__(cfg)

    @property
    def meta_arch(self) -> ERRSeg:
        """The model, without what it was wrapped in for several processes."""
        return self.checkpointer.model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: ERRSeg) -> torch.optim.Optimizer:
        """Build AdamW with the published parameter groups, and ``SOLVER.CLIP_GRADIENTS`` where it is enabled."""
        return build_optimizer(model.network, from_detectron2(cfg))

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule that ``SOLVER.LR_SCHEDULER_NAME`` names.

        Raises:
            ConfigError: see :func:`err_seg.d2.checks.check_schedule_keys`.
        """
        check_schedule_keys(cfg)
        return build_schedule(optimizer, from_detectron2(cfg))

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, start: int = 0) -> Any:
        """Build the endless loader of training batches.

        Args:
            cfg: the configuration.
            start: pictures that all processes together have consumed.
        """
        own = from_detectron2(cfg)
        register_datasets(own.DATASETS.ROOT, own.DATASETS.CUSTOM)
        records = records_of(own.DATASETS.TRAIN[0], own.DATASETS.ROOT)
        rank, processes = process_share()
        return build_detection_train_loader(
            SeededDataset(records, ERRSegMapper(cfg, is_train=True), own.SEED, own.DATALOADER.SKIP_DAMAGED),
            mapper=None,
            sampler=TrainingSampler(len(records), own.SEED, rank, processes, start),
            collate_fn=in_shared_memory,
            total_batch_size=own.SOLVER.IMS_PER_BATCH,
            aspect_ratio_grouping=False,
            num_workers=own.DATALOADER.NUM_WORKERS,
            pin_memory=torch.cuda.is_available(),
            seed=own.SEED,  # of the workers: not from the global random state
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """Build the loader of one data set's pictures, ``TEST.BATCH_SIZE`` at a time."""
        own = from_detectron2(cfg)
        register_datasets(own.DATASETS.ROOT, own.DATASETS.CUSTOM)
        return build_detection_test_loader(
            records_of(dataset_name, own.DATASETS.ROOT),
            mapper=ERRSegMapper(cfg, is_train=False),
            batch_size=own.TEST.BATCH_SIZE,
            num_workers=own.DATALOADER.NUM_WORKERS,
        )

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> ERRSegEvaluator:
        """Build the evaluator of one data set."""
        own = from_detectron2(cfg)
        evaluator = ERRSegEvaluator(
            dataset_name,
            output_dir=own.OUTPUT_DIR,
            root=own.DATASETS.ROOT,
            boundary_iou=own.TEST.BOUNDARY_IOU,
            save=own.TEST.SAVE,
            write_results=False,  # test() does, when all benchmarks are done
        )
        num_kept = own.MODEL.CRM.NUM_KEPT or DEFAULT_NUM_KEPT if own.MODEL.CRM.ENABLED else None
        precision = resolve_precision(own.TEST.PRECISION, resolve_device(own.MODEL.DEVICE))
        evaluator.settings = evaluation_settings(own, evaluator.spec, num_kept=num_kept, precision=precision)
        return evaluator

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: torch.nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> OrderedDict[str, Any]:
        """Evaluate on ``DATASETS.TEST`` and write the result files of all benchmarks together to ``OUTPUT_DIR``.

        An evaluation that was interrupted starts again: ``TEST.PROGRESS_PERIOD`` is the plain engine's.
        """
        own = from_detectron2(cfg)
        register_datasets(own.DATASETS.ROOT, own.DATASETS.CUSTOM)
        if evaluators is None:  # all of them now: a benchmark that is not there is told before the first one runs
            evaluators = [cls.build_evaluator(cfg, name) for name in own.DATASETS.TEST]
        elif isinstance(evaluators, DatasetEvaluator):
            evaluators = [evaluators]
        of_ours = [evaluator for evaluator in evaluators if isinstance(evaluator, ERRSegEvaluator)]
        names = [evaluator.spec.name for evaluator in of_ours]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"DATASETS.TEST names {', '.join(repeated)} more than once")
        figures = super().test(cfg, model, evaluators)
        save_benchmarks([e.result for e in of_ours if e.result is not None], Path(own.OUTPUT_DIR))
        return figures

    def build_hooks(self) -> list[HookBase | None]:
        """List the hooks; of those that write, only the main process has any."""
        own, cfg = self.own, self.cfg
        output, model = Path(own.OUTPUT_DIR), self.meta_arch
        self._latest = LatestBatch(model)
        built: list[HookBase | None] = [hooks.IterationTimer(), SeedIterations(own.SEED), self._latest]
        writer = WriteReport(own, model.device)
        if comm.is_main_process():
            built.append(writer)
        built.append(hooks.LRScheduler())
        if own.TEST.EVAL_PERIOD:
            built.append(EvaluateAndKeepBest(own, cfg, self.test, model, writer))
        if comm.is_main_process():
            solver = own.SOLVER
            built.append(
                SaveCheckpoints(self.checkpointer, solver.CHECKPOINT_PERIOD, max_to_keep=solver.CHECKPOINTS_KEPT)
            )
            built.append(SaveComparisons(own, model, self._latest, writer) if own.VIS_PERIOD else None)
            built.append(SaveFinalWeights(output, model.network))
        if own.DATALOADER.SKIP_DAMAGED:
            built.append(ListDamagedPairs(output, self._latest))
        built.append(StopOnSignal())
        return built

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in ``OUTPUT_DIR`` where there is one, else start from ``MODEL.WEIGHTS``."""
        configured = [dict(group) for group in self.optimizer.param_groups]
        super().resume_or_load(resume=resume)
        if self.start_iter:
            self._keep_settings(configured)
            for hook in self._hooks:
                if isinstance(hook, hooks.PeriodicCheckpointer):  # to be counted among those that are kept
                    files = Path(self.own.OUTPUT_DIR).glob("model_[0-9]*.pth")
                    hook.recent_checkpoints = sorted(map(str, files))
            consumed = self.start_iter * self.own.SOLVER.IMS_PER_BATCH
            self._trainer.reset_data_loader(lambda: self.build_train_loader(self.cfg, consumed))

    def _keep_settings(self, configured: Sequence[dict[str, Any]]) -> None:
        """Put the configuration's learning rates, decays and betas in the place of those that a checkpoint holds."""
        schedule = self.scheduler
        if not isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):  # of a derived class, which knows its own
            return
        for group, own in zip(self.optimizer.param_groups, configured, strict=True):
            group.update({key: value for key, value in own.items() if key != "params"})
        schedule.base_lrs = [group["initial_lr"] for group in configured]
        for group, factor in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["lr"] = group["initial_lr"] * factor(schedule.last_epoch)

    def _last_checkpoint(self) -> str:
        return self.checkpointer.get_checkpoint_file() or "there is none yet"

    def train(self) -> Any:
        """Train to ``SOLVER.MAX_ITER``.

        Raises:
            TrainingError: the loss or a weight is no longer a finite number, a file cannot be written, a pair cannot be
                read, or a loader process was killed.
            TrainingInterrupted: SIGTERM or Ctrl-C came; a checkpoint was written.
        """
        solver = self.own.SOLVER
        try:
            with (
                told(TrainingError, lambda: f"the last checkpoint: {self._last_checkpoint()}", "--resume"),
                stop_request() as self.stopping,
                tf32(solver.TF32),
                deterministic(solver.DETERMINISTIC),
                activation_checkpointing(self.meta_arch.network, solver.ACTIVATION_CHECKPOINTING),
            ):
                return super().train()
        except Stopped as stop:
            raise TrainingInterrupted(
                f"stopped after {self.iter + 1} iterations; --resume goes on from here: "
                f"{self.checkpointer.get_checkpoint_file()}",
                stop.signum,
            ) from None
        except FloatingPointError as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"{reason} Its pictures (of this process): {self._latest.text()}; the last checkpoint: "
                f"{self._last_checkpoint()}. Look at "
                "these pictures and their labels; else lower SOLVER.BASE_LR or try SOLVER.PRECISION "
                '"bf16" or "fp32", and --resume'
            ) from error
