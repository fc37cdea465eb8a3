"""Keys, roles and rates over HTTP: what each path needs, and what callers without it are answered."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.checkpoints.catalogue import Catalogue
from service.access.keyring import Keyring
from service.access.keys import add_key, revoke_key
from service.domain.errors import Failure, NotReadyError, RateLimitedError, UnauthorizedError, failure_of
from service.http import metrics
from service.http.access import AccessControl, metrics_reader, presented_key
from service.http.app import create_app
from service.lifecycle.processes import RUN_ID, own_key
from service.telemetry.exposition import Target, serve_metrics
from tests.asking import asks_from, raw
from tests.clock import Clock
from tests.exposing import Found
from tests.fakes import Fakes
from tests.fronting import fronted
from tests.pictures import picture
from tests.problems import problem

CLASSIFY = "/classify?model=lenet5"
#: Every path, and the least that it needs.
NEEDS = [
    ("GET", "/healthz", None),
    ("HEAD", "/healthz", None),
    ("GET", "/readyz", None),
    ("GET", "/docs", None),
    ("GET", "/docs/assets/swagger-ui.css", None),
    ("GET", "/redoc", None),
    ("GET", "/openapi.json", None),
    ("GET", "/problems", None),
    ("GET", "/problems/rate-limited", None),
    ("GET", "/metrics", "metrics"),
    ("GET", "/metrics/targets", "metrics"),
    ("POST", CLASSIFY, "classify"),
    ("GET", "/classify", "classify"),
    ("POST", "/route?model=lenet5", "classify"),
    ("GET", "/models", "classify"),
    ("GET", "/models/lenet5", "classify"),
    ("GET", "/nothing", "classify"),
    ("GET", "/", "classify"),
    ("GET", "/problemsx", "classify"),
    ("GET", "/healthz/x", None),
    ("POST", "/models/lenet5/load", "operate"),
    ("POST", "/models/lenet5/unload", "operate"),
    ("DELETE", "/models/lenet5", "operate"),
    ("POST", "/models/resnet50/load", "operate"),
]


class Keyed:
    """A service with three keys, and who holds them."""

    def __init__(self, folder: Path, fakes: Fakes, **settings: Any) -> None:
        self.file = folder / "keys.json"
        self.alice = add_key(self.file, "alice", "classify", None, None)
        self.operator = add_key(self.file, "operator", "operate", None, None)
        self.gone = add_key(self.file, "gone", "operate", None, None)
        revoke_key(self.file, "gone")
        self.fakes = fakes
        fakes.settings = fakes.settings.model_copy(update={"api_keys": self.file, **settings})


@pytest.fixture
def keyed(tmp_path: Path, fakes: Fakes) -> Keyed:
    return Keyed(tmp_path, fakes)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@asynccontextmanager
async def one_process(fakes: Fakes, _: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with fakes.client() as client:
        yield client


@asynccontextmanager
async def behind_a_front(fakes: Fakes, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with fronted(fakes, folder) as front:
        yield front.client


WAYS = pytest.mark.parametrize("way", [one_process, behind_a_front])
Way = Callable[[Fakes, Path], Any]


@WAYS
@pytest.mark.parametrize("metrics_key", [False, True])
async def test_each_path_asks_for_what_it_needs(tmp_path: Path, fakes: Fakes, way: Way, metrics_key: bool) -> None:
    keyed = Keyed(tmp_path, fakes, metrics_key=metrics_key)
    async with way(fakes, tmp_path) as client:
        for method, path, needs in NEEDS:
            if needs == "metrics":
                needs = "classify" if metrics_key else None
            content = picture() if path == CLASSIFY and method == "POST" else None
            open_to = {"operate": (), None: ("nobody", "wrong", "gone", "alice"), "classify": ("alice",)}[needs]
            for who, headers in {
                "nobody": {},
                "wrong": bearer("topfive_" + "x" * 43),
                "gone": bearer(keyed.gone),
                "alice": bearer(keyed.alice),
                "operator": bearer(keyed.operator),
            }.items():
                answer = await client.request(method, path, headers=headers, content=content)
                if who == "operator" or who in open_to:
                    assert answer.status_code not in (401, 403), (who, method, path)
                elif who == "alice":
                    assert "operate" in problem(answer, 403, "role-too-small")["detail"]
                    assert answer.headers["www-authenticate"] == 'Bearer realm="topfive", error="insufficient_scope"'
                else:
                    document = problem(answer, 401, "unauthorized")
                    error = "" if who == "nobody" else ', error="invalid_token"'
                    assert answer.headers["www-authenticate"] == f'Bearer realm="topfive"{error}'
                    assert ("wrong" in document) == (who != "nobody")


@WAYS
async def test_keys_come_in_two_headers(keyed: Keyed, tmp_path: Path, way: Way) -> None:
    async with way(keyed.fakes, tmp_path) as client:
        for headers in (
            bearer(keyed.alice),
            {"authorization": f"bearer   {keyed.alice} "},
            {"AUTHORIZATION": f"BEARER {keyed.alice}"},
            {"x-api-key": keyed.alice},
            {"X-API-Key": f" {keyed.alice} "},
            # Another scheme may be a proxy's.
            {"authorization": "Basic dXNlcjpwYXNz", "x-api-key": keyed.alice},
            {**bearer(keyed.alice), "x-api-key": keyed.alice},
        ):
            assert (await client.post(CLASSIFY, content=picture(), headers=headers)).status_code == 200, headers
            assert (await client.get("/models", headers=headers)).status_code == 200, headers


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([], "has no key"),
        ([("host", "x")], "has no key"),
        ([("authorization", "")], "scheme"),
        ([("authorization", "Basic KEY")], "scheme of its Authorization is not Bearer"),
        ([("authorization", "KEY")], "scheme"),
        ([("authorization", "Bearer")], "has no key"),
        ([("authorization", "Bearer  ")], "has no key"),
        ([("x-api-key", "")], "has no key"),
        ([("authorization", "Bearer a"), ("x-api-key", "b")], "several"),
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], "several"),
        ([("x-api-key", "x" * 513)], "too long"),
    ],
)
def test_what_is_no_key_is_told(headers: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(UnauthorizedError, match=says):
        presented_key([(name.encode(), value.encode()) for name, value in headers])


def test_a_key_may_have_any_bytes() -> None:
    assert presented_key([(b"x-api-key", b"\xff\x00")]) == b"\xff\x00"
    assert presented_key([(b"authorization", b"Bearer a b")]) == b"a b"


@WAYS
async def test_keys_are_checked_before_the_body_is_read(keyed: Keyed, tmp_path: Path, way: Way) -> None:
    async with way(keyed.fakes, tmp_path) as client:
        for headers in ([], [(b"x-api-key", b"wrong")]):
            for path in (CLASSIFY, "/models/lenet5/load", "/route"):
                sent = await raw(client, path, [(b"host", b"localhost"), (b"content-length", b"9"), *headers])
                assert sent[0]["status"] == 401
                assert (b"connection", b"close") in sent[0]["headers"]
                sent = await raw(client, path, [(b"host", b"localhost"), *headers])
                assert (b"connection", b"close") not in sent[0]["headers"]


async def test_keys_are_checked_before_the_query(keyed: Keyed) -> None:
    async with keyed.fakes.client() as client:
        problem(await client.post("/classify?modell=1", content=picture()), 401, "unauthorized")
        problem(await client.post("/classify?modell=1", headers=bearer(keyed.alice)), 400, "bad-parameter")


async def test_an_operator_may_be_anywhere(keyed: Keyed) -> None:
    async with keyed.fakes.client() as client, asks_from(client, "192.0.2.7") as away:
        for headers in ({}, {"origin": "https://console.example", "host": "topfive.example"}):
            answer = await away.post("/models/lenet5/load", headers={**headers, **bearer(keyed.operator)})
            assert answer.status_code == 200
        # Without a key, being on this machine is not enough.
        problem(await client.post("/models/lenet5/load"), 401, "unauthorized")


async def test_without_keys_headers_with_keys_mean_nothing(fakes: Fakes) -> None:
    async with fakes.client() as client, asks_from(client, "192.0.2.7") as away:
        for headers in ({}, bearer("x"), {"x-api-key": "y"}):
            assert (await away.post(CLASSIFY, content=picture(), headers=headers)).status_code == 200
            problem(await away.post("/models/lenet5/load", headers=headers), 403, "forbidden")


@WAYS
async def test_a_change_of_the_file_holds_without_a_restart(keyed: Keyed, tmp_path: Path, way: Way) -> None:
    async def until(key: str, status: int) -> None:
        async with asyncio.timeout(20):
            while True:
                classified = await client.post(CLASSIFY, content=picture(), headers=bearer(key))
                if classified.status_code == (await client.get("/models", headers=bearer(key))).status_code == status:
                    return
                await asyncio.sleep(0.02)

    async with way(keyed.fakes, tmp_path) as client:
        await until(keyed.alice, 200)
        revoke_key(keyed.file, "alice")
        new = add_key(keyed.file, "new", "classify", None, None)
        await until(keyed.alice, 401)
        await until(new, 200)


@WAYS
async def test_the_services_own_commands_may_look(
    keyed: Keyed, tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID, "0123456789abcdef")
    async with way(keyed.fakes, tmp_path) as client:
        own = own_key("0123456789abcdef")
        assert (await client.get("/models", headers=bearer(own))).status_code == 200
        problem(await client.post("/models/lenet5/load", headers=bearer(own)), 403, "role-too-small")
        # The id itself opens nothing: it may be seen where the key may not.
        for wrong in ("0123456789abcdef", own_key("")):
            problem(await client.get("/models", headers=bearer(wrong)), 401, "unauthorized")
    monkeypatch.delenv(RUN_ID)
    async with way(keyed.fakes, tmp_path) as client:
        problem(await client.get("/models", headers=bearer(own_key(""))), 401, "unauthorized")


async def test_a_file_that_was_never_read_is_not_the_callers_mistake(tmp_path: Path, fakes: Fakes) -> None:
    fakes.settings = fakes.settings.model_copy(update={"api_keys": tmp_path / "none.json"})
    async with fakes.client() as client:
        for answer in (
            await client.post(CLASSIFY, content=picture(), headers=bearer("x")),
            await client.get("/models", headers=bearer("x")),
        ):
            assert str(tmp_path) not in problem(answer, 503, "not-ready")["detail"]
        assert (await client.get("/healthz")).status_code == 200


@WAYS
async def test_the_access_log_has_names_of_keys_and_no_keys(
    keyed: Keyed, tmp_path: Path, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    keyed.fakes.settings = keyed.fakes.settings.model_copy(update={"access_log": True})
    logging.getLogger("topfive.access").propagate = True
    with caplog.at_level(logging.DEBUG):
        async with way(keyed.fakes, tmp_path) as client:
            for key in (keyed.alice, keyed.gone):
                await client.post(CLASSIFY, content=picture(), headers=bearer(key))
                await client.post("/models/lenet5/load", headers={"x-api-key": key})
            metrics = (await client.get("/metrics")).text
    fields = [record.fields for record in caplog.records if hasattr(record, "fields")]
    assert [(line["status"], line["reason"], line.get("key")) for line in fields] == [
        (200, "ok", "alice"),
        (401, "unauthorized", None),
    ]
    text = caplog.text + json.dumps(fields, default=str) + metrics
    for key in (keyed.alice, keyed.gone):
        assert key not in text
        assert key.removeprefix("topfive_") not in text
    assert "alice" not in metrics


async def test_what_is_refused_is_counted(keyed: Keyed) -> None:
    async def count(reason: str, status: int) -> float:
        text = (await client.get("/metrics")).text
        line = f'topfive_requests_total{{model="none",reason="{reason}",status="{status}"}} '
        return float(next(part for part in text.splitlines() if part.startswith(line)).removeprefix(line))

    async with keyed.fakes.client() as client:
        before = await count("unauthorized", 401)
        await client.post(CLASSIFY, content=picture())
        assert await count("unauthorized", 401) == before + 1


@WAYS
async def test_a_caller_over_its_rate_is_told_when_to_come_back(tmp_path: Path, fakes: Fakes, way: Way) -> None:
    keyed = Keyed(tmp_path, fakes, rate_requests="3/hour")
    async with way(fakes, tmp_path) as client:
        asked = [await client.post(CLASSIFY, content=picture(), headers=bearer(keyed.alice)) for _ in range(5)]
        assert [answer.status_code for answer in asked] == [200, 200, 200, 429, 429]
        for answer in asked[3:]:
            document = problem(answer, 429, "rate-limited")
            assert document["quota"] == {"pictures": 3, "seconds": 3600}
            assert 3590 < document["retry_after_ms"] / 1000 <= int(answer.headers["retry-after"]) <= 3600
            assert answer.headers["ratelimit-policy"] == '"pictures";q=3;w=3600'
            assert answer.headers["ratelimit"] == f'"pictures";r=0;t={answer.headers["retry-after"]}'
        # Other callers go on, and open paths are not counted.
        assert (await client.post(CLASSIFY, content=picture(), headers=bearer(keyed.operator))).status_code == 200
        for _ in range(5):
            assert (await client.get("/healthz", headers=bearer(keyed.alice))).status_code == 200


@WAYS
async def test_without_keys_an_address_is_a_caller(tmp_path: Path, fakes: Fakes, way: Way) -> None:
    fakes.settings = fakes.settings.model_copy(update={"rate_requests": "1/hour"})
    async with way(fakes, tmp_path) as client, asks_from(client, "192.0.2.7") as away:
        for asking in (client, away):
            assert [(await asking.post(CLASSIFY, content=picture())).status_code for _ in range(2)] == [200, 429]
        # What a stranger writes into the headers of proxies makes nobody else of it.
        headers = {"x-forwarded-for": "198.51.100.1", "forwarded": "for=198.51.100.1"}
        problem(await away.post(CLASSIFY, content=picture(), headers=headers), 429, "rate-limited")


@WAYS
async def test_a_bulk_counts_by_its_pictures(tmp_path: Path, fakes: Fakes, way: Way) -> None:
    fakes.settings = fakes.settings.model_copy(update={"rate_requests": "3/hour"})
    files = [("f", (f"{number}.png", picture())) for number in range(5)]
    async with way(fakes, tmp_path) as client:
        results = (await client.post(CLASSIFY, files=files)).json()["results"]
        assert sorted(entry["status"] for entry in results) == [200, 200, 200, 429, 429]
        problem(await client.post(CLASSIFY, content=picture()), 429, "rate-limited")


@WAYS
async def test_a_caller_over_its_rate_is_refused_before_its_body_is_read(
    tmp_path: Path, fakes: Fakes, way: Way
) -> None:
    fakes.settings = fakes.settings.model_copy(update={"rate_requests": "1/hour"})
    async with way(fakes, tmp_path) as client:
        for _ in range(2):
            await client.post(CLASSIFY, content=picture())
        sent = await raw(client, CLASSIFY, [(b"host", b"localhost")])
    assert sent[0]["status"] == 429


@WAYS
async def test_other_requests_count_too(tmp_path: Path, fakes: Fakes, way: Way) -> None:
    fakes.settings = fakes.settings.model_copy(update={"rate_requests": "2/hour"})
    async with way(fakes, tmp_path) as client:
        answers = [await client.get("/models"), await client.post("/route?model=lenet5"), await client.get("/models")]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        problem(await client.post(CLASSIFY, content=picture()), 429, "rate-limited")


@WAYS
async def test_device_time_is_counted(tmp_path: Path, fakes: Fakes, way: Way) -> None:
    # Less than any forward pass takes.
    fakes.settings = fakes.settings.model_copy(update={"rate_device_s": 1e-6})
    async with way(fakes, tmp_path) as client, asks_from(client, "192.0.2.7") as away:
        statuses = [(await client.post(CLASSIFY, content=picture())).status_code for _ in range(3)]
        assert (await away.post(CLASSIFY, content=picture())).status_code == 200
    assert statuses == [200, 429, 429]


def refused(retry_after_s: float, quota: tuple[int, int] | None = None) -> Failure:
    return failure_of(RateLimitedError("too much", retry_after_s, quota))


def scope(peer: str) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/classify", "headers": [], "client": (peer, 1)}


def test_a_refusal_is_remembered_until_its_time_is_over() -> None:
    clock = Clock()
    access = AccessControl(None, clock=clock)
    access.answered(scope("a"), [Failure("overloaded", ""), object()])
    access.enter(scope("192.0.2.1"), "classify")
    access.answered(scope("192.0.2.1"), [object(), refused(1.5, (3, 10))])
    clock.now += 1
    access.enter(scope("192.0.2.2"), "classify")
    with pytest.raises(RateLimitedError, match="too much") as raised:
        access.enter(scope("192.0.2.1"), "classify")
    assert (raised.value.retry_after_s, raised.value.quota) == (pytest.approx(0.5), (3, 10))
    clock.now += 0.5
    access.enter(scope("192.0.2.1"), "classify")
    assert access._refused == {}


def test_a_rate_that_was_raised_is_not_refused_for_a_day() -> None:
    clock = Clock()
    access = AccessControl(None, clock=clock)
    access.answered(scope("192.0.2.1"), [refused(86_400)])
    clock.now += 1.9
    with pytest.raises(RateLimitedError) as raised:
        access.enter(scope("192.0.2.1"), "classify")
    assert raised.value.retry_after_s == pytest.approx(86_398.1)
    clock.now += 0.1
    access.enter(scope("192.0.2.1"), "classify")


def test_only_so_many_refused_callers_are_remembered() -> None:
    access = AccessControl(None, clock=Clock())
    for number in range(10_001):
        access.answered(scope(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"), [refused(5)])
    assert len(access._refused) == 10_000
    access.enter(scope("10.0.0.0"), "classify")
    with pytest.raises(RateLimitedError):
        access.enter(scope("10.0.0.1"), "classify")


def test_a_key_that_cannot_be_checked_is_no_wrong_key(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "none")
    try:
        with pytest.raises(NotReadyError):
            AccessControl(keyring).enter({**scope("a"), "headers": [(b"x-api-key", b"x")]}, "classify")
        with pytest.raises(UnauthorizedError):
            AccessControl(keyring).enter(scope("a"), "classify")
    finally:
        keyring.close()


def test_without_keys_and_rates_there_is_no_control(tmp_path: Path, fakes: Fakes) -> None:
    assert AccessControl.of(fakes.settings) is None
    for settings in ({"api_keys": tmp_path / "keys"}, {"rate_requests": "1/second"}, {"rate_device_s": 1.0}):
        assert AccessControl.of(fakes.settings.model_copy(update=settings)) is not None


def test_the_metrics_of_a_process_need_a_key_if_the_settings_say_so(tmp_path: Path, fakes: Fakes) -> None:
    keyed = Keyed(tmp_path, fakes)
    assert metrics_reader(fakes.settings) is None
    assert metrics_reader(fakes.settings.model_copy(update={"api_keys": None, "metrics_key": True})) is None
    may_read = metrics_reader(fakes.settings.model_copy(update={"metrics_key": True}))
    assert may_read is not None
    assert may_read([(b"authorization", f"Bearer {keyed.alice}".encode())])
    for headers in ([], [(b"x-api-key", keyed.gone.encode())], [(b"authorization", b"Basic x")]):
        assert not may_read(headers)
    nothing = fakes.settings.model_copy(update={"api_keys": tmp_path / "none", "metrics_key": True})
    may_read = metrics_reader(nothing)
    assert may_read is not None
    assert not may_read([(b"x-api-key", b"x")])


async def test_the_sum_is_read_with_the_callers_key(tmp_path: Path, fakes: Fakes) -> None:
    keyed = Keyed(tmp_path, fakes, metrics_key=True)
    address = serve_metrics("127.0.0.1", metrics_reader(fakes.settings))
    async with fakes.client() as _:
        placement = fakes.placements[-1]
        targets = Found(Target(address, {"deployment": "x"}))
        app = create_app(Catalogue(tmp_path), placement, fakes.settings, targets=targets)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            for headers in (bearer(keyed.alice), {"x-api-key": keyed.alice}):
                answer = await client.get("/metrics", headers=headers)
                assert (answer.status_code, answer.headers["x-processes"]) == (200, "1 of 1")


async def test_a_key_goes_nowhere_if_metrics_need_none(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    async def read_all(_: object, headers: object) -> list[str]:
        sent.append(headers)
        return []

    monkeypatch.setattr(metrics, "read_all", read_all)
    async with fakes.client() as client:
        await client.get("/metrics", headers=bearer("topfive_x"))
    assert sent == [{}]


async def test_the_documentation_says_how_keys_are_sent(tmp_path: Path, fakes: Fakes) -> None:
    async with fakes.client() as client:
        assert "security" not in (await client.get("/openapi.json")).json()
    Keyed(tmp_path, fakes)
    async with fakes.client() as client:
        for _ in range(2):
            document = (await client.get("/openapi.json")).json()
            assert document["security"] == [{"bearer": []}, {"key": []}]
            assert document["components"]["securitySchemes"] == {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            assert "Answer" in document["components"]["schemas"]
