"""What stops a training run."""

import signal


class TrainingError(RuntimeError):
    """Training that cannot start or go on; the message says where, with which files, and what is intact.

    Attributes:
        status: the exit status for it.
    """

    status = 1


class TrainingInterrupted(TrainingError):
    """Training that stopped because it was asked to, after a checkpoint was written.

    Attributes:
        status: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum
