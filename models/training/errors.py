"""Why a training run ends early, beside a data set that is wrong; the texts are for whoever started it.

RecipeError     the state file is of another run, or the recipe cannot be followed
TrainingError   the run failed: the loss is no number, or a file could not be written
"""

from __future__ import annotations


class RecipeError(ValueError):
    """The recipe cannot be followed here, or is not the one that the state file was made by."""


class TrainingError(RuntimeError):
    """The run cannot go on; the text says what is left of it, and how to go on from there."""
