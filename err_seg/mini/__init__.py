"""The miniature world end to end: tiny CLIPs and a small ERR-Seg that train in minutes on a CPU.

==================  =========================================================================
``tokenizer.py``    a tokenizer of whole words
``clip.py``         the tiny CLIPs ``mini`` (ConvNeXt) and ``mini_vit`` (ViT) of ``MODEL.CLIP.NAME``
``pretraining.py``  their contrastive pre-training on captioned pictures of all sixty classes
``world.py``        data, training on the seen classes, evaluation on all
``figures.py``      mIoU of seen and unseen classes, the training-free baseline, times
``grid.py``         the picture grid
``report.py``       table and result file
``steps.py``        the steps of the command ``err-seg mini``
``sheets.py``       sheets of the scenes and classes
==================  =========================================================================

The weights in this package, ``clip.safetensors``, ``clip_vit.safetensors`` and ``err_seg.safetensors`` (what lies
outside CLIP), all fp16, are made from nothing but drawn pictures; their metadata holds the settings. They are made anew
by::

    err-seg mini pretrain --package
    err-seg mini pretrain --config-file configs/mini/err_seg_vit.yaml --package
    err-seg mini train --package     # or: all --seeds 0 1 2 --package
"""
