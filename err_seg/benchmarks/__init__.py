"""Measures what prediction, training and reading cost.

=================  ======================================================================
``prediction.py``  time and memory of predictions
``training.py``    time and memory of training steps, compared with the dense loss
``data.py``        training images read, or label maps prepared, per second and core
=================  ======================================================================
"""
