"""Fronts decode on their cores, for what a decode costs."""

from __future__ import annotations

import asyncio
import random
from statistics import fmean

import pytest

from models.images.cost import RATES, Rate, price
from models.images.outline import Outline
from models.images.preprocess import PRESETS
from service.twin.front import SimulatedFront, SimulatedPicture
from service.twin.loop import VirtualLoop

PHOTOGRAPH = Outline("jpeg", 500, 375, 60_000, 281_250)
WARP = next(preset for preset in PRESETS.values() if preset.side > 200)
SECONDS = price(PHOTOGRAPH, WARP).seconds


def decoded(pictures: int, cores: int, **options: object) -> list[tuple[float, float]]:
    """Of each picture of one caller: when it is decoded, and how long it says that took."""
    loop = VirtualLoop()
    front = SimulatedFront(loop, cores, random.Random(1), **options)  # type: ignore[arg-type]

    async def main() -> list[tuple[float, float]]:
        began = loop.time()

        async def one() -> tuple[float, float]:
            found = await SimulatedPicture(front, PHOTOGRAPH, "somebody").decoded(WARP, 10**9)
            return loop.time() - began, found.decode_s

        return await asyncio.gather(*(one() for _ in range(pictures)))

    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_decode_takes_its_price() -> None:
    assert decoded(1, 1) == [(pytest.approx(SECONDS), pytest.approx(SECONDS))]


def test_as_many_decode_at_once_as_there_are_cores() -> None:
    ends = sorted(at for at, _ in decoded(6, 2))
    assert ends == pytest.approx([SECONDS, SECONDS, 2 * SECONDS, 2 * SECONDS, 3 * SECONDS, 3 * SECONDS])


def test_the_wait_for_a_core_is_part_of_what_decoding_took() -> None:
    assert sorted(took for _, took in decoded(3, 1)) == pytest.approx([SECONDS, 2 * SECONDS, 3 * SECONDS])


def test_another_machine_has_other_rates() -> None:
    slow = {kind: Rate(*(3 * number for number in rate)) for kind, rate in RATES.items()}
    assert decoded(1, 1, rates=slow)[0][0] == pytest.approx(3 * SECONDS)


def test_chance_changes_each_time_and_not_the_mean() -> None:
    took = [seconds for _, seconds in decoded(2000, 10_000, deviation=0.5)]
    assert len(set(took)) > 1900
    assert fmean(took) == pytest.approx(SECONDS, rel=0.05)


def test_a_picture_is_known_by_its_outline_alone() -> None:
    loop = VirtualLoop()
    picture = SimulatedPicture(SimulatedFront(loop, 1, random.Random(1)), PHOTOGRAPH, "somebody")
    assert len(picture) == 60_000
    assert picture.outline == PHOTOGRAPH
    assert picture.here(WARP) is None
    assert loop.run_until_complete(picture.file()) is None
    loop.close()


def test_a_slower_machine_takes_so_many_times_the_price() -> None:
    assert decoded(2, 2, slower=lambda: 1.5) == [(pytest.approx(1.5 * SECONDS),) * 2] * 2
