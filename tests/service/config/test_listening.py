"""Hosts and the addresses that they resolve to."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from service.config.listening import (
    NotOurAddressError,
    addresses,
    authority,
    bind_arguments,
    is_here_alone,
    is_wildcard,
    url,
)

V4, V6 = socket.AF_INET, socket.AF_INET6


def resolve(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int]) -> None:
    """Makes every name resolve to these addresses, each with its scope id."""
    entries = [
        (
            V6 if ":" in address else V4,
            socket.SOCK_STREAM,
            6,
            "",
            (address, 0, 0, scope) if ":" in address else (address, 0),
        )
        for address, scope in found
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)


def bindable(monkeypatch: pytest.MonkeyPatch, *ours: str) -> None:
    """Makes these addresses the only ones that this machine has."""

    def bind(self: socket.socket, address: tuple[Any, ...]) -> None:
        if address[0] not in ours:
            raise OSError(99, "Cannot assign requested address")

    class Probe(socket.socket):
        pass

    monkeypatch.setattr(Probe, "bind", bind, raising=False)
    monkeypatch.setattr(socket, "socket", Probe)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2"])
def test_an_address_of_this_machine_resolves_to_itself(host: str) -> None:
    assert addresses(host) == [host]
    assert bind_arguments(host, 8000) == [f"{host}:8000"]


def test_short_forms_are_expanded() -> None:
    assert (addresses("0"), addresses("127.1")) == (["0.0.0.0"], ["127.0.0.1"])


def test_only_those_addresses_of_a_name_count_that_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, and no link-local ones."""
    found = ("::1", 0), ("10.0.0.5", 0), ("10.0.0.5", 0), ("192.0.2.77", 0), ("fe80::1", 2), ("fd00::5", 0)
    resolve(monkeypatch, *found)
    bindable(monkeypatch, "10.0.0.5", "fd00::5", "fe80::1")
    assert addresses("box") == ["10.0.0.5", "fd00::5"]
    assert bind_arguments("box", 80) == ["10.0.0.5:80", "[fd00::5]:80 v6only"]


def test_the_ipv6_wildcard_covers_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, ("::", 0))
    bindable(monkeypatch, "::")
    assert bind_arguments("::", 8000) == ["[::]:8000 v4v6"]


@pytest.mark.parametrize(
    "host", ["192.0.2.77", "no-such-host.invalid", "x" * 70, "a..b", "1.2.3.4.5", "http://localhost"]
)
def test_a_host_of_another_machine_is_refused_in_one_line(host: str) -> None:
    with pytest.raises(NotOurAddressError) as caught:
        addresses(host)
    assert host in str(caught.value)
    assert "127.0.0.1 for this machine alone" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("fd00::5", "http://[fd00::5]:8000"),
        ("localhost", "http://localhost:8000"),
        ("10.0.0.5", "http://10.0.0.5:8000"),
    ],
)
def test_the_url_is_reachable_from_this_machine(host: str, expected: str) -> None:
    assert url(host, 8000) == expected


def test_an_ipv6_address_has_brackets() -> None:
    assert (authority("::1", 80), authority("box", "80")) == ("[::1]:80", "box:80")


@pytest.mark.parametrize(
    ("host", "wildcard"),
    [("0.0.0.0", True), ("::", True), ("0", True), ("127.0.0.1", False), ("::1", False), ("localhost", False)],
)
def test_a_wildcard_is_no_address(host: str, wildcard: bool) -> None:
    assert is_wildcard(host) == wildcard


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("no.such.host.invalid", False),
    ],
)
def test_hosts_that_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_here_alone(host) is expected


def test_a_name_is_for_this_machine_alone_if_all_its_addresses_are(monkeypatch: pytest.MonkeyPatch) -> None:
    bindable(monkeypatch, "127.0.0.1", "::1", "10.0.0.5")
    resolve(monkeypatch, ("127.0.0.1", 0), ("::1", 0))
    assert is_here_alone("box")
    resolve(monkeypatch, ("127.0.0.1", 0), ("10.0.0.5", 0))
    assert not is_here_alone("box")
