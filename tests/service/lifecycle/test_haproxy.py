"""Our part of HAProxy's configuration, with the real HAProxy and without Ray."""

from __future__ import annotations

import http.client
import importlib.util
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from service.lifecycle.haproxy import DIRECT, STOPPING, Front, rewritten
from tests.haproxy_running import BODIES, NAME, TAG, Replica, Running, ask, can_connect, configuration, turn_away
from tests.running import free_port
from tests.waiting import until


def test_before_there_is_an_application_the_answer_is_503_not_404(start: Callable[..., Running]) -> None:
    status, headers, body = ask(start(replica=None).port)
    assert (status, json.loads(body)) == (503, {"detail": "starting"})
    assert (headers["content-type"], headers["retry-after"]) == ("application/problem+json", "1")


def test_without_a_replica_the_answer_is_a_problem_document(start: Callable[..., Running]) -> None:
    status, headers, body = ask(start(replica=free_port()).port)
    assert (status, json.loads(body)) == (503, {"detail": "down"})
    assert (headers["content-type"], headers["retry-after"]) == ("application/problem+json", "1")


@pytest.mark.parametrize("known_by", ["the running one", "a reload"])
def test_a_service_that_stops_turns_requests_away_except_for_liveness(
    start: Callable[..., Running], replica: int, known_by: str
) -> None:
    running = start(replica=replica)
    assert ask(running.port)[0] == 200
    (running.folder / STOPPING).write_text("stopping\n")
    if known_by == "a reload":
        running.reload()
        running.wait()
    else:
        turn_away(running)
    for method, path in (("POST", "/classify"), ("GET", "/readyz"), ("GET", "/models"), ("GET", "/healthz2")):
        status, headers, body = ask(running.port, method, path)
        assert (status, json.loads(body)) == (503, json.loads(BODIES["stopping"]))
        assert (headers["content-type"], headers["retry-after"]) == ("application/problem+json", "1")
        assert headers["connection"] == "close"
    assert ask(running.port, "HEAD", "/readyz")[::2] == (503, b"")
    assert ask(running.port, "GET", "/healthz")[0] == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2", "localhost", "::1", "::"])
def test_every_host_answers_and_still_does_after_a_reload(
    start: Callable[..., Running], replica: int, host: str
) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    running = start(host, replica=replica)
    (metrics,) = (line for line in running.config.read_text().splitlines() if line.startswith("    bind :"))
    running.reload()
    running.wait("127.0.0.1" if host in ("::", "0.0.0.0") else host)
    reached = {there for there in ("127.0.0.1", "127.0.0.2", "::1") if can_connect(there, running.port)}
    all_of_both = {"127.0.0.1", "127.0.0.2", *(["::1"] if has_ipv6() else [])}
    wanted = {"0.0.0.0": {"127.0.0.1", "127.0.0.2"}, "::": all_of_both}.get(host, {host})
    assert reached == wanted if host != "localhost" else "127.0.0.1" in reached
    (now,) = (line for line in running.config.read_text().splitlines() if line.startswith("    bind :"))
    assert metrics != now, "the ports of this test's configuration are new ones at each start"
    assert can_connect("127.0.0.1", int(now.rpartition(":")[2])), "a reload keeps the other ports open"


def test_an_unknown_configuration_is_refused(tmp_path: Path) -> None:
    config = configuration(tmp_path, 8000, 30000)
    front = Front(str(tmp_path), "haproxy", ["[::1]:8000"])
    assert "    bind [::1]:8000\n" in rewritten(config, front)
    assert "bind *:" not in rewritten(config, front)
    statistics = rewritten(config, front).partition("listen stats\n")[2]
    assert statistics.startswith("  bind 127.0.0.1:"), "they are for this machine alone"
    for address in ("", "127.0.0.1"):
        metrics = rewritten(config, replace(front, metrics=address)).partition("frontend prometheus\n")[2]
        assert metrics.startswith(f"    bind {address}:")
    for line in (
        "frontend http_frontend\n",
        "frontend prometheus\n",
        "global\n",
        "listen stats\n",
        "backend default_backend\n",
    ):
        with pytest.raises(ValueError, match="version of Ray"):
            rewritten(config.replace(line, "\n"), front)


