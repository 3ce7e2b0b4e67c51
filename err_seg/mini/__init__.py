"""The miniature world: an open-vocabulary data set that is drawn rather than downloaded, and tiny CLIPs that know it.

Sixty classes are named in words, "red star" or "pink dotted wall": 8 colours x 6 shapes of objects and 3 colours x 4
textures of walls. Segmentation training sees 24 of them. Of the 36 others, 20 are new combinations of words that it
has seen and 16 contain a word that it never meets ("purple", "ring", "dotted"), so that the two ways in which a
vocabulary is open can be measured separately. A tiny CLIP learns all the words from captioned crops, as the large one
does from the web.

Beyond the sixty, there are worlds of 100 to 11,712 names, "red star with blue dots", for vocabularies of any length.

Every image is a function of (seed, split, index): the same in any order and any process, and never the same in
two splits.

==================  =========================================================================
``vocabulary.py``   the classes, which of them are seen in training, and their prompts
``worlds.py``       these sixty classes, and worlds of 100 to 11,712 names
``shapes.py``       colours, shapes, textures
``canvas.py``       how objects and walls are painted
``dealing.py``      random numbers, and classes that are dealt like cards
``scenes.py``       images with label maps
``large.py``        the same at 1,000 pixels and more
``crops.py``        captioned images of single classes
``files.py``        scenes as a data set: "mini_world_train" and its like
``tokenizer.py``    a tokenizer of whole words
``clip.py``         the tiny CLIPs ``mini``, ``mini_vit``, ``mini_fastvit``, ``mini_large`` of ``MODEL.CLIP.NAME``
==================  =========================================================================

The weights in this package, ``clip.safetensors`` and its like for the other CLIPs and ``err_seg.safetensors`` (what
lies outside CLIP), all fp16, are made from nothing but drawn images; their metadata holds the settings.
:mod:`err_seg.lab.mini` makes them again::

    err-seg mini pretrain --package
    err-seg mini pretrain --config-file configs/mini/err_seg_vit.yaml --package
    err-seg mini pretrain --config-file configs/mini/err_seg_large.yaml --package
    err-seg mini train --package     # or: all --seeds 0 1 2 --package
"""
