"""One process, put together from the rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.assembly import local_placement
from service.config.fleet import Deployment
from service.config.settings import Settings
from service.engines.buckets import Buckets
from service.telemetry.metrics import REGISTRY


async def test_halved_batches_are_counted_in_the_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placement = local_placement(Settings(cache_dir=tmp_path, device="cpu"), Deployment(variants=["lenet5"]))
    monkeypatch.setattr(Buckets, "halvings", 7)
    assert REGISTRY.get_sample_value("topfive_oom_splits_total") == 7
    await placement.close()
