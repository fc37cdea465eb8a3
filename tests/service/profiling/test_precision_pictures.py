"""The pictures on which precisions are compared: the same on each call, each different, for every network."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from models.images.preprocess import PRESETS, Preprocess
from service.profiling.precision_pictures import COUNT, pictures

COLOURED, GREY = PRESETS["half-224"], PRESETS["mnist"]


@pytest.mark.parametrize("preprocess", [COLOURED, GREY], ids=["coloured", "grey"])
def test_there_are_different_pictures_and_always_the_same(preprocess: Preprocess) -> None:
    found = pictures(preprocess, 24)
    side, channels = preprocess.side, preprocess.channels
    assert (found.shape, found.dtype) == ((24, side, side, channels), np.uint8)
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in found}) == 24
    np.testing.assert_array_equal(found, pictures(preprocess, 24))
    # More of them begin with the same ones.
    np.testing.assert_array_equal(found[:8], pictures(preprocess, 8))


def test_coloured_pictures_differ_in_light_contrast_and_detail() -> None:
    found = pictures(COLOURED, 64).astype(np.float32)
    means, contrasts = found.mean((1, 2, 3)), found.std((1, 2, 3))
    assert means.min() < 90 < 170 < means.max()
    assert contrasts.min() < 25 < 60 < contrasts.max()
    # Of each kind: blobs, gratings, shapes, and all at once.
    edges = np.abs(np.diff(found, axis=1)).mean((1, 2, 3)).reshape(16, 4).mean(0)
    assert len(set(edges.round(3))) == 4
    assert min(found[number].std(2).max() for number in range(64)) > 5, "a picture is grey"


def test_strokes_are_white_on_black() -> None:
    found = pictures(GREY, 64)
    share = (found > 128).mean((1, 2, 3))
    assert (found == 0).mean((1, 2, 3)).min() > 0.3
    assert 0.005 < share.min() < share.max() < 0.6


def test_there_are_enough_to_tell_half_a_percent() -> None:
    """Two of them may differ."""
    assert 2 / COUNT < 0.005 < 3 / COUNT
