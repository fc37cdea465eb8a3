"""The pretend device: it takes its time, holds memory, and is never taken for a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines import DeviceError, pretend
from service.engines.fake import FakeEngine
from service.engines.loader import engine_loader
from service.engines.pretend import PretendEngine

UNTRAINED = Catalogue(untrained=True)
LENET = UNTRAINED.find("lenet5")


def test_a_batch_takes_a_fifth_of_a_millisecond_for_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(pretend.time, "sleep", slept.append)
    engine = PretendEngine(LENET)
    engine.run(np.zeros((1, 32, 32, 1), np.uint8))
    assert sum(slept) == pytest.approx(0.0002)
    engine.run(np.zeros((16, 32, 32, 1), np.uint8))
    assert sum(slept) == pytest.approx(17 * 0.0002)


def test_it_answers_as_the_fake_engine_does_and_remembers_no_batches() -> None:
    crops = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 1), np.uint8)
    engine, fake = PretendEngine(LENET), FakeEngine(LENET)
    for whole in (False, True):
        for found, due in zip(engine.run(crops, whole), fake.run(crops, whole), strict=True):
            assert np.array_equal(found, due)
    assert engine.batches == []


def test_it_holds_the_memory_that_it_says_until_it_is_closed() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    engine = PretendEngine(UNTRAINED.find("alexnet"))
    held = process.memory_info().rss - before
    assert held == pytest.approx(engine.bytes_held, rel=0.1)
    engine.close()
    assert process.memory_info().rss - before < 0.1 * engine.bytes_held


def test_it_does_not_answer_for_trained_weights(tmp_path: Path) -> None:
    trained = Catalogue().find("lenet5@mnist")
    loader = engine_loader(device="cpu", engine="pretend", precision="float32", threads=1, cache_dir=tmp_path)
    for load in (PretendEngine, loader, loader.prepare):
        with pytest.raises(DeviceError, match="does not answer for lenet5@mnist: --untrained"):
            load(trained)
    loader.prepare(LENET)
    assert isinstance(loader(LENET), PretendEngine)
