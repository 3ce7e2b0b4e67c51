"""What is run on the miniature world (:mod:`err_seg.mini`): a network that trains in minutes on a CPU.

===================  =========================================================================
``pretraining.py``   contrastive pre-training of the tiny CLIPs
``captioned.py``     the captioned images that teach them
``world.py``         training on the seen classes, evaluation on all
``figures.py``       mIoU of seen and unseen classes, the training-free baseline, times
``grid.py``          the image grid
``report.py``        table and result file
``steps.py``         the steps of the command ``err-seg mini``
``sheets.py``        sheets of the scenes and classes
``large_images.py``  what windows gain on large images
===================  =========================================================================
"""
