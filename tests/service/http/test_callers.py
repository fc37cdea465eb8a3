"""Who calls, who may load and unload networks, and that bodies are not read there."""

from __future__ import annotations

import pytest

from service.http.callers import caller_of, is_loopback
from tests.asking import asks_from, raw
from tests.fakes import Fakes
from tests.pictures import picture
from tests.problems import problem

LOAD = "/models/lenet5/load"


@pytest.mark.parametrize("what", ["load", "unload"])
@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("127.0.0.1", {}),
        ("127.1.2.3", {"host": "127.0.0.1:8000"}),
        ("::1", {"host": "[::1]:8000"}),
        ("::ffff:127.0.0.1", {}),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1"}),
        ("127.0.0.1", {"x-forwarded-for": "::1"}),
        ("127.0.0.1", {"origin": "http://localhost:3000"}),
        ("127.0.0.1", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}),
        ("127.0.0.1", {"origin": "https://[::1]", "sec-fetch-site": "cross-site"}),
        ("127.0.0.1", {"origin": "http://topfive.localhost", "sec-fetch-site": "same-site"}),
        ("127.0.0.1", {"sec-fetch-site": "same-origin"}),
        ("127.0.0.1", {"sec-fetch-site": "none"}),
        ("127.0.0.1", {"content-length": "0"}),
    ],
)
async def test_callers_on_this_machine_may_load_and_unload(
    fakes: Fakes, what: str, peer: str, headers: dict[str, str]
) -> None:
    async with fakes.client() as client, asks_from(client, peer) as asking:
        answer = await asking.post(f"/models/lenet5/{what}", headers=headers)
        assert (answer.status_code, answer.json()["resident"]) == (200, what == "load"), answer.text


@pytest.mark.parametrize("what", ["load", "unload"])
@pytest.mark.parametrize(
    ("peer", "headers", "says"),
    [
        ("192.0.2.7", {}, "192.0.2.7"),
        ("10.0.0.1", {}, "10.0.0.1"),
        ("172.17.0.1", {}, "172.17.0.1"),
        ("0.0.0.0", {}, "0.0.0.0"),
        ("2001:db8::1", {}, "2001:db8::1"),
        ("::ffff:192.0.2.7", {}, "192.0.2.7"),
        ("fe80::1%eth0", {}, "fe80::1"),
        ("", {}, "call from"),
        # Another machine cannot make itself local by what it writes, behind a proxy or not.
        ("192.0.2.7", {"x-forwarded-for": "127.0.0.1"}, "192.0.2.7"),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7"}, "192.0.2.7"),
        ("127.0.0.1", {"x-forwarded-for": "127.0.0.1, 192.0.2.7"}, "192.0.2.7"),
        ("127.0.0.1", {"x-forwarded-for": "192.0.2.7, 127.0.0.1"}, "192.0.2.7"),
        ("127.0.0.1", {"x-forwarded-for": "unknown"}, "unknown"),
        ("127.0.0.1", {"x-forwarded-for": "localhost"}, "localhost"),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, "proxy"),
        ("127.0.0.1", {"x-real-ip": "192.0.2.7"}, "proxy"),
        ("127.0.0.1", {"via": "1.1 cache"}, "proxy"),
        # Web pages of other sites.
        ("127.0.0.1", {"origin": "http://evil.example"}, "evil.example"),
        ("127.0.0.1", {"origin": "null"}, "null"),
        ("127.0.0.1", {"origin": ""}, "web pages"),
        ("127.0.0.1", {"origin": "http://localhost.evil.example"}, "evil"),
        ("127.0.0.1", {"origin": "http://127.0.0.1.evil.example"}, "evil"),
        ("127.0.0.1", {"origin": "http://localhost@evil.example"}, "evil"),
        ("127.0.0.1", {"origin": "http://evillocalhost"}, "evil"),
        ("127.0.0.1", {"origin": "chrome-extension://localhost"}, "chrome"),
        ("127.0.0.1", {"origin": "http://[::1"}, "web pages"),
        ("127.0.0.1", {"origin": "http://192.0.2.7"}, "192.0.2.7"),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, "another site"),
        ("127.0.0.1", {"sec-fetch-site": "same-site"}, "another site"),
        # A foreign name that resolves to this machine: the browser takes page and service for one origin.
        ("127.0.0.1", {"host": "evil.example"}, "evil.example"),
        ("127.0.0.1", {"host": "evil.example:8000", "origin": "http://evil.example:8000"}, "evil.example"),
        ("127.0.0.1", {"host": "evil.example", "sec-fetch-site": "same-origin"}, "evil.example"),
    ],
)
async def test_other_machines_and_pages_of_other_sites_may_not(
    fakes: Fakes, what: str, peer: str, headers: dict[str, str], says: str
) -> None:
    async with fakes.client() as client, asks_from(client, peer) as asking:
        document = problem(await asking.post(f"/models/lenet5/{what}", headers=headers), 403, "forbidden")
        assert says in document["detail"]
        # The answer is the same for an unknown network, and nothing was done.
        problem(await asking.post(f"/models/resnet50/{what}?force=1", headers=headers), 403, "forbidden")
        assert (await client.get("/models/lenet5")).json()["resident"]
        # Every other path is open to all.
        assert (await asking.post("/classify?model=lenet5", content=picture(), headers=headers)).status_code == 200
        assert (await asking.post("/route?model=lenet5", headers=headers)).status_code == 200


