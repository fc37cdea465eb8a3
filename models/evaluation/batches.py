"""Pictures of a data set -> batches of crops, made ahead by threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.data.ahead import ahead
from models.data.arrays import Bytes, Numbers
from models.data.sources import UNREADABLE, Labelled
from models.evaluation.crops import Crops, Scheme, decoded_as, take
from models.images.preprocess import Preprocess


class View(NamedTuple):
    """The crops of a batch of pictures, as networks of one geometry see them."""

    crops: Bytes
    """(M, side, side, channels)."""
    weights: npt.NDArray[np.float32]
    """(M,): the share of each crop in the mean over its picture's crops."""
    owners: Numbers
    """(M,): the number, within the batch, of the picture that each crop is of."""


class Batch(NamedTuple):
    """The N readable pictures of a batch."""

    classes: Numbers
    """(N,)."""
    views: dict[Preprocess, View]
    """The crops by ``geometry``; empty if no picture is readable."""
    unreadable: dict[int, str]
    """The numbers of the unreadable pictures, with the reasons."""


def geometry(preprocess: Preprocess) -> Preprocess:
    """The part of a preprocessing that crops depend on. Networks that differ only in the rest share their crops."""
    same = replace(preprocess, scale=1.0, mean=(0.0,), std=(1.0,))
    return replace(same, colour="rgb") if preprocess.channels == 3 else same


def batches(
    pictures: Labelled,
    numbers: Numbers,
    seen_as: Sequence[Preprocess],
    scheme: Scheme,
    *,
    size: int,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Yields batches of some pictures of a split, in order.

    Args:
        pictures: the split.
        numbers: the numbers of the pictures.
        seen_as: the preprocessing of each network.
        scheme: which crops are taken.
        size: how many pictures a batch has.
        threads: the number of threads that decode; by default one per core.
    """
    geometries = list(dict.fromkeys(geometry(preprocess) for preprocess in seen_as))

    def crops(number: int) -> list[Crops]:
        return [take(pictures.source.open(number, decoded_as(each, scheme))[0], each, scheme) for each in geometries]

    def make(step: int) -> Batch:
        good, found, unreadable = [], [], {}
        for number in numbers[step * size : (step + 1) * size].tolist():
            try:
                found.append(crops(number))
                good.append(number)
            except UNREADABLE as error:
                unreadable[number] = " ".join(str(error).split())
        views = {each: _view([row[i] for row in found]) for i, each in enumerate(geometries)} if good else {}
        return Batch(pictures.classes[good], views, unreadable)

    return ahead(make, -(-len(numbers) // size), threads)


def _view(crops: list[Crops]) -> View:
    return View(
        np.concatenate([each.pixels for each in crops]),
        np.concatenate([each.weights for each in crops]),
        np.repeat(np.arange(len(crops)), [len(each.weights) for each in crops]),
    )
