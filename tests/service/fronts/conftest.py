"""What all tests of fronts have: owners are looked for often, and nothing is left after a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.fronts import owners
from tests.left_over import no_loop_errors, nothing_left
from tests.waiting import soon


@pytest.fixture(autouse=True)
async def all_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    with nothing_left(caplog), no_loop_errors():
        yield
        # This one runs the fixture.
        await soon(lambda: len(asyncio.all_tasks()) == 1)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_SOON_S", 0.005)
    monkeypatch.setattr(owners, "_LATER_S", 0.02)
