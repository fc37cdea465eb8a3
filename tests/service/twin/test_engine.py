"""A simulated device takes what its profile says, and answers nothing new."""

from __future__ import annotations

import random

import numpy as np
import pytest

from models.checkpoints.catalogue import Catalogue
from service.engines import Engine, OverlappingEngine
from service.twin.engine import SimulatedEngine, load
from service.twin.loop import VirtualLoop
from tests.twins import in_batches, network

ALEXNET = Catalogue(untrained=True).find("alexnet")


def engine(loop: VirtualLoop, **options: float) -> SimulatedEngine:
    profile = in_batches("alexnet", {1: 10.0, 2: 15.0, 4: 25.0}, **options)
    return SimulatedEngine(ALEXNET, profile, loop, random.Random(1), 4, spread=False)


def test_a_pass_takes_what_the_profile_says_for_its_size() -> None:
    loop = VirtualLoop()
    made, began = engine(loop), loop.time()
    for size in (1, 2, 4):
        assert made.run(np.zeros((size, 1, 1, 1), np.uint8)).indices.shape == (size, 10)
    assert loop.time() - began == pytest.approx(0.010 + 0.015 + 0.025)
    loop.close()


def test_it_is_an_engine_that_overlaps_nothing() -> None:
    loop = VirtualLoop()
    made: Engine = engine(loop)
    assert not isinstance(made, OverlappingEngine)
    assert made.bytes_held == 4 * ALEXNET.costs.params
    made.warm_up(4)
    made.close()
    loop.close()


@pytest.mark.parametrize(("threads", "any_thread"), [(2, True), (0, False)])
def test_as_on_a_gpu_or_a_cpu_passes_belong_to_a_thread_or_do_not(threads: int, any_thread: bool) -> None:
    loop = VirtualLoop()
    profile = network("alexnet", 1.0, threads=threads)
    assert SimulatedEngine(ALEXNET, profile, loop, random.Random(1), 1).any_thread is any_thread
    loop.close()


def test_a_load_takes_its_time() -> None:
    loop = VirtualLoop()
    began = loop.time()
    load(network("alexnet", 1.0, load_ms=700), loop)
    assert loop.time() - began == pytest.approx(0.7)
    loop.close()


def test_a_slower_device_takes_so_many_times_as_long() -> None:
    loop = VirtualLoop()
    profile = network("alexnet", 10.0, load_ms=300.0)
    slow, began = (
        SimulatedEngine(ALEXNET, profile, loop, random.Random(1), 1, spread=False, slower=lambda: 1.5),
        loop.time(),
    )
    slow.run(np.zeros((1, 1, 1, 1), np.uint8))
    assert loop.time() - began == pytest.approx(0.015)
    load(profile, loop, 2.0)
    assert loop.time() - began == pytest.approx(0.615)
    loop.close()
