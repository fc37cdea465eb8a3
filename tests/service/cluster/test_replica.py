"""What a deployment reports to the ingress, and what it makes of names."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.checkpoints.catalogue import Catalogue, Checkpoint, WrongWeightsError
from service.cluster.replica import Host
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
    """A host of googlenet over fake engines, without its replica."""

    def __init__(self, cache: Path, *profiles: Profile) -> None:
        self.broken: dict[str, Exception] = {}
        self.now = 0.0
        self.host = Host.__new__(Host)
        self.host._stop_tracing = lambda: None
        self.host._unload_within_s = 30.0
        self.host._catalogue = Catalogue(cache, variants=["googlenet"])
        self.host._placement = LocalPlacement(
            self._load, Limits(), profiles=Measured(*profiles), clock=lambda: self.now
        )

    def _load(self, checkpoint: Checkpoint) -> Engine:
        if checkpoint.name in self.broken:
            raise self.broken[checkpoint.name]
        return FakeEngine(checkpoint)

    async def warm_up(self) -> None:
        rows = self.host._catalogue.checkpoints()
        await self.host._placement.warm_up([row for row in rows if row.state == "loadable"])


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    put(tmp_path, "googlenet", "imagenet1k")
    return Deployment(tmp_path)


async def test_what_failed_has_no_standing_until_the_next_try_is_due_and_says_why(deployment: Deployment) -> None:
    deployment.broken[GOOGLENET] = OSError(28, "full")
    await deployment.warm_up()
    report = await deployment.host.report()
    assert (report.ready, report.nothing, report.loaded) == (True, None, {BOX})
    assert (set(report.snapshots), set(report.failures)) == ({BOX}, {GOOGLENET})
    assert report.failures[GOOGLENET].slug == "load-failed"
    deployment.now = 1.0
    report = await deployment.host.report()
    assert (set(report.snapshots), set(report.failures)) == ({BOX, GOOGLENET}, {GOOGLENET})
    await deployment.host._placement.close()


async def test_where_nothing_could_be_loaded_the_report_says_so(deployment: Deployment) -> None:
    deployment.broken = {name: WrongWeightsError("damaged") for name in (GOOGLENET, BOX)}
    report = await deployment.host.report()
    assert (report.ready, report.nothing) == (False, None)
    await deployment.warm_up()
    report = await deployment.host.report()
    assert report.nothing is not None
    assert (report.ready, report.nothing.slug, report.snapshots) == (False, "weights-damaged", {})
    await deployment.host._placement.close()


async def test_a_file_that_has_gone_since_the_ingress_looked_is_missing_and_nothing_is_loaded_for_it(
    deployment: Deployment, tmp_path: Path
) -> None:
    await deployment.warm_up()
    soon = time.monotonic() + 30
    assert isinstance(await deployment.host.predict(photo(), GOOGLENET, 30.0), Prediction)
    before = deployment.host._placement.predictor(deployment.host._catalogue.find(GOOGLENET))
    (tmp_path / "checkpoints" / f"{GOOGLENET}.safetensors").unlink()
    for outcome in (
        await deployment.host.predict(photo(), GOOGLENET, 30.0),
        await deployment.host.load(GOOGLENET),
        await deployment.host.unload(GOOGLENET, True),
    ):
        assert isinstance(outcome, Failure)
        assert outcome.slug == "weights-missing"
    assert before.ready
    assert isinstance(await before.predict(photo(), soon), Prediction)
    await deployment.host._placement.close()


async def test_a_report_tells_decoding_by_size_as_it_was_measured_and_as_it_is_now(tmp_path: Path) -> None:
    measured = profile(BOX, forward_ms=40).model_copy(update={"decode": {"thumbnail": latency(10)}})
    deployment = Deployment(tmp_path, measured)
    await deployment.warm_up()
    predictor = deployment.host._placement.predictor(deployment.host._catalogue.find(BOX))
    predictor._quiet.begin()
    for _ in range(200):
        predictor.forecast.learn_decode(100, 0.016)
    report = await deployment.host.report()
    assert set(report.decode_s[BOX]) == set(report.profiled_decode_s[BOX]) == set(SIZE_CLASSES)
    assert report.decode_s[BOX]["thumbnail"] == pytest.approx(0.016, rel=0.01)
    assert report.profiled_decode_s[BOX]["thumbnail"] == 0.008
    assert report.profiled_decode_s[BOX]["huge"] == 0
    predictor._quiet.end()
    await deployment.host._placement.close()
