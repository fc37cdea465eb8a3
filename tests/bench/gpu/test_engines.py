"""Engine loops: what is counted, that two batches are under way where the engine takes them, and what is printed."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bench.gpu.engines import loops, main
from models.checkpoints.catalogue import Catalogue
from service.engines import TopK
from service.engines.fake import FakeEngine

CHECKPOINT = Catalogue(untrained=True).find("googlenet")
CROPS = np.zeros((8, 2, 2, 3), np.uint8)


class Overlapping(FakeEngine):
    """Counts the batches that are under way."""

    under_way = most = submitted = collected = 0

    def submit(self, crops: npt.NDArray[np.uint8], whole: bool = False) -> Any:
        self.under_way += 1
        self.submitted += 1
        self.most = max(self.most, self.under_way)
        return crops

    def collect(self, batch: Any) -> TopK:
        self.under_way -= 1
        self.collected += 1
        return self.run(batch)


def test_the_rate_is_that_of_the_pictures_and_the_time_that_of_a_batch() -> None:
    engine = FakeEngine(CHECKPOINT, seconds=0.004)
    began = time.perf_counter()
    found = loops(engine, CROPS, 0.1)
    took = time.perf_counter() - began
    # A pass takes at least 4 ms, so that there are at most 250 of 8 pictures a second.
    assert found["ms"] >= 4
    passes = len(engine.batches) - 3 - 9
    assert passes >= 2
    assert 8 * passes / took <= found["per_second"] <= 8 * 250


def test_an_engine_that_overlaps_has_two_batches_under_way_and_answers_all() -> None:
    engine = Overlapping(CHECKPOINT, seconds=0.001)
    found = loops(engine, CROPS, 0.05)
    assert engine.most == 2
    assert engine.submitted == engine.collected > 2
    assert found["per_second"] > 0


def test_the_device_is_printed_then_a_row_for_each_loop(capsys: pytest.CaptureFixture[str]) -> None:
    main(["googlenet", "--pretend", "--seconds", "0.02", "--batches", "2", "4"])
    device, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert device == {"device": "pretended device", "torch": "not used"}
    keys = [(row["network"], row["precision"], row["batch"]) for row in rows]
    assert keys == [("googlenet", precision, batch) for precision in ("float32", "bfloat16") for batch in (2, 4)]
    assert all(row["per_second"] > 0 and row["ms"] > 0 for row in rows)
