"""The errors that stop a run."""

import signal


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, what was expected and what was found."""


class RunError(RuntimeError):
    """A run that cannot start or continue; the message says where it stopped, with which files, and what is intact.

    Attributes:
        status: the command's exit status.
        alone: whether it stops only one of several processes, which must then tell the others.
    """

    status = 1
    alone = False


class TrainingError(RunError):
    """Training that cannot start or continue."""


class EvaluationError(RunError):
    """Evaluation that cannot continue."""


class TrainingInterrupted(TrainingError):
    """Training that stopped because it was asked to, after a checkpoint was written.

    Attributes:
        status: 143 for SIGTERM, 130 for Ctrl-C.
    """

    def __init__(self, message: str, signum: int):
        super().__init__(f"{signal.Signals(signum).name}: {message}")
        self.status = 128 + signum
