"""A value of label maps that data and loss agree on."""

BACKGROUND = -(2**15)
"""Where a pixel is negative for every class; no data set uses it, and it fits 16 bits."""
