"""The training loop."""

from contextlib import closing

from err_seg.config import Config
from err_seg.engine.base_trainer import under_way
from err_seg.engine.trainer import PlainTrainer
from err_seg.prediction.model import ERRSeg


def train(cfg: Config, model: ERRSeg, *, resume: bool = False) -> None:
    """Train the model on ``DATASETS.TRAIN`` for ``SOLVER.MAX_ITER`` iterations.

    Writes to ``OUTPUT_DIR``: ``metrics.json`` and the like (:mod:`err_seg.engine.run_log`), checkpoints every
    ``SOLVER.CHECKPOINT_PERIOD`` iterations and at the end (:mod:`err_seg.engine.checkpoints`), images of predictions
    every ``VIS_PERIOD`` (:mod:`err_seg.engine.training_images`), and ``model_final.safetensors``. Every
    ``TEST.EVAL_PERIOD`` and at the end it writes results on ``DATASETS.TEST``, in ``evaluations``, and the best weights
    so far, as
    ``model_best.safetensors``.

    If ``torch.distributed`` is initialised, all its processes must call this. With any number of processes, a global
    batch has the same images and gives the same step. The global random state is set in every iteration.

    Args:
        cfg: the configuration.
        model: the network, on its device; it is trained in place and left in evaluation mode. (With ``SOLVER.PARALLEL``
            "fsdp", each process is left with only a part of it: load ``model_final.safetensors`` into a new network.)
        resume: continue from the newest checkpoint in ``OUTPUT_DIR``, if there is one.

    Raises:
        ConfigError: the settings do not allow training; names the key.
        TrainingError: the output folder cannot be used, the loss or the weights are no longer finite numbers, a file
            cannot be written, a pair cannot be read, or a loader process was killed; says what to resume from.
        TrainingInterrupted: SIGTERM or Ctrl-C came; a checkpoint was written.
    """
    last = cfg.SOLVER.MAX_ITER
    with under_way(cfg, model) as stop, closing(PlainTrainer(cfg, model, resume=resume)) as run:
        if run.iteration >= last:  # an earlier run may have ended before its weights were written
            run.finish()
        while run.iteration < last:
            run.after_iteration(run.step(stop.signum))
