"""What stops a run."""

import signal


class RunError(RuntimeError):
    """A run that cannot start or go on; the message says where, with which files, and what is intact.

    Attributes:
        status: the exit status for it.
        alone: whether it stops only this one of several processes, so that the others have to be told.
    """

    status = 1
    alone = False


class TrainingError(RunError):
    """Training that cannot start or go on."""


class EvaluationError(RunError):
    """Evaluation that cannot go on."""


class TrainingInterrupted(TrainingError):
    """Training that stopped because it was asked to, after a checkpoint was written.

    Attributes:
        status: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum
