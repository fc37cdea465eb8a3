"""A predictor of LeNet-5 over a fake engine."""

from __future__ import annotations

import threading
import time
from typing import Any

from models.checkpoints.catalogue import Catalogue, Checkpoint
from service.batching.slot import DeviceSlot
from service.domain.prediction import Limits
from service.engines import Engine
from service.engines.fake import FakeEngine
from service.inference.decoders import Decoders
from service.runtime.predictor import Predictor

LENET = Catalogue().find("lenet5@mnist")


def soon() -> float:
    return time.monotonic() + 60


def predictor(load: object = FakeEngine, limits: Limits | None = None, **options: Any) -> Predictor:
    return Predictor(LENET, load, DeviceSlot(), Decoders(2), limits or Limits(), **options)  # type: ignore[arg-type]


class Held:
    """Loads that end when the test lets them."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def load(self, checkpoint: Checkpoint) -> Engine:
        assert self.release.wait(5)
        return FakeEngine(checkpoint)
