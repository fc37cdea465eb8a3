"""Why a training run ends early; the texts are for whoever started it.

DataError       the data set is missing, damaged, or not of these classes
RecipeError     the state file is of another run, or the recipe cannot be followed
TrainingError   the run failed: the loss is no number, or a file could not be written
"""

from __future__ import annotations


class DataError(ValueError):
    """The data set is missing or damaged; the text says which file and why."""


class RecipeError(ValueError):
    """The recipe cannot be followed here, or is not the one that the state file was made by."""


class TrainingError(RuntimeError):
    """The run cannot go on; the text says what is left of it, and how to go on from there."""
