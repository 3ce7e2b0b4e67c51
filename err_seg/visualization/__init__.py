"""Everything that is drawn.

==============  =========================================================================
``colors.py``   one colour per class name
``text.py``     names as they are drawn: short, and in a font that has their characters
``legend.py``   coloured squares, names and shares of the area
``names.py``    class names, written on the regions of an image
``overlay.py``  labels laid over an image
``grid.py``     images side by side: sheets, and grids with headings and legends
``plots.py``    what figures drawn with Matplotlib share: heat maps, class names, files
``saving.py``   images to files
==============  =========================================================================
"""
