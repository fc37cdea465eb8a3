"""Errors that end a training run, apart from DataError; their texts are for the person who started the run.

RecipeError     the state file is of another run, or the recipe cannot be followed
TrainingError   the run failed: the loss is not a number, or a file could not be written
"""

from __future__ import annotations


class RecipeError(ValueError):
    """The recipe cannot be followed here, or the state file was written by a run with another recipe."""


class TrainingError(RuntimeError):
    """The run cannot go on; the text says what has been saved and how to go on from there."""
