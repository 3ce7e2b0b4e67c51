"""The miniature world end to end: a tiny CLIP and a small ERR-Seg that train in minutes on a CPU.

==================  =========================================================================
``tokenizer.py``    a tokenizer of whole words
``clip.py``         the tiny CLIP that ``MODEL.CLIP.NAME: mini`` means
``pretraining.py``  its contrastive pre-training on captioned pictures of all sixty classes
``world.py``        data, training on the seen classes, evaluation on all
``figures.py``      mIoU of seen and unseen classes, the training-free baseline, times
``grid.py``         the picture grid
``report.py``       table and result file
==================  =========================================================================

The weights in this package, ``clip.safetensors`` and ``err_seg.safetensors`` (what lies outside CLIP), both fp16, are
made from nothing but drawn pictures; their metadata holds the settings. These commands make them anew::

    python tools/mini_world.py pretrain --package
    python tools/mini_world.py train --package     # or: all --seeds 0 1 2 --package
"""
