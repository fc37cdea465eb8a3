"""Forward passes as the batcher wants them: whole distributions for those who ask, and fetched for nobody else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines import TopK
from service.engines.fake import FakeEngine
from service.runtime.forward import Ask, Passes, Top

LENET = Catalogue().find("lenet5")


class Overlapping(FakeEngine):
    """Says what it was asked for."""

    def submit(self, crops: Any, whole: bool = False) -> Any:
        return self.run(crops, whole)

    def collect(self, batch: Any) -> TopK:
        assert isinstance(batch, TopK)
        return batch

    def run(self, crops: Any, whole: bool = False) -> TopK:
        self.asked_whole = whole
        return super().run(crops, whole)


def asks(**whole: bool) -> list[Ask]:
    """Pictures whose classes are 0, 1, 2 ..."""
    return [Ask(np.full((32, 32, 1), number, np.uint8), wanted) for number, wanted in enumerate(whole.values())]


@pytest.mark.parametrize("begun", [False, True])
def test_only_a_batch_with_one_that_wants_it_fetches_the_whole_and_only_that_one_gets_it(begun: bool) -> None:
    engine, passes = Overlapping(LENET), Passes()
    passes.use(engine)

    def run(batch: list[Ask]) -> list[Top]:
        begin = passes.beginning()
        assert begin is not None
        return begin(batch)() if begun else passes.run(batch)

    assert [top[2] for top in run(asks(a=False, b=False))] == [None, None]
    assert not engine.asked_whole
    plain, whole, other = run(asks(a=False, b=True, c=True))
    assert engine.asked_whole
    assert plain[2] is None
    for top, first in ((whole, 1), (other, 2)):
        assert top[2] is not None
        distribution = np.frombuffer(top[2], np.float32)
        assert distribution.shape == (10,)
        assert (distribution[list(top[1])] == np.float32(top[0])).all()
        assert top[1][0] == first
