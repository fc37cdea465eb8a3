"""Data sets, for training and evaluation alike. Files in reading order:

- ``errors.py``: the error raised for an invalid data set.
- ``listing.py``: a folder or ZIP file -> the picture files of each class.
- ``arrays.py``, ``mnist.py``, ``cifar10.py``: data sets that are kept in arrays.
- ``sources.py``: any of these -> pictures by number, with their classes.
- ``ahead.py``: threads that work ahead of a loop.

Only the splits that are asked for are opened, and no picture file is read before its picture is asked for.
"""
