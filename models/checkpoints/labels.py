"""Label sets: the classes that checkpoints answer with."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import NamedTuple

LABEL_SETS = ("imagenet1k", "cifar10", "mnist")


class Label(NamedTuple):
    """One class: the word in answers, and its WordNet id if the set has such ids."""

    word: str
    wordnet_id: str | None = None


@cache
def labels(name: str) -> tuple[Label, ...]:
    """The classes of a label set in the order of their numbers.

    Raises:
        ValueError: no label set has that name; the text lists them.
    """
    if name not in LABEL_SETS:
        raise ValueError(f"unknown label set {name!r}; known: {', '.join(LABEL_SETS)}")
    text = (resources.files("weights.labels") / f"{name}.txt").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Label(row[-1], row[0] if len(row) > 1 else None) for row in rows)
