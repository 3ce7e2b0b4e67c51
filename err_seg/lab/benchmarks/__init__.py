"""Measures what prediction, evaluation, training, text embedding and reading cost (``err-seg benchmark``)."""
