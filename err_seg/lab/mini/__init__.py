"""What is run on the miniature world (:mod:`err_seg.mini`), where a network trains in minutes on a CPU.

========================  ==========================================================================
``stages.py``             the command ``err-seg mini``: pre-train, train, evaluate
``pretraining_data.py``   captioned images for the tiny CLIPs, and the settings of pre-training
``pretraining.py``        contrastive pre-training
``evaluation.py``         mIoU of seen and unseen classes, the training-free baseline, times
``summary.py``            table and result file; scenes beside their truth and what was predicted
``drawing.py``            ``err-seg mini draw``: scenes as files, sheets of scenes and classes
``large_images.py``       ``err-seg mini tiles``: what windows gain on large images
``vocabulary_length.py``  ``err-seg mini vocabularies``: the same scenes with 100 to 10,000 names
========================  ==========================================================================
"""
