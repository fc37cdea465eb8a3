"""What a deployment reports to the ingress."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.checkpoints import Catalogue
from service.engines.fake import FakeEngine
from service.fleet import Deployment
from service.host import Host
from service.placement import LocalPlacement
from service.prediction import Limits
from service.profiles import SIZE_CLASSES
from service.settings import Settings
from tests.profiles import Measured, latency, profile

LENET = Catalogue().find("lenet5@mnist")


async def test_a_report_tells_decoding_by_size_as_it_was_measured_and_as_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = profile(forward_ms=40).model_copy(update={"decode": {"thumbnail": latency(8)}})
    placement = LocalPlacement(FakeEngine, Limits(), profiles=Measured(measured))
    monkeypatch.setattr("service.local.local_placement", lambda *_: placement)
    monkeypatch.setattr("service.host.configure_logging", lambda _format: None)
    host = Host(Settings(cache_dir=tmp_path), Deployment(variants=["lenet5"]))
    await host._warming
    predictor = placement.predictor(LENET)
    predictor._quiet.begin()
    for _ in range(200):
        predictor.forecast.learn_decode(100, 0.016)
    report = await host.report()
    assert set(report.decode_s[LENET.name]) == set(report.profiled_decode_s[LENET.name]) == set(SIZE_CLASSES)
    assert report.decode_s[LENET.name]["thumbnail"] == pytest.approx(0.016, rel=0.01)
    assert report.profiled_decode_s[LENET.name]["thumbnail"] == 0.008
    assert report.profiled_decode_s[LENET.name]["huge"] == 0
    predictor._quiet.end()
    await placement.close()
