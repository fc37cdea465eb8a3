"""The application's own paths, and what ``/docs`` says of ``/classify``."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from service.telemetry.recorder import RequestMetrics
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem


async def test_healthz_answers_whatever_is_loaded(fakes: Fakes) -> None:
    async with fakes.client(warm=False) as client:
        answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})


async def test_readyz_follows_the_placement(fakes: Fakes) -> None:
    async with fakes.client(warm=False) as client:
        assert (await client.get("/healthz")).status_code == 200
        problem(await client.get("/readyz"), 503, "not-ready")
    async with fakes.client() as client:
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def test_the_openapi_document_knows_every_parameter(fakes: Fakes) -> None:
    async with fakes.client() as client:
        operation = (await client.get("/openapi.json")).json()["paths"]["/classify"]["post"]
        assert (await client.get("/docs")).status_code == 200
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"model", "labels", "k", "latency_ms", "min_top1", "strict"} <= names
    assert {"200", "400", "404", "413", "415", "422", "429", "503", "504"} <= set(operation["responses"])
    for parameter in operation["parameters"]:
        assert (parameter["in"], parameter["required"]) == ("query", False)
        assert parameter["description"].endswith(".")
    assert set(operation["requestBody"]["content"]) == {
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }
    for status, response in operation["responses"].items():
        media_type = "application/json" if status == "200" else "application/problem+json"
        assert list(response["content"]) == [media_type]


async def test_route_is_documented_with_the_parameters_of_classify(fakes: Fakes) -> None:
    async with fakes.client() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    assert paths["/route"]["post"]["parameters"] == paths["/classify"]["post"]["parameters"]


async def test_only_posts_to_classify_itself_are_classified(fakes: Fakes) -> None:
    async with fakes.client() as client:
        assert (await client.post("/classify?model=lenet5", content=picture())).status_code == 200
        problem(await client.put("/classify?model=lenet5", content=picture()), 405, "method-not-allowed")
        problem(await client.post("/classify/more?model=lenet5", content=picture()), 404, "not-found")


async def test_series_begin_for_networks_that_can_be_served(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def noted(variants: Iterable[str]) -> RequestMetrics:
        begun.extend(variants)
        return RequestMetrics(begun)

    monkeypatch.setattr("service.http.app.RequestMetrics", noted)
    fakes.loadable |= {"vgg16@imagenet1k"}
    async with fakes.client():
        assert sorted(begun) == ["lenet5", "vgg16"]