def test_the_configuration_of_these_tests_is_that_of_ray_serve() -> None:
    """The template of the installed Ray, read without importing Ray, has the lines that the other tests rely on."""
    ray = importlib.util.find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    template = (Path(ray.origin).parent / "serve" / "_private" / "haproxy_templates.py").read_text()
    for part in (
        "global\n",
        "frontend http_frontend\n    bind {{ config.frontend_host }}:{{ config.frontend_port }}\n",
        "backend default_backend\n    http-request return status 404 ",
        "    errorfile 503 ",
        "listen stats\n  bind *:",
        "    server {{ server.name }} {{ server.host }}:{{ server.port }} check{% if ",
    ):
        assert part in template
    # What makes the name of a server: SERVE_REPLICA::application#deployment#tag, and what HAProxy does not take.
    source = (Path(ray.origin).parent / "serve" / "_private" / "haproxy.py").read_text()
    assert """name.replace("#", "-").replace("/", ".")""" in source
    assert """re.sub(r"[^A-Za-z0-9._-]+", "_", name)""" in source
    named = "SERVE_REPLICA::topfive#ingress#" + TAG
    assert re.sub(r"[^A-Za-z0-9._-]+", "_", named.replace("#", "-")) == NAME


def test_a_replica_hears_who_the_caller_is(start: Callable[..., Running], replica: int) -> None:
    """What a caller claims comes first; HAProxy adds the address that it sees."""
    running = start(replica=replica)
    with socket.create_connection(("127.0.0.1", running.port)) as caller:
        caller.sendall(b"GET /who HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.2.3\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := caller.recv(1000):
            answer += part
    assert answer.endswith(b"10.1.2.3,127.0.0.1")


def test_serve_need_not_watch_for_callers_who_leave(start: Callable[..., Running], replica: int) -> None:
    """The application does. A caller cannot say otherwise."""
    running = start(replica=replica)
    with socket.create_connection(("127.0.0.1", running.port)) as caller:
        caller.sendall(
            b"GET /headers HTTP/1.1\r\nHost: a\r\nX-Request-Disconnect-Disabled: ?0\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        while part := caller.recv(1000):
            answer += part
    headers = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert headers["x-request-disconnect-disabled"] == "?1"


class Noting(Replica):
    """A replica that notes the paths that it is asked for."""

    def __init__(self, asked: list[str], *arguments: Any) -> None:
        self._asked = asked
        super().__init__(*arguments)

    def parse_request(self) -> bool:
        parsed = super().parse_request()
        self._asked.append(self.path)
        return parsed


@contextmanager
def listening_at(path: Path) -> Iterator[None]:
    """A replica on a Unix socket."""
    path.parent.mkdir(exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replica, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(socket.AF_UNIX)
    server.socket.bind(str(path))
    server.socket.listen()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_replica_with_a_socket_of_its_own_is_asked_there(start: Callable[..., Running], tmp_path: Path) -> None:
    """Its health is still asked over Serve's port, which here nobody answers at first."""
    port = free_port()
    running = start(replica=port)
    with listening_at(running.folder / DIRECT / TAG):
        running.reload()
        running.wait()
        until(lambda: ask(running.port)[0] == 503)
        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(Noting, asked))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        until(lambda: ask(running.port)[0] == 200)
        assert ask(running.port, "GET", "/who")[::2] == (200, b"127.0.0.1")
        assert set(asked) == {"/-/healthz"}
        # One whose socket is gone is asked over the port.
        (running.folder / DIRECT / TAG).unlink()
        running.reload()
        running.wait()
        until(lambda: ask(running.port, "GET", "/who")[0] == 200)
        assert "/who" in asked
        server.shutdown()
        thread.join()
        server.server_close()


#: A line as Serve writes it, and what it becomes; D is the folder of the sockets, in which ab12cd34 has one.
LINES = [
    (
        f"    server {NAME} 127.0.0.1:30000 check",
        f"    server {NAME} unix@D/{TAG} check addr 127.0.0.1 port 30000",
    ),
    (
        f"    server {NAME} 127.0.0.1:30000 check observe layer4 on-error mark-down",
        f"    server {NAME} unix@D/{TAG} check addr 127.0.0.1 port 30000 observe layer4 on-error mark-down",
    ),
    # A deployment may have any name.
    (
        f"    server SERVE_REPLICA_topfive-vgg16_c_lenet5-{TAG} 127.0.0.1:30000 check",
        f"    server SERVE_REPLICA_topfive-vgg16_c_lenet5-{TAG} unix@D/{TAG} check addr 127.0.0.1 port 30000",
    ),
    # One that has no socket, be it on this machine or another; a file is no socket.
    ("    server SERVE_REPLICA_topfive-ingress-zz99zz99 127.0.0.1:30000 check", None),
    ("    server SERVE_REPLICA_topfive-ingress-zz99zz99 10.0.0.7:30000 check", None),
    ("    server SERVE_REPLICA_topfive-ingress-00000000 127.0.0.1:30000 check", None),
    # Serve's own proxy, replicas of gRPC, and a reference to a replica of another backend.
    ("    server SERVE_PROXY_ACTOR-ab12cd34 127.0.0.1:30000 check backup", None),
    (f"    server {NAME} 127.0.0.1:30000 proto h2 check", None),
    (f"    server {NAME} 127.0.0.1:30000 track http-topfive/{NAME}", None),
]


@pytest.mark.parametrize(("line", "becomes"), LINES)
def test_the_line_of_a_replica_with_a_socket_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, becomes: str | None
) -> None:
    sockets = tmp_path / DIRECT
    sockets.mkdir()
    (sockets / "00000000").touch()
    monkeypatch.chdir(sockets)  # whose own path may be too long for a socket's
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(TAG)
        listener.listen()
        config = configuration(tmp_path, 8000, 30000) + line + "\n"
        found = rewritten(config, Front(str(tmp_path), "haproxy", ["[::1]:8000"])).splitlines()[-1]
    assert found == (becomes or line).replace("unix@D", f"unix@{sockets}")


def exchanged(port: int, *pieces: bytes) -> bytes:
    """What HAProxy answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as caller:
        for piece in pieces:
            caller.sendall(piece)
        answer = b""
        while part := caller.recv(65536):
            answer += part
    return answer


def is_page(answer: bytes, status: int) -> None:
    """Checks that an answer is our page for a status, not HAProxy's own."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().lower().splitlines()
    assert lines[0].startswith(f"http/1.1 {status} ")
    assert "content-type: application/problem+json" in lines
    assert "connection: close" in lines
    assert json.loads(body) == {"status": status}


#: HAProxy answers what it cannot read before ``errorfile`` counts: with a page of its own, and the right status.
@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + 50_000 * b"x" + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(250)) + b"\r\n",
        b"GET /" + 50_000 * b"x" + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["nonsense", "two lengths", "a chunk", "a cookie", "headers", "a path"],
)
def test_what_haproxy_cannot_read_is_400_and_the_connection_ends(
    start: Callable[..., Running], replica: int, request_: bytes
) -> None:
    running = start(replica=replica)
    until(lambda: ask(running.port)[0] == 200)
    assert exchanged(running.port, request_).startswith(b"HTTP/1.1 400 ")


