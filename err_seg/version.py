"""The package's version, in the one place that pyproject.toml and the saved checkpoints read."""

__version__ = "0.2.0"
