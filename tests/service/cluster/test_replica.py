"""A replica: what it reports to the ingress, and how it looks up the names that it is sent."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from service.cluster.replica import Replica
from service.domain.errors import Failure
from service.domain.prediction import Limits, Prediction
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.profiling.profiles import SIZE_CLASSES, Profile
from service.runtime.placement import LocalPlacement
from tests.cards import put
from tests.pictures import photo
from tests.profiles import Measured, latency, profile

GOOGLENET, BOX = "googlenet@imagenet1k", "googlenet@cifar10"


class Deployment:
    """A replica of googlenet over fake engines, without Ray."""

    def __init__(self, cache: Path, *profiles: Profile) -> None:
        self.broken: dict[str, Exception] = {}
        self.now = 500.0
        self.replica = Replica.__new__(Replica)
        self.replica._clock = time.monotonic
        self.replica._stop_tracing = lambda: None
        self.replica._unload_within_s = 30.0
        self.replica._catalogue = Catalogue(cache, variants=["googlenet"])
        self.replica._placement = LocalPlacement(
            self._load, Limits(), profiles=Measured(*profiles), clock=lambda: self.now
        )

    def _load(self, checkpoint: Checkpoint) -> Engine:
        if checkpoint.name in self.broken:
            raise self.broken[checkpoint.name]
        return FakeEngine(checkpoint)

    async def warm_up(self) -> None:
        rows = self.replica._catalogue.checkpoints()
        await self.replica._placement.warm_up([row for row in rows if row.state == "loadable"])


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    put(tmp_path, "googlenet", "imagenet1k")
    return Deployment(tmp_path)


async def test_a_checkpoint_that_failed_has_no_snapshot_until_the_next_attempt_is_due(deployment: Deployment) -> None:
    deployment.broken[GOOGLENET] = OSError(28, "full")
    await deployment.warm_up()
    report = await deployment.replica.report()
    assert (report.ready, report.nothing, report.loaded) == (True, None, {BOX})
    assert (set(report.snapshots), set(report.failures)) == ({BOX}, {GOOGLENET})
    assert report.failures[GOOGLENET].slug == "load-failed"
    deployment.now += 1.0
    report = await deployment.replica.report()
    assert (set(report.snapshots), set(report.failures)) == ({BOX, GOOGLENET}, {GOOGLENET})
    await deployment.replica._placement.close()


async def test_the_report_says_why_nothing_could_be_loaded(deployment: Deployment) -> None:
    deployment.broken = {name: WrongWeightsError("damaged") for name in (GOOGLENET, BOX)}
    report = await deployment.replica.report()
    assert (report.ready, report.nothing) == (False, None)
    await deployment.warm_up()
    report = await deployment.replica.report()
    assert report.nothing is not None
    assert (report.ready, report.nothing.slug, report.snapshots) == (False, "weights-damaged", {})
    await deployment.replica._placement.close()


async def test_a_file_that_was_removed_after_the_decision_is_missing_and_stays_in_memory(
    deployment: Deployment, tmp_path: Path
) -> None:
    await deployment.warm_up()
    soon = time.monotonic() + 30
    assert isinstance(await deployment.replica.predict(photo(), GOOGLENET, 30.0), Prediction)
    before = deployment.replica._placement.predictor(deployment.replica._catalogue.find(GOOGLENET))
    (tmp_path / "checkpoints" / f"{GOOGLENET}.safetensors").unlink()
    for outcome in (
        await deployment.replica.predict(photo(), GOOGLENET, 30.0),
        await deployment.replica.load(GOOGLENET),
        await deployment.replica.unload(GOOGLENET, True),
    ):
        assert isinstance(outcome, Failure)
        assert outcome.slug == "weights-missing"
    assert before.ready
    assert isinstance(await before.predict(photo(), soon), Prediction)
    await deployment.replica._placement.close()


async def test_a_report_has_measured_and_learned_decoding_times_by_size(tmp_path: Path) -> None:
    measured = profile(BOX, forward_ms=40).model_copy(
        update={"decode": {"thumbnail": latency(10), "medium": latency(37.5)}}
    )
    deployment = Deployment(tmp_path, measured)
    await deployment.warm_up()
    predictor = deployment.replica._placement.predictor(deployment.replica._catalogue.find(BOX))
    predictor._quiet.begin()
    for _ in range(200):
        predictor.forecast.learn_decode(100, 0.016)
    report = await deployment.replica.report()
    assert set(report.decode_s[BOX]) == set(report.profiled_decode_s[BOX]) == set(SIZE_CLASSES)
    assert report.decode_s[BOX]["thumbnail"] == pytest.approx(0.016, rel=0.01)
    assert report.profiled_decode_s[BOX]["thumbnail"] == 0.008
    assert report.decode_s[BOX]["medium"] == report.profiled_decode_s[BOX]["medium"] == 0.03
    assert report.profiled_decode_s[BOX]["huge"] == 0
    predictor._quiet.end()
    await deployment.replica._placement.close()
