"""Every path but ``POST /classify``: bodies, HEAD and OPTIONS, by raw ASGI, so that nothing else reads or changes
anything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from service.config.settings import Settings
from service.http.app import ClassifyFirst
from tests.fakes import Fakes

#: All paths with their methods, by the documentation.
PATHS = {
    "/classify": {"POST"},
    "/route": {"POST"},
    "/models": {"GET"},
    "/models/lenet5": {"GET"},
    "/models/lenet5/load": {"POST"},
    "/models/lenet5/unload": {"POST"},
    "/healthz": {"GET"},
    "/readyz": {"GET"},
    "/metrics": {"GET"},
    "/metrics/targets": {"GET"},
    "/problems": {"GET"},
    "/problems/overloaded": {"GET"},
    "/docs": {"GET"},
    "/redoc": {"GET"},
    "/openapi.json": {"GET"},
    "/docs/assets/favicon.png": {"GET"},
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")
_FRAMINGS = [(b"content-length", b"5"), (b"content-length", b"99999999999"), (b"transfer-encoding", b"chunked")]


async def asked(
    app: ClassifyFirst, method: str, path: str, *headers: tuple[bytes, bytes]
) -> tuple[int, dict[str, str], bytes]:
    """What the application answers, if it reads no body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        # Starlette's files watch for a client who leaves, in requests that have no body.
        assert not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers), "the body is read"
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *headers],
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


async def test_these_are_all_paths(fakes: Fakes) -> None:
    """A path that is added later is tried here too."""
    async with fakes.app() as app:
        _, _, document = await asked(app, "GET", "/openapi.json")
    found = {
        path.format(name="lenet5", slug="overloaded"): {method.upper() for method in methods}
        for path, methods in json.loads(document)["paths"].items()
    }
    assert found.items() <= PATHS.items()


@pytest.mark.parametrize("framing", _FRAMINGS, ids=["5 bytes", "100 GB", "chunked"])
async def test_no_other_path_takes_a_body(fakes: Fakes, framing: tuple[bytes, bytes]) -> None:
    async with fakes.app() as app:
        for path, methods in {**PATHS, "/nothing": set[str]()}.items():
            allowed = methods | ({"HEAD"} if "GET" in methods else set()) | ({"OPTIONS"} if methods else set())
            for method in METHODS:
                if (path, method) == ("/classify", "POST"):
                    continue
                status, headers, body = await asked(app, method, path, framing)
                slug = "not-found" if not methods else "bad-body" if method in allowed else "method-not-allowed"
                wanted = {"not-found": 404, "bad-body": 400, "method-not-allowed": 405}[slug]
                assert (status, headers["connection"]) == (wanted, "close"), (method, path)
                if method == "HEAD":
                    assert (body, int(headers["content-length"]) > 0) == (b"", True)
                else:
                    assert json.loads(body)["type"] == f"/problems/{slug}", (method, path)


async def test_a_length_of_0_is_no_body(fakes: Fakes) -> None:
    async with fakes.app() as app:
        for length in (b"0", b"000"):
            status, headers, _ = await asked(app, "GET", "/healthz", (b"content-length", length))
            assert (status, "connection" in headers) == (200, False)


async def test_head_has_the_headers_of_get_and_nothing_else(fakes: Fakes) -> None:
    async with fakes.app() as app:
        for path in [*(path for path, methods in PATHS.items() if "GET" in methods), "/models/nothing", "/nothing"]:
            status, headers, body = await asked(app, "HEAD", path)
            wanted = await asked(app, "GET", path)
            assert body == b"", path
            assert status == wanted[0], path
            headers.pop("date", None)
            measured = path in ("/metrics", "/models", "/models/lenet5")
            for name, value in wanted[1].items():
                if not (name == "content-length" and measured):
                    assert headers[name] == value, (path, name)
            assert int(headers["content-length"]) > 0


async def test_head_of_a_path_without_get_is_not_allowed(fakes: Fakes) -> None:
    async with fakes.app() as app:
        for path in ("/classify", "/route"):
            status, headers, _ = await asked(app, "HEAD", path)
            assert (status, headers["allow"]) == (405, "OPTIONS, POST")


async def test_options_tells_the_methods(fakes: Fakes) -> None:
    async with fakes.app() as app:
        for path, methods in PATHS.items():
            status, headers, body = await asked(app, "OPTIONS", path)
            found = set(headers["allow"].split(", "))
            assert (status, body) == (204, b""), path
            assert found == methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set()), path
            # What is not among them is refused with the same list.
            status, headers, body = await asked(app, "DELETE", path)
            assert (status, set(headers["allow"].split(", "))) == (405, found), path
        assert (await asked(app, "OPTIONS", "/nothing"))[0] == 404


PAGE = (b"origin", b"https://shop.example")
PREFLIGHT = (
    PAGE,
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"content-type,x-api-key"),
)


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ("", None),
        ("https://other.example", None),
        ("https://shop.example", "https://shop.example"),
        ("https://a.example, https://shop.example", "https://shop.example"),
        ("*", "*"),
    ],
)
async def test_pages_may_call_if_the_setting_names_them(fakes: Fakes, origins: str, allowed: str | None) -> None:
    fakes.settings = Settings(cache_dir=fakes.settings.cache_dir, cors_origins=origins)
    async with fakes.app() as app:
        for path in ("/classify", "/route", "/models"):
            status, headers, body = await asked(app, "OPTIONS", path, *PREFLIGHT)
            assert (status, body) == (204, b"")
            assert headers.get("access-control-allow-origin") == allowed
            if allowed:
                assert "POST" in headers["access-control-allow-methods"]
                assert headers["access-control-allow-headers"] == "content-type,x-api-key"
        for method, path in (("GET", "/models"), ("GET", "/nothing"), ("POST", "/classify")):
            # An error is shown to the page too: here the body is refused by its size.
            _, headers, _ = await asked(app, method, path, PAGE, (b"content-length", b"999999999"))
            assert headers.get("access-control-allow-origin") == allowed, path
            if allowed:
                exposed = headers["access-control-expose-headers"].lower().split(", ")
                assert exposed == ["x-model-served", "server-timing", "retry-after", "x-request-id"]
            if allowed not in (None, "*"):
                assert headers["vary"] == "Origin"


async def test_without_the_setting_nothing_wraps_the_path_of_a_request(fakes: Fakes) -> None:
    async with fakes.app() as app:
        assert type(app._classify).__name__ == "ClassifyEndpoint"
        assert type(app.others).__name__ == "Others"


@pytest.mark.parametrize(
    "origins",
    ["example.com", "https://example.com/", "https://Example.com", "https://a b", "https://a.example, null"],
)
def test_what_is_no_origin_is_refused(origins: str) -> None:
    with pytest.raises(ValueError, match="no origin"):
        Settings(cors_origins=origins)
