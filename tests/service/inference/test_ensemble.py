"""Ensembles: members are asked at the same time, their distributions averaged, and one failure fails all."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.cluster.remote import RemotePlacement
from service.cluster.replica import Replica
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.inference.ensemble import Average, Averaging, Member, average, predictor
from service.routing.lookup import find
from service.runtime.placement import LocalPlacement
from tests.pictures import photo, picture
from tests.profiles import Measured, profile

CATALOGUE = Catalogue(untrained=True)


def prediction(distribution: Any, batch_size: int = 1, seconds: float = 0.0) -> Prediction:
    """A prediction without top classes of its own, which an average must not use."""
    return Prediction((), (), batch_size, seconds, seconds, seconds, np.asarray(distribution, np.float32).tobytes())


@given(st.integers(2, 4), st.sampled_from([2, 10, 1000]), st.integers(0, 2**32 - 1))
def test_the_average_is_the_mean_over_all_classes(count: int, classes: int, seed: int) -> None:
    distributions = np.random.default_rng(seed).dirichlet(np.ones(classes), count).astype(np.float32)
    found = average([Member(prediction(row), 0.0) for row in distributions])
    expected = [sum(float(row[index]) for row in distributions) / count for index in range(classes)]
    best = sorted(range(classes), key=lambda index: (-expected[index], index))[:10]
    assert list(found.indices) == best
    assert found.probabilities == pytest.approx([expected[index] for index in best], rel=1e-9)


def test_times_are_those_of_the_slowest_member_and_the_batch_is_the_smallest() -> None:
    quick, slow = Member(prediction([1, 0], 5, 0.1), 0.3), Member(prediction([0, 1], 7, 0.2), 0.6)
    found = average([slow, quick])
    assert (found.decode_s, found.queue_s, found.forward_s, found.batch_size) == (0.2, 0.2, 0.2, 5)
    assert found.members == (slow, quick)
    assert found.indices == (0, 1)  # ties: the lower number first


class Scripted:
    """A predictor that answers, fails or waits."""

    def __init__(self, outcome: object = None) -> None:
        self.outcome, self.asked, self.gone = outcome, asyncio.Event(), False

    async def predict(
        self, image: bytes, deadline: float, whole: bool = False, caller: str = ""
    ) -> Prediction | Failure:
        assert whole
        self.asked.set()
        try:
            if self.outcome is None:
                await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.gone = True
            raise
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert isinstance(self.outcome, Prediction | Failure)
        return self.outcome


async def test_members_are_asked_at_the_same_time() -> None:
    waiting = [Scripted(), Scripted()]
    task = asyncio.create_task(Averaging(waiting).predict(b"", 0.0))
    async with asyncio.timeout(10):
        for member in waiting:
            await member.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # A caller who leaves ends the members' work too.
    assert all(member.gone for member in waiting)


@pytest.mark.parametrize("order", [1, -1])
async def test_the_first_failure_of_a_member_is_returned_without_waiting_for_the_others(order: int) -> None:
    failure, waits = Failure("undecodable", "text"), Scripted()
    members = [Scripted(prediction([1, 0])), Scripted(failure), waits][::order]
    async with asyncio.timeout(10):
        assert await Averaging(members).predict(b"", 0.0) == failure
    assert waits.gone


async def test_of_several_refusals_the_longest_retry_after_is_returned() -> None:
    refusals = [Failure("overloaded", "full", {"retry_after_ms": ms}) for ms in (100.0, 900.0, 300.0)]
    assert await Averaging([Scripted(refusal) for refusal in refusals]).predict(b"", 0.0) == refusals[1]


async def test_each_members_time_is_counted_from_the_moment_in_which_all_were_asked() -> None:
    now = 100.0

    class Takes:
        def __init__(self, until: float) -> None:
            self.until = until

        async def predict(
            self, _image: bytes, _deadline: float, _whole: bool = False, caller: str = ""
        ) -> Prediction | Failure:
            nonlocal now
            await asyncio.sleep(0)
            now = self.until
            return prediction([1, 0])

    found = await Averaging([Takes(101.0), Takes(104.0)], lambda: now).predict(b"", 0.0)
    assert isinstance(found, Average)
    assert [member.total_s for member in found.members] == [1.0, 4.0]


async def test_a_defect_is_raised_and_not_averaged_away() -> None:
    with pytest.raises(AttributeError, match="a defect"):
        await Averaging([Scripted(AttributeError("a defect")), Scripted()]).predict(b"", 0.0)


# Over real predictors.


class Placed:
    """GoogLeNet and BN-Inception over fake engines, with room for so many megabytes, of which each needs 10."""

    def __init__(self, limit_mb: float = 1e6, limits: Limits | None = None, seconds: float = 0.0) -> None:
        self.engines: dict[str, FakeEngine] = {}
        self.loads: list[str] = []
        self._seconds = seconds
        self.ensemble = find(CATALOGUE, "ensemble:googlenet,inception_v2")
        names = ("googlenet@untrained", "inception_v2@untrained")
        self.placement = LocalPlacement(
            self._load,
            limits or Limits(),
            memory_limit_bytes=min(sys.maxsize, round(limit_mb * 1e6)),
            profiles=Measured(*(profile(name, footprint_mb=10) for name in names)),
        )

    def _load(self, checkpoint: Checkpoint) -> Engine:
        self.loads.append(checkpoint.variant.name)
        engine = self.engines[checkpoint.variant.name] = FakeEngine(checkpoint, self._seconds)
        return engine

    async def ready(self) -> None:
        await self.placement.warm_up([CATALOGUE.find(name) for name in ("googlenet", "inception_v2")])

    async def ask(self, image: bytes = b"", within_s: float = 60.0) -> Prediction | Failure:
        serving = predictor(self.placement, self.ensemble)
        return await serving.predict(image or photo(), time.monotonic() + within_s)


async def test_each_member_has_batches_of_its_own() -> None:
    placed = Placed(seconds=0.02)
    await placed.ready()
    outcomes = await asyncio.gather(*(placed.ask(picture(5)) for _ in range(12)))
    for outcome in outcomes:
        assert isinstance(outcome, Average)
        assert outcome.indices[0] == 5
        assert outcome.probabilities[0] == pytest.approx(0.5)
    for engine in placed.engines.values():
        assert sum(engine.batches) == 12
        assert max(engine.batches) > 1
    await placed.placement.close()


async def test_members_that_do_not_fit_together_are_loaded_in_turn() -> None:
    """Each member waits for its own memory; if it held the other's meanwhile, the requests would deadlock."""
    placed = Placed(limit_mb=15)
    await placed.ready()
    async with asyncio.timeout(30):
        for _ in range(3):
            outcomes = await asyncio.gather(*(placed.ask(picture(5)) for _ in range(6)))
            assert [isinstance(outcome, Average) for outcome in outcomes] == [True] * 6
    assert {first != second for first, second in zip(placed.loads, placed.loads[1:], strict=False)} == {True}
    assert placed.placement.memory()[0].held == 10_000_000
    await placed.placement.close()


