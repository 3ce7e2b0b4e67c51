"""ERR-Seg as people use it: a model that labels images of any kind with any class names.

====================  ========================================================================================
``model.py``          ``ERRSeg``: the network with its vocabulary and pixel statistics, ``predict``
``request.py``        one call of ``predict``: what it asks for, and its images, read ahead and in batches
``segmentation.py``   the compact result: K maps and their class indices
``result_io.py``      what a result can do: overlays of itself, files, regions, other programs
``tiles.py``          large images: overlapping windows with the same K classes, blended
``refine.py``         borders that follow the edges of the image, by a guided filter
``smoothing.py``      videos: each frame averaged with those around it
``attention.py``      what ESCF attends to (paper, Fig. 2)
``kept_classes.py``   which classes CRM kept, and why
====================  ========================================================================================
"""
