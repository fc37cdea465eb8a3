"""The near end of the hop, over handles that answer, fail, hang and come back."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from models.checkpoints import Catalogue
from service import remote
from service.errors import Failure, NotReadyError
from service.predictor import Prediction
from service.remote import RemotePlacement, RemotePredictor

LENET = Catalogue().find("lenet5")
GOOGLENET = Catalogue().find("googlenet@imagenet1k")
ANSWER = Prediction((1.0,), (3,), 1, 0.0, 0.0, 0.0)


class Handle:
    """As much of a Serve handle as is used. ``outcome`` is returned, raised, or awaited."""

    def __init__(self, outcome: Any = ANSWER, loaded: Any = ("lenet5@mnist",)) -> None:
        self.outcome, self.is_loaded, self.calls = outcome, loaded, []
        self.predict = SimpleNamespace(remote=self._predict)
        self.loaded = SimpleNamespace(remote=self._loaded)

    async def _predict(self, *arguments: Any) -> Any:
        self.calls.append(arguments)
        return await self._give(self.outcome)

    async def _loaded(self) -> Any:
        return await self._give(self.is_loaded)

    @staticmethod
    async def _give(what: Any) -> Any:
        if isinstance(what, Exception):
            raise what
        if what == "hang":
            await asyncio.sleep(60)
        return what


def soon() -> float:
    return time.monotonic() + 30


def near_end(handle: Handle) -> RemotePredictor:
    return RemotePredictor(LENET, handle)


async def test_bytes_name_and_the_time_left_cross() -> None:
    handle = Handle()
    assert await near_end(handle).predict(b"picture", soon()) == ANSWER
    ((image, name, remaining_s),) = handle.calls
    assert (image, name) == (b"picture", "lenet5@mnist")
    assert 0 < remaining_s <= 30


async def test_a_failure_comes_back_as_it_is() -> None:
    failure = Failure("undecodable", "text")
    assert await near_end(Handle(failure)).predict(b"", soon()) == failure


async def test_a_broken_hop_is_503_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    outcome = await near_end(Handle(RuntimeError("secret address"))).predict(b"", soon())
    assert isinstance(outcome, Failure)
    assert outcome.status == 503
    assert outcome.extras["retry_after_ms"] > 0
    assert "secret" not in outcome.detail + caplog.text


async def test_a_hop_that_hangs_is_504_at_the_deadline() -> None:
    outcome = await near_end(Handle("hang")).predict(b"", time.monotonic() + 0.05)
    assert isinstance(outcome, Failure)
    assert outcome.status == 504


async def watched(placement: RemotePlacement) -> None:
    """Lets the placement ask every deployment once."""
    task = asyncio.create_task(placement.watch())
    await asyncio.sleep(0.02)
    task.cancel()


def is_ready(placement: RemotePlacement) -> bool:
    try:
        placement.check_ready()
    except NotReadyError:
        return False
    return True


async def test_ready_once_every_deployment_has_loaded_and_then_as_long_as_one_is_up() -> None:
    lenet, googlenet = Handle(loaded=None), Handle(loaded=["googlenet@imagenet1k"])
    placement = RemotePlacement({"lenet5": lenet, "googlenet": googlenet}, stopping=lambda: False)
    await watched(placement)
    assert not is_ready(placement)
    assert (placement.resident(LENET), placement.resident(GOOGLENET)) == (False, True)
    lenet.is_loaded = ["lenet5@mnist"]
    await watched(placement)
    assert is_ready(placement)
    lenet.is_loaded = None
    await watched(placement)
    assert is_ready(placement)
    googlenet.is_loaded = None
    await watched(placement)
    assert not is_ready(placement)


@pytest.mark.parametrize("trouble", ["hang", RuntimeError("died")])
async def test_a_silence_is_no_death_until_there_are_several(trouble: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_ASK_WITHIN_S", 0.001)
    lenet = Handle()
    placement = RemotePlacement({"lenet5": lenet}, stopping=lambda: False)
    await watched(placement)
    lenet.is_loaded = trouble
    for silence in range(1, remote._SILENCES + 1):
        await placement._ask("lenet5", lenet)
        assert placement.resident(LENET) == (silence < remote._SILENCES)
        assert is_ready(placement) == (silence < remote._SILENCES)
    lenet.is_loaded = ["lenet5@mnist"]
    await placement._ask("lenet5", lenet)
    assert placement.resident(LENET)


async def test_stopping_is_not_ready() -> None:
    stopping = False
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: stopping)
    await watched(placement)
    assert is_ready(placement)
    stopping = True
    assert not is_ready(placement)


async def test_what_no_deployment_hosts_says_restart() -> None:
    placement = RemotePlacement({"lenet5": Handle()}, stopping=lambda: False)
    with pytest.raises(NotReadyError, match="restart"):
        placement.predictor(GOOGLENET)
