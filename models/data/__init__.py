"""Data sets, for training and evaluation alike. Read in this order:

- ``listing.py``: a folder or ZIP file -> the picture files of each class; ``arrays.py``, ``mnist.py``: sets in arrays.
- ``sources.py``: all of these -> pictures by number, with their classes; ``ahead.py``: work on them by threads.
- ``errors.py``: what is wrong with a data set.

Only the splits that are asked for are opened, and no picture is decoded before it is asked for.
"""
