"""What prediction, training and reading cost, measured.

=================  ======================================================================
``prediction.py``  time and memory of predictions
``training.py``    time and memory of training steps, against the textbook's loss
``data.py``        training pictures read, and label maps prepared, a second a core
=================  ======================================================================
"""
