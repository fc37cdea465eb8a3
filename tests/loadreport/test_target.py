"""What the service under test says of itself, and what it says when it is none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from loadreport.target import CannotLoadError, Row, Target, TargetError, chosen
from tests.pretended_service import PretendedService, pretended_service, row
from tests.running import free_port


@pytest.fixture
def service() -> Iterator[PretendedService]:
    with pretended_service() as running:
        yield running


def rows(*lines: dict[str, object]) -> list[Row]:
    return [Row.model_validate(line) for line in lines]


def test_networks_and_device(service: PretendedService) -> None:
    listing = Target(service.url + "/").listing()
    assert [(line.name, line.footprint_mb) for line in listing.models][1] == ("googlenet@untrained", 215.0)
    assert listing.device == "2 cores"


@pytest.mark.parametrize("host", ["localhost:8000", "ftp://localhost", "http://", "", "http://[::1", "http://a:b"])
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(TargetError, match=r"give a URL, as in http://127\.0\.0\.1:8000"):
        Target(host)


def test_nobody_there() -> None:
    with pytest.raises(TargetError, match=r"nothing answers at .*: is the service running there\?"):
        Target(f"http://127.0.0.1:{free_port()}").listing()


@pytest.mark.parametrize("answer", [(404, b"not found"), (200, b"<html>"), (200, b'{"models": [{"id": "gpt"}]}')])
def test_somebody_else_there(service: PretendedService, answer: tuple[int, bytes]) -> None:
    service.listing = answer
    with pytest.raises(TargetError, match=f"is not a TopFive service: GET /models gave status {answer[0]}"):
        Target(service.url).listing()


def test_not_ready_yet(service: PretendedService) -> None:
    service.listing = (503, b"{}")
    with pytest.raises(TargetError, match="not ready yet"):
        Target(service.url).listing()


def test_a_service_that_comes_back_has_not_gone(service: PretendedService, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(service.url)
    service.listing = (503, b"{}")
    monkeypatch.setattr(time, "sleep", lambda _: setattr(service, "listing", None))
    target.check()
    service.listing = (503, b"{}")
    monkeypatch.setattr("loadreport.target.BACK_WITHIN_S", -1.0)
    with pytest.raises(TargetError, match="not ready"):
        target.check()


def test_loading(service: PretendedService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    target = Target(service.url)
    listed = {line.name: line for line in target.listing().models}
    assert target.load(listed["googlenet@untrained"]).resident
    # It takes longer than a request may, and goes on.
    service.load_statuses["vgg16@untrained"] = [504]
    assert target.load(listed["vgg16@untrained"]).resident
    # A service elsewhere loads for strangers only what a picture is sent for.
    service.load_statuses["inception_v3@untrained"] = [403]
    assert target.load(listed["inception_v3@untrained"]).resident
    assert service.asked[-2] == "POST /classify?model=inception_v3@untrained"
    service.load_statuses["alexnet@untrained"] = [503]
    with pytest.raises(CannotLoadError, match="alexnet@untrained cannot be loaded: alexnet@untrained does not fit"):
        target.load(listed["alexnet@untrained"])


def test_which_networks_are_meant() -> None:
    missing = row("vgg16@imagenet1k", "weights missing")
    listed = rows(row("lenet5@mnist"), row("googlenet@imagenet1k"), missing)
    assert [line.name for line in chosen(listed, [])] == ["lenet5@mnist", "googlenet@imagenet1k"]
    named = chosen(listed, ["inception_v1", "lenet5@mnist", "googlenet"])
    assert [line.name for line in named] == ["googlenet@imagenet1k", "lenet5@mnist"]
    with pytest.raises(TargetError, match="knows no network 'resnet'; known: lenet5, googlenet, vgg16"):
        chosen(listed, ["resnet"])
    with pytest.raises(TargetError, match="vgg16@imagenet1k has no weights there: topfive pull vgg16@imagenet1k"):
        chosen(listed, ["vgg16"])
    with pytest.raises(TargetError, match="weights for no network"):
        chosen(rows(missing), [])


def test_of_several_checkpoints_the_one_that_the_service_would_take() -> None:
    small = row("googlenet@cifar10") | {"labels": "cifar10"}
    assert chosen(rows(small, row("googlenet@imagenet1k")), ["googlenet"])[0].name == "googlenet@imagenet1k"
    gone = row("googlenet@imagenet1k", "weights missing")
    assert chosen(rows(gone, small), ["googlenet"])[0].name == "googlenet@cifar10"