def test_headers_that_the_application_refuses_reach_it(start: Callable[..., Running], replica: int) -> None:
    """It says what is wrong with them; its limits are 32 KB and 128 lines."""
    running = start(replica=replica)
    until(lambda: ask(running.port)[0] == 200)
    lines = b"".join(b"X-%d: 1\r\n" % number for number in range(190))
    for more in (b"Cookie: " + 33_000 * b"x" + b"\r\n", lines):
        answer = exchanged(running.port, b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + more + b"\r\n")
        # The replica of this test may have limits of its own, but the answer is not HAProxy's.
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"Server: BaseHTTP" in answer or b"server: BaseHTTP" in answer


def with_timeouts(running: Running, **timeouts: str) -> None:
    """Starts HAProxy anew with other timeouts, so that nobody has to wait for a minute."""
    running.end()
    front = Front.read(running.folder)
    text = rewritten(configuration(running.folder, running.port, running._replica), front)
    for name, value in timeouts.items():
        text, count = re.subn(rf"( timeout {name.replace('_', '-')}) \S+", rf"\1 {value}", text)
        assert count
    running.config.write_text(text)
    program = [front.binary, "-db", "-f", str(running.config)]
    running.processes.append(subprocess.Popen(program, stderr=subprocess.DEVNULL))
    running.wait()


