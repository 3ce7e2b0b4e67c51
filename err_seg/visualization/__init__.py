"""Everything that is drawn, and labels and regions as data for other programs.

================  =======================================================================
``colors``        one colour per class name
``text``          names as they are drawn: short, and in a font that has their characters
``legend``        coloured squares, names and shares of the area
``region_names``  class names, written on the regions of an image
``overlay``       labels laid over an image
``grid``          images side by side: sheets, and grids with headings and legends
``plots``         what figures drawn with Matplotlib share
``regions``       the connected parts of a label map, as GeoJSON and COCO
``label_files``   label maps as PNG, segments as run-length JSON
================  =======================================================================
"""
