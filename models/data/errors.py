"""What is wrong with a data set; the text is for whoever brought it."""

from __future__ import annotations


class DataError(ValueError):
    """The data set is missing, damaged, or not of these classes; the text says which file and why."""
