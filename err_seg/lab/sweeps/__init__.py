"""Sweeps (``err-seg sweep``): tables of variants and seeds, each measured once, resumable at any moment."""
