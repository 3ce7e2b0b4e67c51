"""Results for other programs, each in one file that imports the program when it is used.

==================  =======================================================================
``supervision.py``  ``Detections`` of a result
``fiftyone.py``     ``Segmentation`` of a result, and a model for ``dataset.apply_model``
==================  =======================================================================
"""
