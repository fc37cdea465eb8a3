"""The assembly of a front: what the settings become, and its start and stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.assembly import front
from service.assembly.front import front_app
from service.config.settings import Settings


class Parts:
    """Stand-ins for the owners and the classifier, which remember their arguments and write a common log."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.made: dict[str, tuple[Any, ...]] = {}
        self.cores = 8
        monkeypatch.setattr(front.os, "sched_getaffinity", lambda _process: set(range(self.cores)))
        monkeypatch.setattr(front, "tune", lambda: self.log.append("tuned"))
        monkeypatch.setattr(front, "start_tracing", self._trace)
        monkeypatch.setattr(front, "Owners", self._owners)
        monkeypatch.setattr(front, "FrontClassifier", self._classifier)
        monkeypatch.setattr(front, "ClassifyEndpoint", lambda *arguments: ("endpoint", *arguments))
        monkeypatch.setattr(front, "FrontApp", lambda *arguments: SimpleNamespace(arguments=arguments))

    def _trace(self, _settings: Settings) -> Callable[[], None]:
        return lambda: self.log.append("spans sent")

    def _owners(self, *arguments: Any) -> Any:
        self.made["owners"] = arguments

        async def end() -> None:
            self.log.append("owners end")

        return SimpleNamespace(begin=lambda: self.log.append("owners begin"), end=end)

    def _classifier(self, *arguments: Any) -> Any:
        self.made["classifier"] = arguments
        return SimpleNamespace(close=lambda: self.log.append("classifier closed"))


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


@pytest.mark.parametrize(
    ("cores", "fronts", "decoders"),
    [(8, 1, 4), (8, 2, 4), (8, 4, 2), (8, 3, 2), (2, 1, 2), (2, 2, 1), (1, 1, 1), (2, 5, 1)],
)
def test_fronts_share_the_cores_for_decoding(parts: Parts, cores: int, fronts: int, decoders: int) -> None:
    parts.cores = cores
    settings = Settings(default_latency_ms=7)
    front_app(settings, Path("/service/o"), fronts)
    assert parts.made["owners"] == (Path("/service/o"),)
    _, given, made = parts.made["classifier"]
    assert (given, made.width, made.most) == (settings, decoders, settings.most_work)


async def test_a_front_looks_for_owners_while_it_serves(parts: Parts) -> None:
    app: Any = front_app(Settings(), Path("/service/o"))
    endpoint, _, lifespan, origins = app.arguments
    assert origins == []
    assert endpoint[0] == "endpoint"
    assert parts.log == ["tuned"]
    async with lifespan():
        assert parts.log[1:] == ["owners begin"]
    assert parts.log[2:] == ["owners end", "classifier closed", "spans sent"]


async def test_everything_is_ended_after_a_failure_too(parts: Parts) -> None:
    app: Any = front_app(Settings(), Path("/service/o"))
    with pytest.raises(ArithmeticError):
        async with app.arguments[2]():
            raise ArithmeticError
    assert parts.log[2:] == ["owners end", "classifier closed", "spans sent"]
