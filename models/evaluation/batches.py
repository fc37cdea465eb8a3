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
    """The crops of a batch of pictures, in the eyes of some of the networks."""

    crops: Bytes
    """(M, side, side, channels)."""
    weights: npt.NDArray[np.float32]
    """(M,), in the mean over a picture's crops."""
    owners: Numbers
    """(M,): which picture of the batch each is of."""


class Batch(NamedTuple):
    """N pictures that could be decoded."""

    classes: Numbers
    """(N,)."""
    views: dict[Preprocess, View]
    """By ``geometry``."""
    unreadable: dict[int, str]
    """Why others could not, by their numbers."""


def geometry(preprocess: Preprocess) -> Preprocess:
    """As much of a preprocessing as crops depend on: networks that differ in the rest share their crops."""
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
    """Some pictures of a split, in order.

    Args:
        pictures: the split.
        numbers: which pictures of it.
        seen_as: the preprocessing of each network.
        scheme: which crops are taken.
        size: pictures in a batch.
        threads: that decode; by default one a core.
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
