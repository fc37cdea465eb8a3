"""The fake engine: answers that follow from the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines.fake import FakeEngine

UNTRAINED = Catalogue(untrained=True)


def _crops(*brightest: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    crops = np.zeros((len(brightest), 32, 32, 1), np.uint8)
    crops[:, 20, 20, 0] = brightest
    return crops


def test_the_brightest_byte_decides() -> None:
    engine = FakeEngine(UNTRAINED.find("lenet5"))
    top = engine.run(_crops(7, 23))
    assert top.indices.tolist() == [[7, 8, 9, 0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]]
    assert top.probabilities.tolist() == [[2.0**-n for n in range(1, 11)]] * 2
    assert top.distributions is None
    assert engine.batches == [2]


def test_of_many_classes_ten_are_probable() -> None:
    top = FakeEngine(UNTRAINED.find("googlenet")).run(_crops(250), whole=True)
    assert top.indices.tolist() == [list(range(250, 260))]
    assert top.distributions is not None
    assert top.distributions.shape == (1, 1000)
    assert top.distributions[0, 250:260].tolist() == top.probabilities[0].tolist()
    assert np.count_nonzero(top.distributions) == 10


def test_a_poisoned_picture_fails_its_batch() -> None:
    engine = FakeEngine(UNTRAINED.find("lenet5"), poison=9)
    crops = _crops(1, 2, 3)
    engine.run(crops)
    crops[1, 0, 0, 0] = 9
    with pytest.raises(RuntimeError, match="poisoned"):
        engine.run(crops)


def test_its_bytes_are_the_parameters() -> None:
    assert FakeEngine(UNTRAINED.find("lenet5")).bytes_held == 4 * 60_850