async def test_a_member_that_can_never_fit_into_memory_fails_the_picture() -> None:
    placed = Placed(limit_mb=5)
    await placed.ready()
    outcome = await placed.ask(picture())
    assert isinstance(outcome, Failure)
    assert outcome.slug == "out-of-memory"
    await placed.placement.close()


@pytest.mark.parametrize(
    ("image", "within_s", "slug"), [(b"text", 60.0, "undecodable"), (picture(), -1.0, "deadline-missed")]
)
async def test_bad_and_late_pictures_fail_as_they_do_with_one_network(image: bytes, within_s: float, slug: str) -> None:
    placed = Placed()
    outcome = await placed.ask(image, within_s)
    assert isinstance(outcome, Failure)
    assert outcome.slug == slug
    await placed.placement.close()


async def test_a_refusal_of_one_member_removes_the_picture_from_the_others_queue() -> None:
    placed = Placed(limits=Limits(max_batch_size=1, max_queue=2))
    await placed.ready()
    googlenet, began, release = placed.engines["googlenet"], threading.Event(), threading.Event()
    run = googlenet.run

    def held(*batch: Any) -> Any:
        began.set()
        assert release.wait(30)
        return run(*batch)

    googlenet.run = held  # type: ignore[method-assign]
    serving = placed.placement.predictor(CATALOGUE.find("googlenet"))
    alone = [asyncio.create_task(serving.predict(picture(), time.monotonic() + 60))]
    assert await asyncio.to_thread(began.wait, 30)
    alone += [asyncio.create_task(serving.predict(picture(), time.monotonic() + 60)) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await placed.ask(picture())
    assert isinstance(refused, Failure)
    assert refused.slug == "overloaded"
    assert refused.extras["retry_after_ms"] > 0
    assert placed.placement.predictor(CATALOGUE.find("inception_v2")).queued == 0
    release.set()
    assert all(isinstance(outcome, Prediction) for outcome in await asyncio.gather(*alone))
    await placed.placement.close()


# Across processes.


class Crossing:
    """A Serve handle of a replica: everything is pickled on its way there and back."""

    def __init__(self, replica: Replica) -> None:
        self.predict = SimpleNamespace(remote=self._predict)
        self.sizes: list[int] = []
        self._replica = replica

    async def _predict(self, *arguments: Any) -> Any:
        crossed = pickle.dumps(await self._replica.predict(*pickle.loads(pickle.dumps(arguments))))
        self.sizes.append(len(crossed))
        return pickle.loads(crossed)


async def test_distributions_cross_processes_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = Placed()
    monkeypatch.setattr("service.assembly.local.local_placement", lambda *_: placed.placement)
    monkeypatch.setattr("service.cluster.replica.configure_logging", lambda _format: None)
    names = ["googlenet", "inception_v2"]
    handle = Crossing(Replica(Settings(cache_dir=tmp_path, untrained=True), Deployment(variants=names)))
    remote = RemotePlacement(dict.fromkeys(names, handle), stopping=lambda: False)
    alone = await remote.predictor(placed.ensemble.members[0]).predict(photo(), time.monotonic() + 60)
    over = await predictor(remote, placed.ensemble).predict(photo(), time.monotonic() + 60)
    here = await placed.ask()
    assert isinstance(alone, Prediction)
    assert isinstance(over, Average)
    assert isinstance(here, Average)
    assert (over.indices, over.probabilities) == (here.indices, here.probabilities)
    # A thousand numbers of four bytes; a request that did not ask for them gets none.
    plain, *whole = handle.sizes
    assert alone.distribution is None
    assert all(4000 < size - plain < 4050 for size in whole)
    await placed.placement.close()
