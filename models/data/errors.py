"""Errors of data sets; their texts are for the person who brought the data."""

from __future__ import annotations


class DataError(ValueError):
    """The data set is missing, damaged, or of other classes; the text says which file and why."""


class MissingTorchvisionError(DataError):
    """This needs torchvision, which serving does without and which is not installed here."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} torchvision, which is not installed: pip install -e '.[train]'")
