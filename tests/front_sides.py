"""A front's classifier, beside owners that say what a test wants."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from models.images.preprocess import PRESETS
from service.config.settings import Settings
from service.domain.classified import Classified
from service.domain.errors import Failure
from service.domain.query import Query
from service.fronts.classifier import FrontClassifier
from service.fronts.owners import Owners
from service.inference import decoders
from service.link.messages import (
    Answered,
    Described,
    Times,
)
from tests.fronting import RawOwner, raw_owner
from tests.pictures import photo, picture

MNIST = PRESETS["mnist"]
LENET = Described(0, "lenet5", "lenet5@mnist", "mnist", "a paper", True, 99.4)
TIMES = Times(0.1, 0.2, 0.3, 4)
BY_NAME = Query(model="lenet5")
SMALL, LARGE = picture(7), photo()


class Side:
    """A front's classifier."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.owners = Owners(folder)
        self.classifier = FrontClassifier(self.owners, Settings(**settings))

    def classify(
        self, data: bytes = SMALL, query: Query = BY_NAME, arrived: float | None = None, caller: str = ""
    ) -> asyncio.Task[Classified | Failure]:
        asking = self.classifier.begin(query, self.classifier.clock() if arrived is None else arrived, caller)
        return asyncio.create_task(asking.classify(data))

    @property
    def used(self) -> int:
        return 0 if self.owners.memory is None else self.owners.memory.used


@asynccontextmanager
async def side(folder: Path, **settings: Any) -> AsyncIterator[Side]:
    made = Side(folder, **settings)
    made.owners.begin()
    yield made
    assert made.used == 0, "slots are left in use"
    await made.owners.end()
    made.classifier.close()


@asynccontextmanager
async def pair(folder: Path, **settings: Any) -> AsyncIterator[tuple[Side, RawOwner]]:
    """A front, and an owner that says what a test wants."""
    async with raw_owner(folder / "0.sock") as owner, side(folder, **settings) as front:
        await asyncio.wait_for(front.owners.wait(), 10)
        yield front, owner


def answered(number: int, **fields: Any) -> Answered:
    return Answered(number, 0, [7, 8], [0.5, 0.25], TIMES, **fields)


class HeldDecoding:
    """Decoding in threads waits until the test opens it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began, self.open = threading.Event(), threading.Event()
        self.count = 0
        decode = decoders.decode

        def held(*arguments: Any) -> Any:
            self.count += 1
            self.began.set()
            assert self.open.wait(10)
            return decode(*arguments)

        monkeypatch.setattr(decoders, "decode", held)
