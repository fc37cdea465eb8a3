"""The service under test: what it lists, what it loads, and which errors name what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from loadreport.target import CannotLoadError, Listing, Row, Target, TargetError, chosen
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
def test_hosts_that_are_not_urls_are_refused(host: str) -> None:
    with pytest.raises(TargetError, match=r"give a URL, as in http://127\.0\.0\.1:8000"):
        Target(host)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("http://127.0.0.1:8000", True),
        ("http://localhost", True),
        ("http://[::1]:8000", True),
        ("https://there:8000/", False),
        ("http://127.0.0.1.example:8000", False),
    ],
)
def test_hosts_are_on_this_machine_or_elsewhere(host: str, is_local: bool) -> None:
    target = Target(host)
    assert (target.host, target.local) == (host.rstrip("/"), is_local)


def test_devices_are_named_once_and_without_their_deployments() -> None:
    def device(*names: str) -> str | None:
        return Listing.model_validate({"models": [], "memory": [{"device": name} for name in names]}).device

    assert device("all: AMD EPYC, 2 cores") == "AMD EPYC, 2 cores"
    assert device("a: one", "b: one", "c: two", "three") == "one, two, three"
    assert device() is None


def test_a_service_that_does_not_answer_in_time(service: PretendedService, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise httpx.ReadTimeout("slow")

    monkeypatch.setattr(httpx.Client, "request", silent)
    with pytest.raises(TargetError, match="did not answer in time"):
        Target(service.url).listing()


def test_a_host_that_does_not_answer_is_refused() -> None:
    with pytest.raises(TargetError, match=r"nothing answers at .*: is the service running there\?"):
        Target(f"http://127.0.0.1:{free_port()}").listing()


@pytest.mark.parametrize("answer", [(404, b"not found"), (200, b"<html>"), (200, b'{"models": [{"id": "gpt"}]}')])
def test_another_kind_of_server_is_refused(service: PretendedService, answer: tuple[int, bytes]) -> None:
    service.listing = answer
    with pytest.raises(TargetError, match=f"is not a TopFive service: GET /models gave status {answer[0]}"):
        Target(service.url).listing()


def test_a_service_that_is_not_ready_says_so(service: PretendedService) -> None:
    service.listing = (503, b"{}")
    with pytest.raises(TargetError, match="not ready yet"):
        Target(service.url).listing()


def test_a_service_that_comes_back_in_time_is_waited_for(
    service: PretendedService, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_names_stand_for_checkpoints_with_weights() -> None:
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


def test_a_variant_stands_for_the_checkpoint_that_the_service_would_pick() -> None:
    small = row("googlenet@cifar10") | {"labels": "cifar10"}
    assert chosen(rows(small, row("googlenet@imagenet1k")), ["googlenet"])[0].name == "googlenet@imagenet1k"
    gone = row("googlenet@imagenet1k", "weights missing")
    assert chosen(rows(gone, small), ["googlenet"])[0].name == "googlenet@cifar10"


def test_the_key_of_the_environment_goes_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPFIVE_API_KEY", "topfive_x")
    with pretended_service() as service:
        Target(service.url).listing()
        monkeypatch.setenv("TOPFIVE_API_KEY", "")
        Target(service.url).listing()
        assert service.keys == ["Bearer topfive_x", None]
        service.listing = (401, b"{}")
        with pytest.raises(TargetError, match="set TOPFIVE_API_KEY"):
            Target(service.url).listing()
