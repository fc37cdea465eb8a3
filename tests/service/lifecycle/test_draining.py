"""Draining the real HAProxy: what its clients see."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from service.lifecycle.draining import Draining, _listeners
from service.lifecycle.haproxy import ADMIN_SOCKET, CLOSED
from tests.clients import Callers
from tests.haproxy_running import Running, ask, can_connect, turn_away


def test_a_big_body_is_read_before_it_is_turned_away(start: Callable[..., Running], replica: int) -> None:
    """Otherwise a client that is still sending when the connection closes would see a reset instead of the answer."""
    running = start(replica=replica)
    turn_away(running)
    assert [ask(running.port, body=b"x" * size)[0] for size in (0, 100_000, 20_000_000)] == [503] * 3


def test_a_port_is_closed_without_a_reset(start: Callable[..., Running], replica: int) -> None:
    """Clients with and without open connections go on all the time. One request is in the replica from before until
    after the port is closed, and another one is still being sent then."""
    running = start(replica=replica)
    late: list[int] = []
    slow = threading.Thread(target=lambda: late.append(ask(running.port, path="/1.5")[0]))
    sending = socket.create_connection(("127.0.0.1", running.port))
    sending.sendall(b"POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nxx")
    slow.start()
    with Callers(f"http://127.0.0.1:{running.port}/0", b"x") as callers:
        time.sleep(0.3)
        began = time.monotonic()
        with Draining(running.folder, running.port) as draining:
            draining.wait(at_least_s=0.3, until=began + 0.6)
            assert late == []
            draining.close()
            assert not can_connect("127.0.0.1", running.port)
            assert (running.folder / CLOSED).exists()
            sending.sendall(b"xx")
            draining.wait_for_last(time.monotonic() + 10)
            slow.join(0.1)
            assert late == [200]
        time.sleep(0.2)
    slow.join()
    assert sending.recv(1000).startswith(b"HTTP/1.1 200")
    assert set(callers.outcomes) == {"200", "503", "refused"}
    sending.close()
    assert running.processes[-1].wait(10) == 0, "HAProxy ends with the last request"
    assert running.start().wait(10) != 0, "what Serve starts in its place must not open the port again"


def test_running_requests_are_waited_for_and_no_longer_than_allowed(
    start: Callable[..., Running], replica: int
) -> None:
    running = start(replica=replica)
    late: list[int] = []
    slow = threading.Thread(target=lambda: late.append(ask(running.port, path="/1")[0]))
    slow.start()
    time.sleep(0.2)
    with Draining(running.folder, running.port) as draining:
        draining.wait(at_least_s=0, until=time.monotonic() + 0.2)
        assert late == []
        draining.wait(at_least_s=0, until=time.monotonic() + 20)
        slow.join(0.2)
        assert late == [200]
        began = time.monotonic()
        draining.wait(at_least_s=0.5, until=began + 20)
        assert 0.5 <= time.monotonic() - began < 10, "with nothing running, so long and no longer"


def test_draining_works_without_a_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAProxy has died or was never started; the socket of a dead one may still be there."""
    (tmp_path / "node").mkdir()
    monkeypatch.chdir(tmp_path)  # whose own path is too long for a socket's
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"node/{ADMIN_SOCKET}")
    began = time.monotonic()
    with Draining(Path(), 8000) as draining:
        draining.wait(at_least_s=0, until=began + 5)
        draining.close()
        draining.wait_for_last(began + 5)
    assert time.monotonic() < began + 5


def test_a_client_that_is_turned_away_and_still_sends_is_waited_for(
    start: Callable[..., Running], replica: int
) -> None:
    running = start(replica=replica)
    turn_away(running)
    with socket.create_connection(("127.0.0.1", running.port)) as sending:
        sending.sendall(b"POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nxx")
        with Draining(running.folder, running.port) as draining:
            draining.close()
            began = time.monotonic()
            draining.wait_for_last(began + 0.5)
            assert time.monotonic() - began >= 0.5, "it is still sending"
            sending.sendall(b"xx")
            draining.wait_for_last(time.monotonic() + 20)
            assert sending.recv(1000).startswith(b"HTTP/1.1 503")


def test_only_listeners_of_the_services_own_port_are_handed_out(start: Callable[..., Running], replica: int) -> None:
    """HAProxy has others, for its metrics and statistics."""
    running = start("0.0.0.0", replica=replica)
    (admin,) = running.folder.glob(f"*/{ADMIN_SOCKET}")
    found = _listeners(admin, running.port)
    assert [listener.getsockname() for listener in found] == [("0.0.0.0", running.port)]
    for listener in found:
        listener.close()