async def test_every_line_of_a_header_counts(fakes: Fakes) -> None:
    async with fakes.client() as client:
        for name, values in (
            ("x-forwarded-for", ("127.0.0.1", "192.0.2.7")),
            ("x-forwarded-for", ("192.0.2.7", "127.0.0.1")),
            ("origin", ("http://localhost", "http://evil.example")),
        ):
            answer = await client.post(LOAD, headers=[(name, value) for value in values])
            problem(answer, 403, "forbidden")


async def test_a_caller_without_an_address_may_not(fakes: Fakes) -> None:
    async with fakes.client() as client:
        sent = await raw(client, LOAD, [(b"host", b"localhost")], None)
    assert sent[0]["status"] == 403


@pytest.mark.parametrize("path", [LOAD, "/models/lenet5/unload?wait=true"])
async def test_a_body_is_refused_without_reading_it(fakes: Fakes, path: str) -> None:
    async with fakes.client() as client:
        document = problem(await client.post(path, content=b"{}"), 400, "bad-body")
        assert path.partition("?")[0] in document["detail"]
        for header in ((b"content-length", b"5"), (b"transfer-encoding", b"chunked")):
            sent = await raw(client, path, [(b"host", b"localhost"), header])
            assert sent[0]["status"] == 400
            # The client stops sending.
            assert (b"connection", b"close") in sent[0]["headers"]
        assert (await client.post(path, content=b"")).status_code == 200


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("127.255.255.254", True), ("::1", True), ("::ffff:127.0.0.1", True), ("[::1]", True)]
    + [(a, False) for a in ("126.255.255.255", "128.0.0.0", "::2", "::ffff:10.0.0.1", "localhost", "", "127.0.0.1.x")],
)
def test_loopback_addresses(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def called_by(peer: str | None, *forwarded: str) -> str:
    """The caller of a request from a peer, with these lines of X-Forwarded-For among other headers."""
    lines = [(b"x-forwarded-for", line.encode("latin-1")) for line in forwarded]
    headers = [(b"host", b"localhost"), *lines, (b"x-request-id", b"1")]
    return caller_of({"headers": headers, "client": None if peer is None else (peer, 5000)})


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        (None, "127.0.0.1"),
        ("", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_caller_is_told_by_its_address(peer: str | None, caller: str) -> None:
    assert called_by(peer) == caller
    # What HAProxy tells of it comes to the same.
    for proxy in (None, "127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert called_by(proxy, *([peer] if peer else [])) == (caller if peer else called_by(proxy))


def test_the_addresses_of_one_customer_are_one_caller_and_others_are_not() -> None:
    assert called_by("2001:db8:1:2::1") == called_by("2001:db8:1:2:ffff::1") != called_by("2001:db8:1:3::1")
    assert called_by("192.0.2.7") != called_by("192.0.2.8")


@pytest.mark.parametrize(
    "forged", ["198.51.100.1", "198.51.100.1, 203.0.113.9", "127.0.0.1", "", ",", "x" * 60_000, "\xff", "[::1", ":"]
)
def test_what_a_stranger_writes_into_the_header_gains_nothing(forged: str) -> None:
    # HAProxy adds a line of its own; other proxies add to the line that came.
    assert called_by(None, forged, "192.0.2.7") == "192.0.2.7"
    assert called_by("127.0.0.1", f"{forged}, 192.0.2.7") == "192.0.2.7"
    # Where no proxy stands before the service, the peer is the caller.
    assert called_by("192.0.2.7", forged) == called_by("192.0.2.7", forged, forged) == "192.0.2.7"


@pytest.mark.parametrize(
    ("element", "caller"),
    [
        ("192.0.2.7:4711", "192.0.2.7"),
        ("[2001:db8::1]:4711", "2001:db8::/64"),
        ("[2001:db8::1]", "2001:db8::/64"),
        (" 192.0.2.7 ", "192.0.2.7"),
        ("unknown", "::1"),
        ("", "::1"),
        ("localhost:80", "::1"),
    ],
)
def test_proxies_write_addresses_in_several_ways(element: str, caller: str) -> None:
    assert called_by("::1", element) == caller
