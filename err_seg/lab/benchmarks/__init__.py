"""Measures what prediction, evaluation, training, text embedding and reading cost.

==================  =================================================================
``cases.py``        what is compared: the cases, and the work that each of them is
``reference.py``    the baseline: the released code's arithmetic with the same weights
``machine.py``      the limits of a machine, and what a computation asks of it
``measurement.py``  times in turns; memory and operations of each case alone
``flops.py``        parameters and multiply-adds of a network
``report.py``       table, files and plots, beside the paper's figures
``data.py``         training images read, or label maps prepared, per second and core
==================  =================================================================
"""
