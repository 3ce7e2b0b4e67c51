"""The miniature world: a synthetic open-vocabulary data set that is drawn, not downloaded, and tiny CLIPs for it.

Its sixty classes have names such as "red star" or "pink dotted wall": 8 colours x 6 shapes of objects and 3 colours x 4
textures of walls. Segmentation training sees 24 of them. Of the 36 others, 20 are new combinations of words that occur
in training and 16 contain a word that never does ("purple", "ring", "dotted"), so that the two ways in which a
vocabulary is open can be measured separately. A tiny CLIP learns all the words from captioned crops, as a large one
does from the web.

Every image is a function of (seed, split, index): the same in any order and any process, and never the same in
two splits. The data sets are "mini_world_train" and its like (:mod:`err_seg.mini.files`), the CLIPs ``mini``,
``mini_vit``, ``mini_fastvit`` and ``mini_large`` of ``MODEL.CLIP.NAME`` (:mod:`err_seg.mini.clip`).

The weights in this package, ``clip.safetensors`` and its like for the other CLIPs and ``err_seg.safetensors`` (the
rest of the network), all fp16, come from drawn images alone; their metadata holds the settings. These commands make
them again::

    err-seg mini pretrain --package
    err-seg mini pretrain --config-file configs/mini/err_seg_vit.yaml --package
    err-seg mini pretrain --config-file configs/mini/err_seg_large.yaml --package
    err-seg mini train --package     # or: all --seeds 0 1 2 --package
"""
