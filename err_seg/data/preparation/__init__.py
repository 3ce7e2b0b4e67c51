"""From the data sets' own archives to the files that training and evaluation read.

``sources`` holds the archives' layouts, ``conversions`` the declaration of each data set, with the rule for its labels;
``convert`` and ``check`` are the one runner and the one checker for all. ``annotations`` and ``own`` convert what
annotation programs write about one's own images.
"""