def test_requests_that_do_not_arrive_are_told_so(start: Callable[..., Running], replica: int) -> None:
    running = start(replica=replica)
    with_timeouts(running, http_request="300ms", client="600ms")
    until(lambda: ask(running.port)[0] == 200)
    assert exchanged(running.port, b"GET / HTTP/1.1\r\nHost: a\r\n").startswith(b"HTTP/1.1 408 ")
    # The application tells a slow body sooner than this. To HAProxy it is a client who has gone.
    is_page(exchanged(running.port, b"POST /0 HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"), 400)
    # Who waits for an answer does not have to say anything meanwhile.
    assert ask(running.port, path="/1.5")[0] == 200


def test_a_replica_that_does_not_answer_is_a_problem_document(start: Callable[..., Running], replica: int) -> None:
    running = start(replica=replica)
    with_timeouts(running, server="300ms")
    until(lambda: ask(running.port)[0] == 200)
    status, headers, body = ask(running.port, path="/2")
    assert (status, json.loads(body), headers["content-type"]) == (504, {"status": 504}, "application/problem+json")


def test_beyond_most_of_its_connections_haproxy_turns_new_ones_away(
    start: Callable[..., Running], replica: int
) -> None:
    """200 are allowed here, so the 176th is one too many."""
    running = start(replica=replica)
    until(lambda: ask(running.port)[0] == 200)
    kept = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    kept.request("GET", "/who")
    assert kept.getresponse().read() == b"127.0.0.1"
    idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(174)]
    status, headers, body = ask(running.port)
    assert (status, json.loads(body), headers["retry-after"]) == (429, json.loads(BODIES["full"]), "1")
    # Those who were there before are served.
    kept.request("GET", "/who")
    assert kept.getresponse().read() == b"127.0.0.1"
    for connection in idle[:10]:
        connection.close()
    until(lambda: ask(running.port)[0] == 200)
    for connection in (*idle, kept):
        connection.close()


def test_strangers_do_not_tell_serve_what_to_do(start: Callable[..., Running], replica: int) -> None:
    theirs = {
        "X-Request-Timeout-Seconds": "0.001",
        "serve_multiplexed_model_id": "vgg16",
        "Serve-Multiplexed-Model-Id": "vgg16",
        "X-Session-Id": "a",
        "X_Session_Id": "a",
        "X-Serve-Router-Anything": "a",
        "X-Body-Truncated": "1/2",
    }
    kept = {"X-Request-Id": "a", "Traceparent": "b", "X-Session": "c", "Serve": "d", "Content-Type": "image/png"}
    running = start(replica=replica)
    lines = "".join(f"{name}: {value}\r\n" for name, value in (theirs | kept).items())
    answer = exchanged(running.port, f"GET /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n".encode())
    found = {name.lower() for name in json.loads(answer.partition(b"\r\n\r\n")[2])}
    assert not found & {name.lower() for name in theirs}
    assert found >= {name.lower() for name in kept}
