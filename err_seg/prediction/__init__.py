"""ERR-Seg as people use it: a model that labels images of any kind with any class names.

====================  ========================================================================================
``model.py``          ``ERRSeg``: the network with its vocabulary and pixel statistics, ``predict``
``stream.py``         images read ahead and in batches, and their results
``class_maps.py``     the numbers of a result: K maps and their class indices
``segmentation.py``   ``Segmentation``: those, as pictures, files, regions, and for other programs
``tiles.py``          large images: overlapping windows with the same K classes, blended
``refine.py``         borders that follow the edges of the image, by a guided filter
``smoothing.py``      videos: each frame averaged with those around it
``attention.py``      what ESCF attends to (paper, Fig. 2)
``kept_classes.py``   which classes CRM kept, and why
====================  ========================================================================================
"""
