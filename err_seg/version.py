"""The package's version, in the one place that setup.py and the saved checkpoints read."""

__version__ = "0.1.0"
