"""Whatever is drawn, in one place.

==============  =======================================================================
``colors.py``   one colour a class name
``legend.py``   squares, names in any script and shares of the area below a picture
``overlay.py``  labels laid over a picture
``grid.py``     rows of pictures under headings
==============  =======================================================================
"""
